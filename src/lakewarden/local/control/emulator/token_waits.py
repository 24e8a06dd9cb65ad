"""Stands in for what ends a state's wait for a token before its task has answered.

ministack notes each heartbeat and never misses one; here the wait is failed with
States.HeartbeatTimeout when none came for HeartbeatSeconds, counted from the state's beginning.
And it lets an execution that was stopped wait on; here its tokens are worth nothing from then on,
so that the task hears of it with its next heartbeat.
"""

import contextvars
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

_LOOK_SECONDS = 0.2


def mend() -> None:
    from ministack.services import stepfunctions

    waits = Waits(stepfunctions._task_tokens)
    stepfunctions._execute_task = waits.noting(stepfunctions._execute_task)
    stepfunctions._invoke_with_callback = waits.watching(stepfunctions._invoke_with_callback)
    stepfunctions._stop_execution = waits.stopping(stepfunctions._stop_execution)
    stepfunctions._fail_execution = unless_over(stepfunctions._fail_execution)


class Waits:
    """Which execution each token is of, while its state waits."""

    def __init__(self, tokens: Any) -> None:
        self._tokens = tokens  # what ministack keeps of each wait
        self._executions: dict[str, Mapping[str, Any]] = {}
        self._current: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("current")

    def noting(self, execute: Callable[..., Any]) -> Callable[..., Any]:
        """`execute`, which runs one state of an execution, and a note of the execution."""

        def execute_noted(state: Any, given: Any, execution: Any, context: Any) -> Any:
            self._current.set(execution)
            return execute(state, given, execution, context)

        return execute_noted

    def watching(self, invoke: Callable[..., Any]) -> Callable[..., Any]:
        """`invoke`, which returns when the wait is over, and beside it a look at heartbeats."""

        def invoke_watched(resource: str, given: Any, token: str, state: Mapping[str, Any]) -> Any:
            seconds, over = state.get("HeartbeatSeconds"), threading.Event()
            if isinstance(seconds, int | float) and not isinstance(seconds, bool):
                within = contextvars.copy_context()  # whose account and region the tokens are of
                words = (self._tokens, token, seconds, over)
                threading.Thread(target=within.run, args=(_watch, *words), daemon=True).start()
            self._executions[token] = self._current.get({})
            try:
                return invoke(resource, given, token, state)
            finally:
                over.set()
                del self._executions[token]

        return invoke_watched

    def stopping(self, stop: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`stop`, and the end of what the stopped execution waits for."""

        def stop_with_waits(data: Mapping[str, Any]) -> Any:
            answer = stop(data)
            for token, execution in list(self._executions.items()):
                over = execution.get("status", "RUNNING") != "RUNNING"
                if over and (wait := self._tokens.get(token)) is not None:
                    _fail(wait, "States.Timeout", "The execution was stopped.")
            return answer

        return stop_with_waits


def unless_over(fail: Callable[..., None]) -> Callable[..., None]:
    """`fail`, of executions that nothing has ended before."""

    def fail_running(execution: Any, error: str, cause: str) -> None:
        if execution["status"] == "RUNNING":
            fail(execution, error, cause)

    return fail_running


def _watch(tokens: Any, token: str, seconds: float, over: threading.Event) -> None:
    since, last = time.monotonic(), None
    while not over.wait(_LOOK_SECONDS):
        wait = tokens.get(token)
        if wait is None:  # not waiting yet
            continue
        if wait["heartbeat"] != last:
            since, last = time.monotonic(), wait["heartbeat"]
        if time.monotonic() - since > seconds and not wait["event"].is_set():
            _fail(wait, "States.HeartbeatTimeout", f"No heartbeat within {seconds:g} seconds.")
            return


def _fail(wait: Any, error: str, cause: str) -> None:
    wait["error"] = {"Error": error, "Cause": cause}
    wait["event"].set()
