"""Batches from delivery to publish: receive → load, then what every run does (conductor.py).

A set of batches is received and loaded one by one, and transformed, tested and published together:
its models are built once. What is wrong with one of them concerns no other.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pyiceberg.table import Table

from lakewarden.aws.objects import Objects
from lakewarden.batch.conductor import Outcome, StageDone, Terms, Work, Workshop, conduct
from lakewarden.batch.delivery.keys import parse_key, parse_keys
from lakewarden.batch.intake import IntakeConfig
from lakewarden.batch.load import load, loaded_from, put_rows, remove_rows, tables_on
from lakewarden.batch.mends import MendsUnreadable, digest_of, overlay, read_mends
from lakewarden.batch.model import (
    Dataset,
    Delivery,
    Loaded,
    LoadedBatch,
    Received,
)
from lakewarden.batch.published import filled, newest, newest_of_each
from lakewarden.batch.receive import BatchUnknown, NotReady, is_delivered, receive
from lakewarden.batch.remade import Remade, remade
from lakewarden.errors import Refused
from lakewarden.lake.model import Branch, Contribution, Lake, Override, Publication
from lakewarden.records.lease import Holder
from lakewarden.tables.template import Template

# What may be wrong with one batch, so that a set can go on without it.
_OF_ONE_BATCH = (Refused, NotReady, BatchUnknown, MendsUnreadable)


def run_batches(
    dataset: Dataset,
    batches: Sequence[str],
    terms: Terms,
    workshop: Workshop,
    holder: Holder,
    *,
    tell: Callable[[StageDone], None] = lambda done: None,
) -> Outcome:
    """Bring batches to main together, or say why not; every error leaves main as it was.

    Raises BatchKeyInvalid, Refused for wrong data, TryAgain where something outside was away or
    busy; what is wrong with single batches is told in the outcome, unless the terms are strict."""
    keys = [str(parse_key(dataset.key_form, batch)) for batch in batches]
    job = _Load(dataset, workshop.templates)
    return conduct(job, dataset.name, keys, terms, workshop, holder, tell=tell)


@dataclass(frozen=True)
class Delivered:
    """The batches of a set that something was delivered of, in order. `withdrawn`: those that
    somebody took out of main; they come back when they are asked for by name."""

    batches: Sequence[str]
    withdrawn: Sequence[str]


def delivered(objects: Objects, lake: Lake, dataset: Dataset, named: str) -> Delivered:
    """What is there of FIRST..LAST.

    Raises BatchKeyInvalid, RangeBackwards, BatchUnknown where nothing is."""
    keys = parse_keys(dataset.key_form, named)
    there = newest_of_each(lake.publications(dataset.name))
    out = {batch for batch, one in there.items() if one.contribution.withdrawn}
    found = [str(key) for key in keys if is_delivered(objects, dataset, str(key))]
    if not found:
        raise BatchUnknown(
            f"nothing was delivered of {dataset.name} {named}",
            hint=f'"lakewarden batch deliver {dataset.name} BATCH DIR" delivers a batch.',
        )
    return Delivered(
        [batch for batch in found if batch not in out],
        [batch for batch in found if batch in out],
    )


def groups(batches: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """The batches in order, so many at a time."""
    for start in range(0, len(batches), most):
        yield batches[start : start + most]


def inputs_hash(
    delivery: Delivery, dataset: Dataset, templates: Mapping[str, Template], project: str | None
) -> str:
    """Equal where a batch would come out equal: its delivery with its mends, its tables, the dbt
    project (`project`: its digest)."""
    tables = {name: [glob, templates[name].digest] for name, glob in dataset.tables.items()}
    made_of: list[object] = [1, delivery.hash, tables, project]
    if mends := digest_of(delivery.mends):
        made_of.append(mends)
    text = json.dumps(made_of, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class _Load:
    """The job: deliveries become rows."""

    dataset: Dataset
    templates: Mapping[str, Template]
    stages: Sequence[str] = ("receive", "load")
    deliveries: dict[str, Delivery] = field(default_factory=dict)  # that are to be published
    inputs: dict[str, str] = field(default_factory=dict)
    same: dict[str, Publication] = field(default_factory=dict)  # that hold a batch already
    remade: Remade = field(default_factory=Remade)
    loaded: list[LoadedBatch] | None = None

    def prepare(self, work: Work) -> bool:
        work.stage("receive", lambda: self._receive(work))
        return bool(self.deliveries)

    def put(self, work: Work, branch: Branch) -> Loaded | None:
        # Asked when the branch is there, since its rows are what has to be replaced: a lease
        # keeps nobody from publishing a batch meanwhile.
        for batch in list(self.deliveries):
            if self._is_published(work, batch):
                del self.deliveries[batch]
        if not self.deliveries:
            return None
        if self.loaded is None:
            staged = work.stage("load", lambda: self._load(work, branch))
        else:
            staged = self._put_rows(work, branch, self._tables(work, branch))
        return staged if staged.batches else None

    def contributions(self, loaded: Loaded, override: Override | None) -> Sequence[Contribution]:
        return [
            Contribution(
                self.dataset.name,
                one.delivery.batch,
                self.inputs[one.delivery.batch],
                {
                    "in": one.counts.records_in,
                    "loaded": one.counts.loaded,
                    "quarantined": one.counts.quarantined,
                },
                override,
            )
            for one in loaded.batches
        ]

    def holding(self) -> Publication | None:
        return next(iter(self.same.values()), None)

    def _receive(self, work: Work) -> Received:
        self.remade = remade(work.workshop.lake.publications(), work.project)
        every = []
        for batch in work.current.batches:
            try:
                found = self._receive_one(work.workshop, batch)
            except _OF_ONE_BATCH as error:
                work.leave_out(batch, error)
                continue
            every.append(found)
            self.inputs[batch] = inputs_hash(found, self.dataset, self.templates, work.project)
            if not self._is_published(work, batch):
                self.deliveries[batch] = found
        return Received(work.current, every, tuple(self.same))

    def _receive_one(self, shop: Workshop, batch: str) -> Delivery:
        found = receive(shop.objects, self.dataset, batch, now=shop.now())
        return replace(found, mends=overlay(read_mends(shop.objects, self.dataset.name, batch)))

    def _is_published(self, work: Work, batch: str) -> bool:
        """Whether main holds the batch, made of the same inputs."""
        found = newest(work.workshop.lake, self.dataset.name, batch)
        if found is None or found.contribution.withdrawn:
            return False
        if found.contribution.inputs_hash != self.inputs[batch]:
            return False
        if self.remade.since(found):
            return False
        self.same[batch] = found
        return True

    def _load(self, work: Work, branch: Branch) -> Loaded:
        tables = self._tables(work, branch)
        loaded = []
        for batch, delivery in self.deliveries.items():
            scratch = work.scratch / "load"
            try:
                loaded.append(
                    load(
                        delivery,
                        work.current,
                        self.dataset,
                        tables,
                        objects=work.workshop.objects,
                        templates=self.templates,
                        config=IntakeConfig(work.duck, scratch, work.workshop.part_bytes),
                    )
                )
            except _OF_ONE_BATCH as error:
                work.leave_out(batch, error)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        self.loaded = loaded
        return self._put_rows(work, branch, tables)

    def _tables(self, work: Work, branch: Branch) -> Mapping[str, Table]:
        return tables_on(work.workshop.lake.catalog(branch), self.dataset, self.templates)

    def _put_rows(self, work: Work, branch: Branch, tables: Mapping[str, Table]) -> Loaded:
        loaded = [one for one in self.loaded or () if one.delivery.batch in self.deliveries]
        batches = [one.delivery.batch for one in loaded]
        before = {batch: filled(work.workshop.lake, batch) for batch in batches}
        replacing = {batch for batch in batches if not before[batch].isdisjoint(tables)}
        if loaded:
            levels = {name: self.templates[name].level for name in tables}
            put_rows(tables, loaded, work.current, levels=levels, replacing=replacing)
        # Of a table that the dataset fills no more, the rows that these batches brought before.
        emptied = frozenset[str]().union(*before.values()) - tables.keys()
        catalog = work.workshop.lake.catalog(branch)
        left = loaded_from(catalog, self.dataset.name, emptied, self.templates)
        for name in left:
            level = self.templates[name].level
            remove_rows(catalog.load_table(name), batches, work.current, level)
        return Loaded(work.current, branch, frozenset(tables).union(left), tuple(loaded))
