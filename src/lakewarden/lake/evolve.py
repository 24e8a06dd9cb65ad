"""Templates against the catalog: what would change, changing it in one publish, and drift."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from pyiceberg.table import Table

from lakewarden.lake.apply import apply
from lakewarden.lake.model import Contribution, Lake, Pin, Publication
from lakewarden.tables.changes import TablePlan
from lakewarden.tables.drift import Finding, drift
from lakewarden.tables.plan import plan
from lakewarden.tables.template import Template


def plan_tables(lake: Lake, pin: Pin, templates: Mapping[str, Template]) -> Sequence[TablePlan]:
    """What brings each table to its template; an empty plan where nothing has to change.

    Raises ChangeRefused where a change would lose data."""
    return [plan(template, _table(lake, pin, name)) for name, template in templates.items()]


def apply_tables(
    lake: Lake, plans: Sequence[TablePlan], *, run: str, at: datetime
) -> Publication | None:
    """Carry out plans for all tables in one publish; None where there is nothing to do.

    Raises PlanOutdated or BaseMoved where somebody changed a table meanwhile."""
    needed = [each for each in plans if each]
    if not needed:
        return None
    branch = lake.begin(f"tables/{run}", run, at)
    try:
        catalog = lake.catalog(branch)
        for each in needed:
            apply(catalog, each)
        summary = "table apply: " + ", ".join(each.identifier for each in needed)
        change = Contribution(None, None, "", {}, summary=summary)
        return lake.publish(branch, [change], reads=frozenset(), at=at)
    finally:
        lake.discard(branch.name)


def drift_of(
    lake: Lake, pin: Pin, templates: Mapping[str, Template]
) -> Mapping[str, Sequence[Finding]]:
    """Each table's findings, by name; only tables that drifted are in it."""
    found = {name: drift(template, _table(lake, pin, name)) for name, template in templates.items()}
    return {name: findings for name, findings in found.items() if findings}


def _table(lake: Lake, pin: Pin, name: str) -> Table | None:
    return lake.load(pin, name) if name in pin.tables else None
