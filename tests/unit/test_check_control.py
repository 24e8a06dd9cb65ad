"""What is missing of a part of the control plane, and what is just not installed."""

import pytest

from lakewarden.aws.check_control import Expected, Found, dagster, judge, nessie, pipeline
from lakewarden.aws.definitions import names

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
