"""Unpublish: the state that would be had if a batch had never run; later batches stay.

The rows of the batch go from the tables that its dataset loads, the models downstream are made
again from what is left, and all of it is published in one step. What was delivered stays where it
is, so the batch can be run again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lakewarden.batch.conductor import Outcome, StageDone, Terms, Work, Workshop, conduct
from lakewarden.batch.delivery.keys import parse_key
from lakewarden.batch.load import loaded_from, remove_rows
from lakewarden.batch.model import Dataset, Loaded
from lakewarden.batch.published import filled, newest, newest_of_each
from lakewarden.errors import WrongUsage
from lakewarden.lake.model import Branch, Contribution, Lake, Override, Publication
from lakewarden.records.lease import Holder


class NotPublished(WrongUsage):
    """There is nothing published of this batch."""


class ModelsGone(WrongUsage):
    """The batch is in models, and the dbt project that would make them without it is not there."""


def published(lake: Lake, dataset: str, batches: Sequence[str]) -> Sequence[str]:
    """Of several batches those that something is published of. Where it is none of them, the
    first, about which `unpublish` then says so; a single one is left to it as well."""
    if len(batches) == 1:
        return batches
    there = newest_of_each(lake.publications(dataset))
    held = {batch for batch, one in there.items() if not one.contribution.withdrawn}
    return [batch for batch in batches if batch in held] or batches[:1]


def unpublish(
    dataset: Dataset,
    batches: Sequence[str],
    terms: Terms,
    workshop: Workshop,
    holder: Holder,
    *,
    reason: str = "",
    tell: Callable[[StageDone], None] = lambda done: None,
) -> Outcome:
    """Take batches out of main, whole; every error leaves main as it was.

    A batch that was taken out before stays out. Raises BatchKeyInvalid, NotPublished where one
    never was in, ModelsGone; and what every run raises: tests may fail without the batch too."""
    keys = [str(parse_key(dataset.key_form, batch)) for batch in batches]
    job = _Withdraw(dataset, reason)
    return conduct(job, dataset.name, keys, terms, workshop, holder, tell=tell)


@dataclass
class _Withdraw:
    """The job: rows go."""

    dataset: Dataset
    reason: str
    stages: Sequence[str] = ("withdraw",)
    published: dict[str, Publication] = field(default_factory=dict)  # what is to go
    gone: list[Publication] = field(default_factory=list)  # by which others went before

    def prepare(self, work: Work) -> bool:
        self.gone.clear()
        for batch in work.current.batches:
            found = newest(work.workshop.lake, self.dataset.name, batch)
            if found is None:
                raise NotPublished(
                    f"nothing is published of {self.dataset.name} {batch}",
                    hint="lakewarden lake log",
                )
            if found.contribution.project and not work.project:
                raise ModelsGone(
                    f"{self.dataset.name} {batch} is in models, and there is no dbt project to make"
                    " them without it",
                    hint="Put transform/ back, then give the same command again.",
                )
            if found.contribution.withdrawn:
                self.gone.append(found)
                self.published.pop(batch, None)
            else:
                self.published[batch] = found
        return bool(self.published)

    def put(self, work: Work, branch: Branch) -> Loaded | None:
        if not self.prepare(work):  # somebody else may have done it meanwhile
            return None
        return work.stage("withdraw", lambda: self._withdraw(work, branch))

    def contributions(self, loaded: Loaded, override: Override | None) -> Sequence[Contribution]:
        return [
            Contribution(
                self.dataset.name,
                batch,
                self.published[batch].contribution.inputs_hash,
                {"in": 0, "loaded": 0, "quarantined": 0},
                override,
                self.reason,
                withdrawn=True,
            )
            for batch in loaded.withdrawn
        ]

    def holding(self) -> Publication | None:
        return next(iter(self.gone), None)

    def _withdraw(self, work: Work, branch: Branch) -> Loaded:
        batches = tuple(self.published)
        catalog = work.workshop.lake.catalog(branch)
        templates = work.workshop.templates
        # Also of those that the dataset has named before.
        wrote = {name for batch in batches for name in filled(work.workshop.lake, batch)}
        names = wrote.union(self.dataset.tables)
        tables = loaded_from(catalog, self.dataset.name, names, templates)
        for name in tables:
            remove_rows(catalog.load_table(name), batches, work.current, templates[name].level)
        return Loaded(work.current, branch, frozenset(tables), withdrawn=batches)
