"""What people are told when an execution ends."""

import json
from typing import Any

import pytest

from lakewarden.batch.receive import FileMissing
from lakewarden.errors import TryAgain
from lakewarden.stepfunctions.containers import killed_of
from lakewarden.stepfunctions.notices import Event, error_of, failure, success
from lakewarden.stepfunctions.words import Killed, answer_to, mark_of, thrown_name, told

PAYLOAD = {"dataset": "dpc", "batch": "2025-04"}
RUN = {"outcome": "ok", "status": "published", "run": "r", "version": 7, "counts": {"in": 3}}
OURS = told(FileMissing("a.csv is not there", hint="Deliver it.")).model_dump()


def event(**told: Any) -> Event:
    return Event.model_validate(
        {"kind": "failure", "execution": "arn:x", "payload": PAYLOAD, **told}
    )


def text(message: str) -> Any:
    return json.loads(message)


def test_success_tells_version_counts_and_rows() -> None:
    exported = {"version": 7, "rows": {"marts.a": 2}}
    found = success(event(kind="success", run=RUN, exported=exported), "dpc-pipeline", "prod")
    assert found.subject == "dpc-pipeline: dpc 2025-04 is published"
    assert text(found.message) == {
        "format": 1,
        "pipeline": "dpc-pipeline",
        "env": "prod",
        "execution": "arn:x",
        "dataset": "dpc",
        "batch": "2025-04",
        "outcome": "published",
        "version": 7,
        "counts": {"in": 3},
        "exported": {"version": 7, "rows": {"marts.a": 2}},
    }


def test_a_refusal_tells_its_step_error_and_hint() -> None:
    found = failure(event(failed={"step": "ValidateManifest", "told": OURS}), "p", "dev")
    assert (found.error, found.cause) == (
        "FileMissing",
        "ValidateManifest: a.csv is not there (Deliver it.)",
    )
    told_ = text(found.message)
    assert (told_["outcome"], told_["step"], told_["error"]["hint"]) == (
        "failed",
        "ValidateManifest",
        "Deliver it.",
    )


def test_our_error_behind_a_name_of_step_functions_keeps_its_own() -> None:
    raised = {"Error": "TryAgain", "Cause": json.dumps(OURS)}
    found = failure(event(failed={"step": "RunDbtTransformations", "raised": raised}), "p", "dev")
    assert found.error == "FileMissing"


@pytest.mark.parametrize("step", ["ExportParquet", "RunDbtTransformations"])
def test_published_and_not_exported_is_told_as_that(step: str) -> None:
    """By the run's own answer, or by what the catalog says when that was lost."""
    known = {"run": RUN} if step == "ExportParquet" else {"rollback": {"version": 7}}
    found = failure(event(failed={"step": step, "told": OURS}, **known), "p", "dev")
    assert text(found.message)["outcome"] == "published, not exported"
    assert "goes on with the export" in text(found.message)["next"]
    assert found.cause.startswith("published, not exported (version 7)")


def test_words_of_others_do_not_travel() -> None:
    """A library's message may quote a cell."""
    for error in ("Runtime.HandlerError", "ValueError", "States.TaskFailed", "Lambda.Unknown"):
        raised = {"Error": error, "Cause": '{"errorMessage": "cannot cast ZQ00000001"}'}
        found = failure(event(failed={"step": "CopyRaw", "raised": raised}), "p", "dev")
        assert "ZQ" not in found.subject + found.message + found.error + found.cause


def test_what_ecs_says_of_a_task_that_never_began_is_told() -> None:
    raised = {"Error": "ECS.AmazonECSException", "Cause": "Capacity is unavailable\n"}
    found = failure(event(failed={"step": "ExportParquet", "raised": raised}), "p", "dev")
    assert "Capacity is unavailable" in found.cause


@pytest.mark.parametrize(
    ("killed", "name"),
    [
        (None, "HeartbeatTimeout"),
        (Killed(exit_code=137, reason="OutOfMemoryError: killed"), "RunnerOutOfMemory"),
        (Killed(exit_code=137), "RunnerKilled"),
        (Killed(exit_code=1), "RunnerEnded"),
        (Killed(exit_code=None, reason="CannotPullContainerError"), "RunnerEnded"),
    ],
)
def test_silence_is_explained_by_how_the_container_ended(killed: Killed | None, name: str) -> None:
    failed = event(
        failed={"step": "RunDbtTransformations", "raised": {"Error": "States.HeartbeatTimeout"}}
    ).failed
    assert error_of(failed, killed).name == name


def test_a_payload_that_nobody_checked_cannot_break_the_subject() -> None:
    for payload in ({"dataset": "x\ny" * 100, "batch": "日本"}, "text", None, 3, {"dataset": 1}):
        found = failure(event(payload=payload, failed={"step": "s", "told": OURS}), "p", "dev")
        assert found.subject.isascii() and found.subject.isprintable()
        assert len(found.subject) <= 100


def task(code: int | None, stopped: str, **more: Any) -> Any:
    return {"containers": [{"exitCode": code, **more}], "stoppedAt": stopped, "stopCode": "X"}


def test_the_newest_container_that_did_not_end_well_counts() -> None:
    found = killed_of([task(0, "3"), task(137, "2", reason="OutOfMemoryError"), task(1, "1")])
    assert found == Killed(exit_code=137, reason="OutOfMemoryError")
    assert killed_of([task(0, "1")]) is None
    stopped = task(137, "1")
    stopped["stopCode"] = "UserInitiated"
    assert killed_of([stopped]) is None


def test_errors_travel_by_class_and_what_is_worth_another_attempt_by_its_kind() -> None:
    class Away(TryAgain):
        """Something."""

    assert thrown_name(Away("x")) == "TryAgain"
    assert thrown_name(FileMissing("x")) == "FileMissing"
    assert thrown_name(ValueError("ZQ00000001")) == "Unexpected"
    assert "ZQ" not in told(ValueError("ZQ00000001")).model_dump_json()
    assert answer_to(Away("x")).outcome == "again"
    assert answer_to(FileMissing("x")).outcome == "refused"


def test_runs_of_an_execution_are_known_by_their_mark() -> None:
    assert mark_of("arn:a") != mark_of("arn:b")
    assert mark_of("arn:a") == mark_of("arn:a")
    assert len(mark_of("arn:a")) == 14
