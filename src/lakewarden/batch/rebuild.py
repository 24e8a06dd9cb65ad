"""Rebuild: models and their descendants are made again, tested and published; nothing is loaded.

For a model that was changed: what was delivered, and the tables that are loaded from it, stay as
they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lakewarden.batch.conductor import Outcome, StageDone, Terms, Work, Workshop, conduct
from lakewarden.batch.delivery.keys import parse_key
from lakewarden.batch.model import Dataset, Loaded
from lakewarden.errors import WrongUsage
from lakewarden.lake.model import Branch, Contribution, Override, Publication
from lakewarden.records.lease import Holder


class NoModels(WrongUsage):
    """The project has no models to build."""


def rebuild(
    dataset: Dataset,
    batches: Sequence[str],
    models: Sequence[str],
    terms: Terms,
    workshop: Workshop,
    holder: Holder,
    *,
    tell: Callable[[StageDone], None] = lambda done: None,
) -> Outcome:
    """Build and publish these models and what is made from them. Of one that is written by batch,
    the rows of these batches. Raises NoModels, ModelUnknown, and what every run raises."""
    if workshop.dbt is None:
        raise NoModels(
            "the project has no models", hint="A dbt project in transform/ would hold them."
        )
    keys = [str(parse_key(dataset.key_form, batch)) for batch in batches]
    job = _Rebuild(dataset)
    return conduct(
        job, dataset.name, keys, terms, workshop, holder, tell=tell, models=tuple(models)
    )


@dataclass
class _Rebuild:
    """The job: nothing but the models."""

    dataset: Dataset
    stages: Sequence[str] = ()

    def prepare(self, work: Work) -> bool:
        del work
        return True

    def put(self, work: Work, branch: Branch) -> Loaded | None:
        return Loaded(work.current, branch, frozenset())

    def contributions(self, loaded: Loaded, override: Override | None) -> Sequence[Contribution]:
        run = loaded.run
        what = f"models {', '.join(run.models)} for {self.dataset.name} {run.span}"
        return [Contribution(None, None, "", {}, override, what, models=True)]

    def holding(self) -> Publication | None:
        return None
