"""What was published of a batch: it, or, as the last of all, that it was withdrawn."""

from collections.abc import Iterable, Mapping

from lakewarden.lake.model import Lake, Publication


def newest(lake: Lake, dataset: str, batch: str) -> Publication | None:
    """Of one batch; None where nothing ever was."""
    return next(iter(lake.publications(dataset, batch)), None)


def filled(lake: Lake, batch: str) -> frozenset[str]:
    """The tables that may hold rows of such a batch, by all that was ever published of one; another
    dataset may have brought them there."""
    return frozenset(name for one in lake.publications(batch=batch) for name in one.tables)


def newest_of_each(publications: Iterable[Publication]) -> Mapping[str, Publication]:
    """By batch, of one dataset's publications, newest first."""
    found: dict[str, Publication] = {}
    for one in publications:
        found.setdefault(one.contribution.batch or "", one)
    return found
