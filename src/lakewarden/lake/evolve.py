"""Templates against the catalog: what would change, changing it in one publish, and drift."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from pyiceberg.table import Table

from lakewarden.errors import TryAgain
from lakewarden.lake.apply import apply
from lakewarden.lake.model import Contribution, Lake, Pin, Publication
from lakewarden.tables.changes import TablePlan
from lakewarden.tables.drift import Finding, drift
from lakewarden.tables.plan import plan
from lakewarden.tables.template import Template


class DriftUnknown(TryAgain):
    """The catalog or the object store did not answer."""


# More gain nothing: it is Python's own work that takes the time then.
_READERS = 4


def plan_tables(lake: Lake, pin: Pin, templates: Mapping[str, Template]) -> Sequence[TablePlan]:
    """What brings each table to its template; an empty plan where nothing has to change.

    Raises ChangeRefused where a change would lose data."""
    tables = _tables(lake, pin, templates)
    return [plan(template, tables.get(name)) for name, template in templates.items()]


def apply_tables(
    lake: Lake, plans: Sequence[TablePlan], *, run: str, at: datetime
) -> Publication | None:
    """Carry out plans for all tables in one publish; None where there is nothing to do.

    Raises PlanOutdated or BaseMoved where somebody changed a table meanwhile."""
    needed = [each for each in plans if each]
    if not needed:
        return None
    name = f"tables/{run}"
    try:
        branch = lake.begin(name, run, at)
        catalog = lake.catalog(branch)
        for each in needed:
            apply(catalog, each)
        summary = "table apply: " + ", ".join(each.identifier for each in needed)
        change = Contribution(None, None, "", {}, summary=summary)
        return lake.publish(branch, [change], reads=frozenset(), at=at)
    finally:
        lake.discard(name)  # also where no answer to its beginning came


def drift_of(
    lake: Lake, pin: Pin, templates: Mapping[str, Template]
) -> Mapping[str, Sequence[Finding]]:
    """Each table's findings, by name; only tables that drifted are in it."""
    tables = _tables(lake, pin, templates)
    found = {name: drift(template, tables.get(name)) for name, template in templates.items()}
    return {name: findings for name, findings in found.items() if findings}


def drift_now(
    lake: Callable[[], Lake], templates: Mapping[str, Template]
) -> Mapping[str, Sequence[Finding]]:
    """The same of main as it is. `lake` is called here, since that may fail as well; raises
    DriftUnknown: no answer is not "no drift"."""
    try:
        catalog = lake()
        return drift_of(catalog, catalog.pin(), templates)
    except TryAgain as error:
        raise DriftUnknown(
            f"cannot tell whether tables drifted: {error.message}", hint=error.hint
        ) from error


def _tables(lake: Lake, pin: Pin, names: Collection[str]) -> Mapping[str, Table]:
    """Those of the tables that there are. Each has a file of metadata, so they are read side by
    side; the first error is raised, and nobody waits for the others then."""
    wanted = [name for name in names if name in pin.tables]
    pool = ThreadPoolExecutor(_READERS, thread_name_prefix="lakewarden-metadata")
    try:
        loaded = pool.map(lambda name: lake.load(pin, name), wanted)
        return dict(zip(wanted, loaded, strict=True))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
