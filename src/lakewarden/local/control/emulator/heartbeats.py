"""Stands in for the time-out of a heartbeat: HeartbeatSeconds of a state that waits for a token.

ministack notes each heartbeat and never misses one. Here the wait is failed with
States.HeartbeatTimeout when none came for that long, counted from the state's beginning.
"""

import contextvars
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

_LOOK_SECONDS = 0.2


def mend() -> None:
    from ministack.services import stepfunctions

    stepfunctions._invoke_with_callback = watching(
        stepfunctions._invoke_with_callback, stepfunctions._task_tokens
    )


def watching(invoke: Callable[..., Any], tokens: Any) -> Callable[..., Any]:
    """`invoke`, which returns when the wait is over, and beside it a look at the heartbeats."""

    def invoke_watched(resource: str, given: Any, token: str, state: Mapping[str, Any]) -> Any:
        seconds = state.get("HeartbeatSeconds")
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            return invoke(resource, given, token, state)
        over = threading.Event()
        within = contextvars.copy_context()  # whose account and region the tokens are of
        watch = threading.Thread(
            target=within.run, args=(_watch, tokens, token, seconds, over), daemon=True
        )
        watch.start()
        try:
            return invoke(resource, given, token, state)
        finally:
            over.set()

    return invoke_watched


def _watch(tokens: Any, token: str, seconds: float, over: threading.Event) -> None:
    since, last = time.monotonic(), None
    while not over.wait(_LOOK_SECONDS):
        wait = tokens.get(token)
        if wait is None:  # not waiting yet
            continue
        if wait["heartbeat"] != last:
            since, last = time.monotonic(), wait["heartbeat"]
        if time.monotonic() - since > seconds and not wait["event"].is_set():
            said = f"No heartbeat within {seconds:g} seconds."
            wait["error"] = {"Error": "States.HeartbeatTimeout", "Cause": said}
            wait["event"].set()
            return
