"""Stands in for how CloudWatch judges alarms, and for what it tells when one changes.

ministack looks at all data of a metric's name, whatever its dimensions, and at none of the
periods. The rules here: "Evaluating an alarm" and "Configuring how CloudWatch alarms treat missing
data" in the CloudWatch User Guide: M of the last N periods, each with its own statistic.

An alarm that looks at five minutes three times over takes a quarter of an hour to be seen. Here
time runs faster for alarms, and for them only: every period is shorter by the `haste`, and at
least MINIMUM seconds.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

MINIMUM = 10.0  # seconds of a period

_LOOK_SECONDS = 1.0
_POINTS = 10_000  # of each metric that are kept
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": lambda value, limit: value >= limit,
    "GreaterThanThreshold": lambda value, limit: value > limit,
    "LessThanThreshold": lambda value, limit: value < limit,
    "LessThanOrEqualToThreshold": lambda value, limit: value <= limit,
}


@dataclass(frozen=True)
class Rule:
    """When an alarm is one."""

    threshold: float
    comparison: str
    period: float  # seconds
    periods: int  # that are looked at
    breaching: int  # of them, for an alarm
    missing: str  # breaching | notBreaching | ignore | missing


def rule_of(alarm: Mapping[str, Any], haste: float) -> Rule:
    periods = int(alarm.get("EvaluationPeriods") or 1)
    return Rule(
        threshold=float(alarm.get("Threshold") or 0),
        comparison=str(alarm.get("ComparisonOperator")),
        period=max(float(alarm.get("Period") or 60) / haste, MINIMUM),
        periods=periods,
        breaching=int(alarm.get("DatapointsToAlarm") or periods),
        missing=str(alarm.get("TreatMissingData") or "missing"),
    )


def values_of(
    points: Iterable[tuple[float, Any]],
    rule: Rule,
    now: float,
    statistic: Callable[[Sequence[Any]], float | None],
) -> list[float | None]:
    """The metric in each period that is looked at, the newest first; None where there is none.
    Periods count back from now. `points`: (seconds since 1970, the point)."""
    buckets: list[list[Any]] = [[] for _ in range(rule.periods)]
    for at, point in points:
        age = int((now - at) // rule.period)
        if 0 <= age < rule.periods:
            buckets[age].append(point)
    return [statistic(bucket) if bucket else None for bucket in buckets]


def state_of(rule: Rule, values: Sequence[float | None]) -> str | None:
    """OK, ALARM or INSUFFICIENT_DATA; None: as it was."""
    compare = _COMPARE.get(rule.comparison)
    if compare is None:
        return None
    known = [compare(value, rule.threshold) for value in values if value is not None]
    gaps = len(values) - len(known)
    bad = sum(known)
    if rule.missing == "breaching":
        bad += gaps
    if bad >= rule.breaching:
        return "ALARM"
    if known or rule.missing in ("breaching", "notBreaching"):
        return "OK"
    return "INSUFFICIENT_DATA" if rule.missing == "missing" else None


def reason_of(rule: Rule, values: Sequence[float | None], state: str) -> str:
    """In CloudWatch's own words."""
    told = [f"{value:.1f}" for value in values if value is not None]
    if not told:
        return f"Unchecked: no datapoints were received for {rule.periods} periods"
    shown = f"{len(told)} out of the last {rule.periods} datapoints [{', '.join(told)}]"
    verb = "was" if len(told) == 1 else "were"
    negated = "" if state == "ALARM" else "not "
    return f"Threshold Crossed: {shown} {verb} {negated}{rule.comparison} ({rule.threshold:.1f})"


def mend(haste: float) -> None:
    """`haste`: seconds of an alarm's period that pass in one."""
    from ministack.core.responses import request_scope
    from ministack.services import cloudwatch, eventbridge

    def judge(alarm: Any) -> None:
        judge_alarm(cloudwatch, alarm, haste)

    def look() -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            for _, points in _all(cloudwatch._metrics):
                del points[:-_POINTS]
            scopes = {(account, region) for (account, region, _), _ in _all(cloudwatch._alarms)}
            for account, region in scopes:
                with request_scope(account, region):
                    cloudwatch._evaluate_all_alarms()

    record = cloudwatch._record_history

    def record_and_tell(name: str, old: str, new: str, reason: str, *args: Any, **more: Any) -> Any:
        told = record(name, old, new, reason, *args, **more)
        if old != new:
            entry = change_of(cloudwatch._alarms.get(name) or {}, name, old, new, reason)
            eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
        return told

    cloudwatch._evaluate_alarm = judge
    cloudwatch._record_history = record_and_tell
    threading.Thread(target=look, name="alarms", daemon=True).start()


def judge_alarm(cloudwatch: Any, alarm: Any, haste: float) -> None:
    """Look at one alarm, and where its state changes do all that CloudWatch does then."""
    if not alarm.get("Namespace") or not alarm.get("MetricName"):
        return  # a composite alarm, or metric math
    rule, now = rule_of(alarm, haste), time.time()  # noqa: TID251 - ministack's own process
    named = alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average"

    def statistic(points: Sequence[Any]) -> float | None:
        value = cloudwatch._stat_value(cloudwatch._calc_stats(points), named, points)
        return None if value is None else float(value)

    dimensions = {each["Name"]: each["Value"] for each in alarm.get("Dimensions") or []}
    key = (alarm["Namespace"], alarm["MetricName"], cloudwatch._dims_key(dimensions))
    points = [(float(each["Timestamp"]), each) for each in cloudwatch._metrics.get(key) or []]
    values = values_of(points, rule, now, statistic)
    old, new = alarm["StateValue"], state_of(rule, values)
    if new is None or new == old:
        return
    reason = reason_of(rule, values, new)
    alarm["StateValue"], alarm["StateReason"] = new, reason
    alarm["StateUpdatedTimestamp"] = int(now)
    cloudwatch._record_history(alarm["AlarmName"], old, new, reason)
    cloudwatch._dispatch_alarm_actions(alarm, old, new, reason)
    cloudwatch._evaluate_parent_alarms(alarm)


def change_of(
    alarm: Mapping[str, Any], name: str, old: str, new: str, reason: str
) -> dict[str, Any]:
    """The event, as "Alarm events and EventBridge" in the CloudWatch User Guide has it."""
    metric = {
        "id": "m1",
        "metricStat": {
            "metric": {
                "namespace": alarm.get("Namespace"),
                "name": alarm.get("MetricName"),
                "dimensions": {
                    each["Name"]: each["Value"] for each in alarm.get("Dimensions") or []
                },
            },
            "period": alarm.get("Period"),
            "stat": alarm.get("Statistic"),
        },
        "returnData": True,
    }
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")  # noqa: TID251 - as above
    detail = {
        "alarmName": name,
        "state": {"value": new, "reason": reason, "timestamp": stamp},
        "previousState": {"value": old},
        "configuration": {"description": alarm.get("AlarmDescription"), "metrics": [metric]},
    }
    return {
        "Source": "aws.cloudwatch",
        "DetailType": "CloudWatch Alarm State Change",
        "Detail": json.dumps(detail),
        "Resources": [alarm["AlarmArn"]] if alarm.get("AlarmArn") else [],
    }


def _all(scoped: Any) -> list[tuple[Any, Any]]:
    return list(scoped.all_items())
