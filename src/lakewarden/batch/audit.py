"""Audit: may this be published? Pure: what was counted and tested decides, and nothing else."""

from collections.abc import Sequence

from lakewarden.batch.model import Audited, TestResult, Transformed
from lakewarden.errors import Failed, Refused, WrongUsage


class TestsFailed(Refused):
    """The batch loads, and breaks tests of its models."""

    __test__ = False  # not a pytest class


class RecordsLost(Failed):
    """Records in are not records loaded plus records quarantined: a mistake of ours."""


class NothingToAccept(WrongUsage):
    """The test that was to be accepted does not fail, so nothing has to be taken on one's word."""


def audit(transformed: Transformed, *, accept: str | None = None) -> Audited:
    """Every record is accounted for and no test fails, save the one that is accepted by name."""
    counts = transformed.loaded.counts
    if counts.records_in != counts.loaded + counts.quarantined:
        raise RecordsLost(
            f"{counts.records_in:,} records came in, {counts.loaded:,} were loaded and"
            f" {counts.quarantined:,} quarantined",
            hint="Please report this; nothing was published.",
        )
    failing = [test for test in transformed.tests if test.status in ("fail", "error")]
    accepted = next((test for test in failing if test.name == accept), None)
    if accept is not None and accepted is None:
        raise NothingToAccept(
            f"the test {accept} does not fail", hint="Run the batch without --accept."
        )
    left = [test for test in failing if test is not accepted]
    if left:
        raise TestsFailed(_told(left), hint=_hint(left))
    warnings = [test for test in transformed.tests if test.status == "warn"]
    return Audited(transformed, warnings, accepted)


def _told(failing: Sequence[TestResult]) -> str:
    first = failing[0]
    counted = "1 row" if first.failures == 1 else f"{first.failures:,} rows"
    rows = f" ({counted})" if first.failures else ""
    more = f", and {len(failing) - 1} more" if len(failing) > 1 else ""
    return f"the data break the test {first.name}{rows}{more}"


def _hint(failing: Sequence[TestResult]) -> str:
    if len(failing) > 1:
        return "Look at the branch with `batch run --no-publish`, and deliver the batch mended."
    return (
        "Deliver the batch mended; or publish in spite of it, on your word:"
        f" --accept {failing[0].name} --reason TEXT"
    )
