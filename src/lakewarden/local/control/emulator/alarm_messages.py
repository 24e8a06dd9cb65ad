"""Stands in for what CloudWatch tells a topic when an alarm changes.

ministack's message lacks the alarm's ARN, its actions and some fields of the trigger, and writes
others in another form. The form here is that of the examples in "Notifying users on alarm
changes", CloudWatch User Guide, and of what AWS sends.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

_ACTIONS = {"ALARM": "AlarmActions", "OK": "OKActions"}
_SUBJECT = 100  # characters: SNS, Publish


def mend() -> None:
    from ministack.core.responses import get_account_id, get_region, new_uuid
    from ministack.services import cloudwatch, sns

    def dispatch(alarm: Mapping[str, Any], old: str, new: str, reason: str) -> None:
        if not alarm.get("ActionsEnabled", True):
            return
        told = alarm.get(_ACTIONS.get(new, "InsufficientDataActions")) or []
        region, now = get_region(), datetime.now(UTC)  # noqa: TID251 - ministack's own process
        message = message_of(alarm, get_account_id(), name_of(region), old, new, reason, now)
        for topic in filter(cloudwatch._is_sns_action_arn, told):
            sns._fanout(topic, new_uuid(), json.dumps(message), subject_of(alarm, region, new))

    cloudwatch._dispatch_alarm_actions = dispatch


def subject_of(alarm: Mapping[str, Any], region: str, new: str) -> str:
    return f'{new}: "{alarm.get("AlarmName")}" in {name_of(region)}'[:_SUBJECT]


def message_of(
    alarm: Mapping[str, Any],
    account: str,
    region: str,
    old: str,
    new: str,
    reason: str,
    now: datetime,
) -> dict[str, object]:
    """`region`: its name, not its code."""
    changed = alarm.get("AlarmConfigurationUpdatedTimestamp")
    return {
        "AlarmName": alarm.get("AlarmName"),
        "AlarmDescription": alarm.get("AlarmDescription"),
        "AWSAccountId": account,
        "AlarmConfigurationUpdatedTimestamp": (
            stamp(datetime.fromtimestamp(changed, UTC)) if changed else None
        ),
        "NewStateValue": new,
        "NewStateReason": reason,
        "StateChangeTime": stamp(now),
        "Region": region,
        "AlarmArn": alarm.get("AlarmArn"),
        "OldStateValue": old,
        "OKActions": list(alarm.get("OKActions") or []),
        "AlarmActions": list(alarm.get("AlarmActions") or []),
        "InsufficientDataActions": list(alarm.get("InsufficientDataActions") or []),
        "Trigger": _trigger(alarm),
    }


def _trigger(alarm: Mapping[str, Any]) -> dict[str, object]:
    periods = alarm.get("EvaluationPeriods", 1)
    return {
        "MetricName": alarm.get("MetricName"),
        "Namespace": alarm.get("Namespace"),
        "StatisticType": "Statistic",
        "Statistic": str(alarm.get("Statistic") or "").upper(),
        "Unit": alarm.get("Unit") or None,
        "Dimensions": [
            {"value": each["Value"], "name": each["Name"]} for each in alarm.get("Dimensions") or []
        ],
        "Period": alarm.get("Period", 60),
        "EvaluationPeriods": periods,
        "DatapointsToAlarm": alarm.get("DatapointsToAlarm") or periods,
        "ComparisonOperator": alarm.get("ComparisonOperator"),
        "Threshold": alarm.get("Threshold"),
        "TreatMissingData": alarm.get("TreatMissingData") or "missing",
        "EvaluateLowSampleCountPercentile": alarm.get("EvaluateLowSampleCountPercentile") or "",
    }


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}+0000"


@cache
def name_of(region: str) -> str:
    """What AWS calls a region in words; its code where botocore knows none."""
    from botocore.loaders import Loader

    for partition in Loader().load_data("endpoints")["partitions"]:
        if region in partition["regions"]:
            return str(partition["regions"][region]["description"])
    return region
