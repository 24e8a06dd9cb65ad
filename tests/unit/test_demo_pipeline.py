"""What the demonstration reads of an execution, and of what the topic was told."""

import json

from lakewarden.cli.demo_pipeline import entered, notice_of


def test_states_are_told_in_which_something_is_done() -> None:
    kinds = {
        "PassStateEntered": "Begin",
        "TaskStateEntered": "CopyRaw",
        "ChoiceStateEntered": "IsRawCopied",
        "FailStateEntered": "Failed",
    }
    events = [{"type": "ExecutionStarted"}] + [
        {"type": kind, "stateEnteredEventDetails": {"name": name}} for kind, name in kinds.items()
    ]
    assert entered(events) == ["CopyRaw", "Failed"]


def test_a_notice_of_an_execution_is_one_and_an_alarm_is_none() -> None:
    message = {"execution": "arn:e", "version": None, "error": {"code": "c", "message": "m"}}
    found = notice_of(json.dumps({"Subject": "s", "Message": json.dumps(message)}))
    assert found is not None
    assert (found.subject, found.told.execution) == ("s", "arn:e")
    assert found.told.error is not None
    assert found.told.error.code == "c"
    alarm = json.dumps({"AlarmName": "a", "NewStateValue": "ALARM"})
    assert notice_of(json.dumps({"Subject": "s", "Message": alarm})) is None
    assert notice_of("no JSON") is None
