"""The state machine and the other definitions of the pipeline, as data."""

import json
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import pytest

from lakewarden.aws.definitions import (
    KEYS,
    Machine,
    definition,
    filled,
    functions,
    names,
    runner_task,
    start_rules,
    state_machine,
)

MACHINE = Machine(
    validate_manifest="arn:validate",
    copy_raw="arn:copy",
    notify="arn:notify",
    cluster="dpc-dev",
    runner="dpc-dbt-runner",
    runner_container="dbt-runner",
    subnets=("subnet-1", "subnet-2"),
)
STATES: Mapping[str, Any] = state_machine(MACHINE)["States"]
TASKS = {name: state for name, state in STATES.items() if state["Type"] == "Task"}


def following(state: Mapping[str, Any]) -> Iterator[str]:
    if "Next" in state:
        yield state["Next"]
    if "Default" in state:
        yield state["Default"]
    for each in (*state.get("Choices", ()), *state.get("Catch", ())):
        yield each["Next"]


def reached(start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += following(STATES[name])
    return found


def texts(document: object) -> Iterator[str]:
    match document:
        case str():
            yield document
        case dict():
            for value in document.values():
                yield from texts(value)
        case list():
            for value in document:
                yield from texts(value)


def test_every_next_exists_and_every_state_is_reached() -> None:
    assert reached(state_machine(MACHINE)["StartAt"]) == set(STATES)


def test_the_states_of_the_runbook_are_there() -> None:
    assert {
        "ValidateManifest",
        "CopyRaw",
        "RunDbtTransformations",
        "ExportParquet",
        "NotifySuccess",
        "RollbackStage",
        "NotifyFailure",
    } == set(TASKS)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_catches_everything_and_both_names_of_silence(name: str) -> None:
    caught = [set(catch["ErrorEquals"]) for catch in TASKS[name]["Catch"]]
    assert {"States.HeartbeatTimeout", "States.Timeout"} in caught
    assert caught[-1] == {"States.ALL"}
    assert TASKS[name]["TimeoutSeconds"] > 0


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"RollbackStage", "NotifyFailure"}))
def test_every_failure_is_put_away_told_and_fails_the_execution(name: str) -> None:
    for catch in TASKS[name]["Catch"]:
        assert catch["Next"] == "RollbackStage"
        assert catch["Assign"]["failed"]["step"] == name
    after = reached("RollbackStage")
    assert after == {"RollbackStage", "NotifyFailure", "Failed"}
    assert STATES["Failed"]["Type"] == "Fail"


@pytest.mark.parametrize("name", ["RunDbtTransformations", "ExportParquet", "RollbackStage"])
def test_the_runner_is_waited_for_by_token_and_heartbeat(name: str) -> None:
    task = TASKS[name]
    assert task["Resource"] == "arn:aws:states:::ecs:runTask.waitForTaskToken"
    assert task["HeartbeatSeconds"] == MACHINE.heartbeat_seconds
    assert task["TimeoutSeconds"] == MACHINE.timeout_seconds
    (container,) = task["Arguments"]["Overrides"]["ContainerOverrides"]
    assert {each["Name"] for each in container["Environment"]} == {
        "LAKEWARDEN_TASK",
        "LAKEWARDEN_TASK_TOKEN",
    }


def test_refusals_are_answers_that_are_chosen_on() -> None:
    for name in ("IsManifestValid", "IsRawCopied", "IsPublished", "IsExported"):
        assert STATES[name]["Choices"][0]["Condition"] == "{% $states.input.outcome = 'ok' %}"
        assert STATES[name]["Default"] == "RollbackStage"
        assert STATES[name]["Assign"]["failed"]["told"] == "{% $states.input.error %}"


def test_every_variable_that_is_read_was_assigned_at_the_beginning() -> None:
    """AWS ends an execution that reads one which was not."""
    read = {
        name
        for text in texts(STATES)
        if text.startswith("{%")
        for name in re.findall(r"\$([a-z_]+)\b(?!\()", text)
    }
    assert read - {"states"} == set(STATES["Begin"]["Assign"])


def test_nothing_is_left_to_be_filled_in() -> None:
    assert [text for text in texts(state_machine(MACHINE)) if "${" in text] == []


def test_what_is_not_told_is_missed() -> None:
    with pytest.raises(KeyError):
        filled({"a": ["${Nobody}"]}, {"Somebody": 1})


def test_a_place_alone_becomes_the_value_itself() -> None:
    assert filled({"a": "${N}", "b": "n=${N}"}, {"N": 3}) == {"a": 3, "b": "n=3"}


def test_every_function_can_be_imported_and_has_a_name() -> None:
    for function in functions():
        module, _, name = function.handler.rpartition(".")
        assert callable(getattr(import_module(module), name))
        assert function.key in KEYS
        assert function.timeout <= 900  # Lambda's limit
    assert {f.key for f in functions()} == {
        "validate_manifest",
        "copy_raw",
        "notify",
        "check_deliveries",
    }


def test_the_runner_logs_where_the_runbook_looks() -> None:
    found = runner_task(names("dpc", "prod"), "image@sha256:0", "eu-central-1", {"A": "b"})
    (container,) = found["containerDefinitions"]
    assert found["family"] == "dpc-dbt-runner"
    assert container["logConfiguration"]["options"]["awslogs-group"] == "/aws/ecs/dpc-dbt-runner"
    assert container["environment"] == [{"name": "A", "value": "b"}]
    assert container["command"] == ["python", "-m", "lakewarden.stepfunctions.task"]


def test_rules_start_by_schedule_and_by_arrival() -> None:
    rules = start_rules(names("dpc", "prod"), "bucket", ("raw/",))
    assert [rule["name"] for rule in rules] == [
        "dpc-pipeline-daily",
        "dpc-pipeline-arrival",
        "dpc-pipeline-late",
    ]
    assert {rule["target"] for rule in rules} == {"dpc-check-deliveries"}
    assert rules[1]["pattern"]["detail"]["object"]["key"] == [{"prefix": "raw/"}]


def test_the_definitions_are_json_of_a_known_format() -> None:
    for name in ("names.json", "functions.json", "rules.json"):
        assert json.loads(definition(name))["format"] == 1
