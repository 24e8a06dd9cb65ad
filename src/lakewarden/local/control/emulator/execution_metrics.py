"""Stands in for the metrics of AWS/States and of AWS/Events.

Where ministack publishes that an execution changed its status, the status is counted, once. Units
and names: "Monitoring Step Functions metrics using CloudWatch", "Monitoring Amazon EventBridge".

Of executions that its own end ended, ministack says nothing to anybody; that is made good when its
state is loaded again.
"""

from collections.abc import Callable, Iterator
from typing import Any

COUNTED = {
    "RUNNING": "ExecutionsStarted",
    "SUCCEEDED": "ExecutionsSucceeded",
    "FAILED": "ExecutionsFailed",
    "TIMED_OUT": "ExecutionsTimedOut",
    "ABORTED": "ExecutionsAborted",
}


def mend() -> None:
    from ministack import app
    from ministack.core.responses import request_scope
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
    restore, load = stepfunctions._restore_state, app._load_persisted_state
    ended: list[tuple[str, str, str]] = []

    def restore_and_note(data: Any) -> None:
        ended.extend(running(data))
        restore(data)

    def load_and_tell() -> None:
        load()  # of all services: what is counted before would be overwritten
        for account, region, arn in ended:
            with request_scope(account, region):
                stepfunctions._emit_execution_status_event(stepfunctions._executions[arn])

    stepfunctions._restore_state, app._load_persisted_state = restore_and_note, load_and_tell


def running(saved: Any) -> Iterator[tuple[str, str, str]]:
    """Account, region and ARN of executions that were under way when the state was saved."""
    executions = (saved or {}).get("executions")
    for where, execution in executions.all_items() if executions else ():
        if execution.get("status") == "RUNNING" and not execution.get("sync"):
            yield where


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
