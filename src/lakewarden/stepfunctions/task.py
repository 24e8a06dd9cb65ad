"""The runner: what the ECS task runs, `python -m lakewarden.stepfunctions.task`.

LAKEWARDEN_TASK says what to do (words.Order), LAKEWARDEN_TASK_TOKEN whom to answer. It is the run
that the command line gives, with a pulse, and with one question more before it publishes: whether
anybody still waits. Without a token it does the same and answers nobody.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import structlog
from pydantic import BaseModel, ValidationError

from lakewarden.batch.delivery.keys import BatchKeyInvalid
from lakewarden.errors import LakewardenError, Refused, WrongUsage
from lakewarden.stepfunctions.containers import stop_others, why_ended
from lakewarden.stepfunctions.line import TokenLine
from lakewarden.stepfunctions.pulse import Progress, Pulse, TokenLost
from lakewarden.stepfunctions.words import (
    Answer,
    ExportedTables,
    Order,
    PutAway,
    Ran,
    mark_of,
    told,
)
from lakewarden.wiring import DatasetUnknown, Project, open_project, task_settings

if TYPE_CHECKING:  # what is heavy is imported by who works, while the pulse beats already
    from lakewarden.batch.conductor import Outcome, StageDone

_log = structlog.get_logger(__name__)

TERMINATED = 128 + signal.SIGTERM
_KEPT_LINES = 400  # of dbt's log, for who tails the task's


class OrderInvalid(WrongUsage):
    """LAKEWARDEN_TASK does not say what to do."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: everything is put in order as for Ctrl-C."""


class Stopped(LakewardenError):
    """The task was stopped from outside."""

    exit_code = TERMINATED


def main() -> NoReturn:
    """Do it, answer, and leave with the exit code that the command line would leave with."""
    signal.signal(signal.SIGTERM, _terminate)
    _log_as_json()
    code = run()
    if code != TERMINATED:
        sys.exit(code)
    sys.stdout.flush()
    os._exit(code)  # at once: threads may wait for a store that is silent


def run() -> int:
    """The exit code; every error is told on standard output, and to who waits."""
    line: TokenLine | None = None
    try:
        settings = task_settings()
        progress = Progress(_cpu_seconds, time.monotonic)
        project = replace(open_project(), moved=progress.moved)
        if settings.token is not None:
            line = TokenLine(project.client("stepfunctions"), settings.token)
        order = _order(settings.order)  # from here on, what is wrong is told to who waits
        answer = _work(project, order, progress, line)
        if line is not None:
            line.succeed(answer)
        _log.info("done", **answer.model_dump(mode="json"))
        return 0
    except Refused as error:
        return _refused(error, line)
    except BaseException as error:
        return _failed(_named(error), line)


def _work(project: Project, order: Order, progress: Progress, line: TokenLine | None) -> BaseModel:
    actions = {"run": _run, "export": _export, "rollback": _roll_back}
    if line is None:
        return actions[order.action](project, order, progress, _nothing)
    with Pulse(line, progress, order.heartbeat_seconds) as pulse:
        answer = actions[order.action](project, order, progress, pulse.check)
        pulse.still_wanted()
        return answer


def _nothing() -> None:
    """Nobody waits, and nobody has to be asked."""


def _run(
    project: Project, order: Order, progress: Progress, check: Callable[[], None]
) -> BaseModel:
    from lakewarden.batch.model import Received

    runs: list[str] = []

    def tell(done: "StageDone") -> None:
        progress.moved()
        _tell_warnings(done)
        if isinstance(done.result, Received):
            runs.append(done.result.run.id)
        check()

    try:
        outcome = project.run(
            order.dataset,
            order.batch,
            tell=tell,
            may_publish=check,
            mark=mark_of(order.execution),
        )
    finally:
        for run_id in runs:
            _tell_dbt(project, order.dataset, run_id)
    return _ran(outcome)


def _ran(outcome: "Outcome") -> Ran:
    publication, counts = outcome.publication, outcome.counts
    return Ran(
        status=outcome.status,
        run=outcome.run.id,
        version=publication.version if publication else None,
        counts=dict(publication.contribution.counts)
        if publication and not counts
        else _counts(outcome),
    )


def _counts(outcome: "Outcome") -> dict[str, int]:
    counts = outcome.counts
    if counts is None:
        return {}
    return {"in": counts.records_in, "loaded": counts.loaded, "quarantined": counts.quarantined}


def _export(
    project: Project, order: Order, progress: Progress, check: Callable[[], None]
) -> BaseModel:
    del order, progress, check
    done = project.export()
    return ExportedTables(
        version=done.export.version,
        manifest=f"s3://{project.env.bucket}/{project.settings.export.prefix}_manifest.json",
        rows={name: table.rows for name, table in done.export.tables.items()},
        changed=done.changed or (),
    )


def _roll_back(
    project: Project, order: Order, progress: Progress, check: Callable[[], None]
) -> BaseModel:
    """First whoever of this execution still runs is stopped; what it can do meanwhile, the fence
    decides. Of what is no batch nothing was ever run."""
    del progress, check
    try:
        project.key(order.dataset, order.batch)
    except (DatasetUnknown, BatchKeyInvalid):
        return PutAway(version=None, fenced=())
    ecs, cluster, family = project.client("ecs"), project.names.cluster, project.names.runner
    stop_others(ecs, cluster, family, order.execution)
    done = project.roll_back(order.dataset, order.batch, mark_of(order.execution))
    return PutAway(
        version=done.publication.version if done.publication else None,
        fenced=done.fenced,
        killed=why_ended(ecs, cluster, family, order.execution),
    )


def _order(text: str | None) -> Order:
    try:
        return Order.model_validate_json(text or "")
    except ValidationError as error:
        wrong = sorted({".".join(map(str, one["loc"])) for one in error.errors()})
        raise OrderInvalid(
            f"LAKEWARDEN_TASK does not say what to do: {', '.join(wrong) or 'no JSON'}",
            hint='It is like {"action": "run", "dataset": "dpc", "batch": "2025-04",'
            ' "execution": "…"}.',
        ) from None


def _named(error: BaseException) -> BaseException:
    """What DuckDB makes of a signal that comes while it is busy is a signal all the same."""
    cause = error.__cause__ if isinstance(error, RuntimeError) else None
    if isinstance(error, KeyboardInterrupt) or isinstance(cause, KeyboardInterrupt):
        return Stopped("stopped by SIGTERM", hint="Start it again with the same payload.")
    return error


def _refused(error: Refused, line: TokenLine | None) -> int:
    _tell_error(error)
    answer = Answer(outcome="refused", error=told(error))
    return error.exit_code if _say(lambda: line.succeed(answer) if line else None) else 1


def _failed(error: BaseException, line: TokenLine | None) -> int:
    _tell_error(error)
    if line is not None and not isinstance(error, TokenLost):
        _say(lambda: line.fail(error))
    return error.exit_code if isinstance(error, LakewardenError) else 1


def _say(say: Callable[[], None]) -> bool:
    """Whether it was heard. Where not, the heartbeat that does not come tells."""
    try:
        say()
    except Exception as failure:
        _log.warning("nobody could be told", why=type(failure).__name__)
        return False
    return True


def _tell_error(error: BaseException) -> None:
    """Of an error that is not ours the places, and not its message: it may quote a value."""
    _log.error("failed", **told(error).model_dump())
    if not isinstance(error, LakewardenError):
        for frame in traceback.extract_tb(error.__traceback__):
            _log.error("at", file=frame.filename, line=frame.lineno, function=frame.name)


def _tell_warnings(done: "StageDone") -> None:
    from lakewarden.batch.model import Audited

    if isinstance(done.result, Audited):
        for test in done.result.warnings:
            _log.warning("dbt test", test=test.name, status=test.status, failures=test.failures)


def _tell_dbt(project: Project, dataset: str, run_id: str) -> None:
    """dbt's own log, as far as it is kept with the receipts (without values), and where that is."""
    prefix = project.receipts_prefix(dataset, run_id) + "dbt/"
    try:
        kept = {one.key.removeprefix(prefix): one for one in project.objects.list(prefix)}
        if "dbt.log" in kept:
            text = project.objects.get(kept["dbt.log"].key).body.decode("utf-8", "replace")
            lines = [line for line in text.splitlines() if "[debug]" not in line]
            print("\n".join(lines[-_KEPT_LINES:]), flush=True)  # noqa: T201 - the task's log
        for name in kept:
            _log.info("dbt kept", object=f"s3://{project.env.bucket}/{prefix}{name}")
    except LakewardenError as error:
        _log.warning("dbt's log could not be shown", why=error.message)


def _cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _log_as_json() -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=json.dumps),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


if __name__ == "__main__":
    main()
