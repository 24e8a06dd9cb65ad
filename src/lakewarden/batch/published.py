"""What was last published of a batch: it, or that it was withdrawn."""

from collections.abc import Iterable, Mapping

from lakewarden.lake.model import Lake, Publication


def newest(lake: Lake, dataset: str, batch: str) -> Publication | None:
    """Of one batch; None where nothing ever was."""
    return next(iter(lake.publications(dataset, batch)), None)


def newest_of_each(publications: Iterable[Publication]) -> Mapping[str, Publication]:
    """By batch, of one dataset's publications, newest first."""
    found: dict[str, Publication] = {}
    for one in publications:
        found.setdefault(one.contribution.batch or "", one)
    return found
