"""The alarms that `definitions/alarms.json` describes, and which of them another alarm is like.

An alarm of a user's own is taken for one of ours by its tag TAG, which names a procedure; else by
its name, its metric and its dimensions, which `like` gives as patterns.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lakewarden.aws.definitions import definition
from lakewarden.errors import WrongUsage

TAG = "lakewarden:procedure"

Part = Literal["nessie", "dagster", "pipeline", "redshift"]


class AlarmIncomplete(WrongUsage):
    """An alarm's definition asks for a name that is not known."""


class Like(BaseModel):
    """Patterns (regular expressions, found anywhere, whatever the case)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    metric: str | None = None
    dimension: str | None = None


class Alarm(BaseModel):
    """One definition. `name` and the values of `dimensions` are templates."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    part: Part  # of which part of the system it tells
    namespace: str
    metric: str
    dimensions: dict[str, str]
    statistic: Literal["Average", "Maximum", "Minimum", "Sum", "SampleCount"]
    comparison: Literal[
        "GreaterThanThreshold",
        "GreaterThanOrEqualToThreshold",
        "LessThanThreshold",
        "LessThanOrEqualToThreshold",
    ]
    threshold: float
    period: int = Field(multiple_of=60)  # seconds
    periods: int = Field(ge=1)
    missing: Literal["missing", "notBreaching", "breaching", "ignore"]
    meaning: str
    procedure: str  # that it calls for
    like: Like

    @property
    def of_each_dataset(self) -> bool:
        """Whether there is one for each dataset."""
        return "{dataset}" in self.name


@dataclass(frozen=True)
class Seen:
    """Another alarm, as it is told of."""

    name: str
    metric: str = ""
    dimensions: tuple[str, ...] = ()  # their values
    tags: tuple[tuple[str, str], ...] = ()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: Literal[1]
    alarms: tuple[Alarm, ...]


@cache
def alarms() -> tuple[Alarm, ...]:
    """All of them, in the file's order."""
    return _File.model_validate_json(definition("alarms.json")).alarms


def filled(alarm: Alarm, places: Mapping[str, str], actions: Iterable[str]) -> dict[str, object]:
    """The parameters of CloudWatch's PutMetricAlarm. `places`: what stands for each `{name}`;
    `actions`: ARNs that hear of ALARM and of OK. Raises AlarmIncomplete."""
    told = list(actions)
    return {
        "AlarmName": _fill(alarm.name, places),
        "AlarmDescription": alarm.meaning,
        "Namespace": alarm.namespace,
        "MetricName": alarm.metric,
        "Dimensions": [
            {"Name": name, "Value": _fill(value, places)}
            for name, value in alarm.dimensions.items()
        ],
        "Statistic": alarm.statistic,
        "ComparisonOperator": alarm.comparison,
        "Threshold": alarm.threshold,
        "Period": alarm.period,
        "EvaluationPeriods": alarm.periods,
        "DatapointsToAlarm": alarm.periods,
        "TreatMissingData": alarm.missing,
        "ActionsEnabled": True,
        "AlarmActions": told,
        "OKActions": told,
        "Tags": [{"Key": TAG, "Value": alarm.procedure}],
    }


def names_of(part: Part, places: Mapping[str, str], datasets: Iterable[str]) -> Sequence[str]:
    """What the alarms of a part are called. Raises AlarmIncomplete."""
    each = [{"dataset": name} for name in datasets]
    return [
        _fill(alarm.name, {**places, **more})
        for alarm in alarms()
        if alarm.part == part
        for more in (each if alarm.of_each_dataset else [{}])
    ]


def procedure_for(seen: Seen) -> str | None:
    """The procedure that an alarm calls for; None where it is like none of ours."""
    for name, value in seen.tags:
        if name == TAG:
            return value
    fitting = [alarm for alarm in alarms() if _is_like(alarm.like, seen)]
    return fitting[0].procedure if fitting else None


def _is_like(like: Like, seen: Seen) -> bool:
    """By its name; or by its metric together with a dimension, where both are given."""
    if re.search(like.name, seen.name, re.IGNORECASE):
        return True
    if like.metric is None or not re.fullmatch(like.metric, seen.metric):
        return False
    return like.dimension is None or any(
        re.search(like.dimension, value, re.IGNORECASE) for value in seen.dimensions
    )


def _fill(template: str, places: Mapping[str, str]) -> str:
    def fill(place: re.Match[str]) -> str:
        if place[1] not in places:
            raise AlarmIncomplete(
                f"an alarm needs {{{place[1]}}}, which is not known",
                hint="definitions/alarms.json",
            )
        return places[place[1]]

    return re.sub(r"\{(\w+)\}", fill, template)
