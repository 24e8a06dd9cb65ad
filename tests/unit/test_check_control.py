"""What is missing of a part of the control plane, and what is just not installed."""

from collections.abc import Iterator

import pytest

from lakewarden.aws.check_control import (
    ControlPlaneAway,
    Expected,
    Found,
    check_control,
    dagster,
    judge,
    nessie,
    pipeline,
)
from lakewarden.aws.clients import Connection, Patience
from lakewarden.aws.definitions import names
from tests.fakes.control_plane import FakeControlPlane, fake_control_plane

NAMES = names("dpc", "prod")
PARTS = [pipeline(NAMES), nessie(NAMES), dagster(NAMES)]


@pytest.mark.parametrize("part", PARTS, ids=["pipeline", "nessie", "dagster"])
def test_a_part_of_which_nothing_exists_is_not_missing(part: list[Expected]) -> None:
    answer = judge([Found(one, there=False) for one in part])
    assert (answer.told, answer.missing, answer.hint) == ("not installed", (), None)


@pytest.mark.parametrize("part", PARTS, ids=["pipeline", "nessie", "dagster"])
def test_what_is_called_otherwise_is_named(part: list[Expected]) -> None:
    answer = judge([Found(one, there=number != 1) for number, one in enumerate(part)])
    assert answer.missing == (f"there is no {part[1]}",)
    assert answer.told == f"{len(part) - 1} of {len(part)} parts are there"
    assert "[names]" in (answer.hint or "")


def test_what_we_may_not_ask_is_told_as_that() -> None:
    first, second, *rest = PARTS[0]
    answer = judge([Found(first, None), Found(second, None), *(Found(one, True) for one in rest)])
    assert answer.missing == ()
    assert answer.unknown == (f"whether there is a {first}", f"whether there is a {second}")
    nothing_known = judge([Found(one, None) for one in PARTS[0]])
    assert nothing_known.missing == ()
    assert len(nothing_known.unknown) == len(PARTS[0])


def test_the_runbooks_names_are_looked_for() -> None:
    told = {str(one) for part in PARTS for one in part}
    assert {
        "state machine dpc-pipeline",
        "topic dpc-learning-alerts",
        "function dpc-validate-manifest",
        "log group /aws/ecs/dpc-dbt-runner",
        "log group /aws/lambda/dpc-copy-raw",
    } <= told


# ── looking ─────────────────────────────────────────────────────────────────────────────────────

ACCOUNT = "123456789012"
LOG_GROUP = Expected("log group", "/aws/ecs/dpc-dbt-runner")
SERVICE = Expected("service", "dpc-prod-nessie", "dpc-prod")
MACHINE = Expected("state machine", "dpc-pipeline")


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with fake_control_plane() as plane:
        plane.accounts["ours"] = ACCOUNT
        yield plane


def connection(plane: FakeControlPlane) -> Connection:
    here = plane.endpoint
    return Connection(ACCOUNT, "eu-west-1", here, "ours", "secret", here, Patience(1.0))


def groups(*found: str) -> dict[str, object]:
    return {"logGroups": [{"logGroupName": name} for name in found]}


def test_a_name_that_only_begins_alike_is_another(plane: FakeControlPlane) -> None:
    plane.answers["DescribeLogGroups"] = groups(f"{LOG_GROUP.name}-v2")
    plane.answers["DescribeServices"] = {"services": [{"status": "ACTIVE"}]}
    answer = check_control(connection(plane), [LOG_GROUP, SERVICE])
    assert answer.missing == (f"there is no log group {LOG_GROUP.name}",)
    plane.answers["DescribeLogGroups"] = groups(f"{LOG_GROUP.name}-v2", LOG_GROUP.name)
    assert check_control(connection(plane), [LOG_GROUP, SERVICE]).missing == ()


def test_a_service_that_was_deleted_is_not_there(plane: FakeControlPlane) -> None:
    plane.answers["DescribeServices"] = {"services": [{"status": "INACTIVE"}]}
    plane.answers["DescribeLogGroups"] = groups(LOG_GROUP.name)
    answer = check_control(connection(plane), [LOG_GROUP, SERVICE])
    assert answer.missing == (f"there is no {SERVICE}",)


def test_who_may_not_look_is_told_that(plane: FakeControlPlane) -> None:
    plane.denied.add("DescribeStateMachine")
    plane.answers["DescribeLogGroups"] = groups(LOG_GROUP.name)
    answer = check_control(connection(plane), [LOG_GROUP, MACHINE])
    assert (answer.missing, answer.unknown) == ((), (f"whether there is a {MACHINE}",))


def test_a_plane_that_is_away_is_no_missing_part(plane: FakeControlPlane) -> None:
    there = connection(plane)
    check_control(there, [MACHINE])
    plane.away.add("DescribeStateMachine")
    with pytest.raises(ControlPlaneAway, match="dpc-pipeline") as caught:
        check_control(there, [MACHINE])
    assert caught.value.exit_code == 75
