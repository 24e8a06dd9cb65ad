"""Stands in for the metrics of AWS/States and of AWS/Events.

Where ministack publishes that an execution changed its status, the status is counted, once. Units
and names: "Monitoring Step Functions metrics using CloudWatch", "Monitoring Amazon EventBridge".
"""

from collections.abc import Callable
from typing import Any

COUNTED = {
    "RUNNING": "ExecutionsStarted",
    "SUCCEEDED": "ExecutionsSucceeded",
    "FAILED": "ExecutionsFailed",
    "TIMED_OUT": "ExecutionsTimedOut",
    "ABORTED": "ExecutionsAborted",
}


def mend() -> None:
    from ministack.services import cloudwatch, eventbridge, stepfunctions

    stepfunctions._emit_execution_status_event = counting(
        stepfunctions._emit_execution_status_event,
        cloudwatch.record_metric,
        stepfunctions._iso_to_epoch_ms,
    )
    invoke = eventbridge._invoke_target

    def invoke_counted(target: Any, event: Any, rule: Any, view: Any = None) -> Any:
        named = {"RuleName": rule.get("Name", "")}
        cloudwatch.record_metric("AWS/Events", "TriggeredRules", 1, "Count", named)
        return invoke(target, event, rule, view)

    eventbridge._invoke_target = invoke_counted


def counting(
    emit: Callable[[Any], None], record: Callable[..., None], milliseconds: Callable[[Any], Any]
) -> Callable[[Any], None]:
    """`emit`, and beside it the metrics of what it publishes."""

    def emit_counted(execution: Any) -> None:
        emit(execution)
        machine = {"StateMachineArn": execution["stateMachineArn"]}
        if name := COUNTED.get(execution["status"]):
            record("AWS/States", name, 1, "Count", machine)
        begun = milliseconds(execution.get("startDate"))
        ended = milliseconds(execution.get("stopDate"))
        if begun is not None and ended is not None:
            record("AWS/States", "ExecutionTime", ended - begun, "Milliseconds", machine)

    return emit_counted
