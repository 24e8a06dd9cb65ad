"""dbt's tests and the conservation of records, as asset checks. Pure."""

from collections.abc import Mapping, Sequence

import dagster as dg

from lakewarden.batch.model import Counts
from lakewarden.dagster_defs.lineage import Check
from lakewarden.dagster_defs.naming import Naming

_WORST = ("error", "fail", "warn", "pass")


def spec(check: Check, naming: Naming) -> dg.AssetCheckSpec:
    about = "Records counted are rows loaded and records quarantined, each once."
    return dg.AssetCheckSpec(
        check.name,
        asset=naming.key(check.key),
        description=f"The dbt test {check.test}." if check.test else about,
        additional_deps=[naming.key(key) for key in check.others],
    )


def conservation(check: Check, naming: Naming, counts: Counts) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=naming.key(check.key),
        check_name=check.name,
        passed=counts.records_in == counts.loaded + counts.quarantined,
        metadata={
            "records": counts.records_in,
            "loaded": counts.loaded,
            "quarantined": counts.quarantined,
        },
    )


def result(check: Check, naming: Naming, status: str | None) -> dg.AssetCheckResult:
    """status: as the test ended; None: it did not run, which is a warning and no success."""
    severity = dg.AssetCheckSeverity.ERROR if status in ("fail", "error") else None
    return dg.AssetCheckResult(
        asset_key=naming.key(check.key),
        check_name=check.name,
        passed=status == "pass",
        severity=severity or dg.AssetCheckSeverity.WARN,
        metadata={"status": status or "did not run"},
    )


def worst(told: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """Of several groups of batches: each test as it ended worst."""
    found: dict[str, str] = {}
    for statuses in told:
        for name, status in statuses.items():
            found[name] = min(found.get(name, status), status, key=_WORST.index)
    return found
