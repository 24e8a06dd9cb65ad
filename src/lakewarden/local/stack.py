"""The local stack of one project: up, down, status, logs.

It is a real versioned S3 (SeaweedFS) on the loopback, with keys of its own, whose data lie below
the project's `.lakewarden/`. It outlives the command that starts it.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lakewarden.aws.clients import LOCAL_ACCOUNT, Connection
from lakewarden.aws.retry import is_code
from lakewarden.errors import TryAgain, WrongUsage
from lakewarden.local import config as cloud_config
from lakewarden.local import health, ports, process, sockets, weed
from lakewarden.local.health import Part
from lakewarden.local.identity import Keys, keys
from lakewarden.local.layout import Layout, LocalFolderUnusable, write_private
from lakewarden.local.lock import locked
from lakewarden.local.overlay import HOST, SOCKETS, START_SECONDS, STOP_SECONDS
from lakewarden.local.ports import Ports
from lakewarden.local.process import StackProcess
from lakewarden.records.processes import is_running

LOCK_SECONDS = START_SECONDS + 2 * STOP_SECONDS


class LocalStackFailed(TryAgain):
    """The local stack ended, or did not answer in time."""


class WrongBucketName(WrongUsage):
    """The bucket's name breaks S3's rules."""


@dataclass(frozen=True)
class StackConfig:
    root: Path  # the project's folder
    bucket: str
    region: str


@dataclass(frozen=True)
class StackInfo:
    """A stack that answers."""

    connection: Connection
    bucket: str
    data: Path
    log: Path
    pid: int
    started: bool  # by this call; False when it was up already


@dataclass(frozen=True)
class StackStatus:
    """What each part said just now; `parts` is empty where the stack was never started."""

    parts: tuple[Part, ...]
    pid: int | None

    @property
    def up(self) -> bool:
        return bool(self.parts) and all(part.up for part in self.parts if part.wanted)


def up(config: StackConfig, *, tell: Callable[[str], None] = lambda _: None) -> StackInfo:
    """Start the stack if it is not running, and wait until the bucket answers and can be read.

    `tell` hears of progress. Raises LocalStackMissing (not installed), LocalStackFailed,
    LocalStackBusy, LocalFolderUnusable,
    WrongBucketName and NoFreePorts."""
    layout = layout_of(config)
    with locked(layout.lock, seconds=LOCK_SECONDS):
        connection, started, pid = start(config, layout, tell)
        if started or cloud_config.read(layout) is None:  # else the file tells of more already
            write_endpoint(layout, config, connection)
    return StackInfo(connection, config.bucket, layout.data, layout.log, pid, started)


def start(
    config: StackConfig, layout: Layout, tell: Callable[[str], None]
) -> tuple[Connection, bool, int]:
    """S3's part of `up`, for who holds the lock: how to reach it, whether it was started here,
    and its process."""
    program = weed.find()
    running, connection, started = _bring_up(config, layout, program, tell)
    tell(f"S3 answers at {connection.endpoint}")
    return connection, started, running.pid


def down(config: StackConfig) -> bool:
    """Stop the stack that `up` started; whether there was one. The data stay."""
    layout = Layout(config.root)
    if not layout.folder.exists():
        return False
    with locked(layout.lock, seconds=LOCK_SECONDS):
        return stop(layout)


def stop(layout: Layout) -> bool:
    """S3's part of `down`, for who holds the lock."""
    running = process.find(weed.daemon(layout))
    layout.endpoint.unlink(missing_ok=True)
    if running is None:
        return False
    process.end(weed.daemon(layout), running)
    chosen = ports.remembered(layout)
    if chosen is not None:
        ports.become_free(chosen)  # a process that is gone may hold them a moment longer
        sockets.remove(asdict(chosen).values())
    return True


def status(config: StackConfig) -> StackStatus:
    """Ask every part of the stack; changes nothing."""
    layout = Layout(config.root)
    chosen = ports.remembered(layout)
    if chosen is None or not layout.identities.exists():
        return StackStatus((), None)
    running = process.find(weed.daemon(layout))
    connection = _connection(config.region, chosen, keys(layout))
    parts = health.ask(chosen, connection, config.bucket)
    return StackStatus(tuple(parts), running.pid if running else None)


def logs(config: StackConfig, lines: int = 100) -> list[str]:
    """The last lines of the stack's log, oldest first."""
    try:
        with Layout(config.root).log.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=lines)]
    except FileNotFoundError:
        return []


def layout_of(config: StackConfig) -> Layout:
    layout = Layout(config.root)
    if not sockets.can_be_made():
        raise LocalFolderUnusable(
            f"SeaweedFS needs {SOCKETS} for its sockets, which cannot be written",
            hint=f"Make {SOCKETS} writable.",
        )
    try:
        layout.make()
    except OSError as error:
        raise LocalFolderUnusable(
            f"cannot write {layout.folder}: {error.strerror}",
            hint="Choose a project folder that you may write.",
        ) from error
    return layout


def _bring_up(
    config: StackConfig, layout: Layout, program: Path, tell: Callable[[str], None]
) -> tuple[StackProcess, Connection, bool]:
    """The process, how to reach it, and whether it was started here."""
    credentials = keys(layout)  # before SeaweedFS looks for them
    running = process.find(weed.daemon(layout))
    chosen = ports.remembered(layout)
    if running is not None and chosen is not None:
        connection = _connection(config.region, chosen, credentials)
        if _is_ready(config, layout, running, connection, chosen, program):
            return running, connection, False
    elif running is not None:  # nobody knows its ports any more
        process.end(weed.daemon(layout), running)
    for anew in (False, True):  # a port that was free a moment ago may be taken: then others
        tell("starting SeaweedFS")
        chosen = ports.choose(layout, anew=anew)
        connection = _connection(config.region, chosen, credentials)
        running = process.launch(
            weed.daemon(layout), weed.command(program, chosen), weed.environment(layout)
        )
        if running is not None and _is_ready(config, layout, running, connection, chosen, program):
            return running, connection, True
    raise _failed(layout, "it ended at once")


def _answers(
    config: StackConfig, layout: Layout, running: StackProcess, connection: Connection
) -> bool:
    """Wait until a signed request is answered and the bucket is there; False when the process
    has ended. Raises LocalStackFailed after START_SECONDS."""
    from botocore.exceptions import BotoCoreError, ClientError

    until = time.monotonic() + START_SECONDS
    while is_running(running.pid, running.started):
        try:
            health.make_bucket(connection, config.bucket)
        except (BotoCoreError, ClientError) as error:
            if is_code(error, "InvalidBucketName"):
                raise WrongBucketName(
                    f"{config.bucket!r} cannot be a bucket's name",
                    hint="Correct `bucket`: 3 to 63 of a-z, 0-9 and '-'.",
                ) from error
            if time.monotonic() > until:
                raise _failed(layout, f"no answer in {START_SECONDS:.0f} s: {error}") from error
            time.sleep(0.03)
        else:
            return True
    return False


def _is_ready(
    config: StackConfig,
    layout: Layout,
    running: StackProcess,
    connection: Connection,
    chosen: Ports,
    program: Path,
) -> bool:
    """Wait until S3 answers, its objects can be read and others written; False when the process
    has ended. Raises LocalStackFailed after START_SECONDS of each.

    The objects that lie on disk may be read up to five seconds after S3 answers. Where the master
    comes to know the volumes before it knows that it leads, which is seldom, it gives no place to
    anything for fifteen seconds (`IsWarmingUp` of SeaweedFS)."""

    def reads() -> bool:
        stored = next(layout.data.glob("*.dat"), None) is not None
        return not stored or health.knows_volumes(
            chosen, lambda: weed.known_volumes(program, layout, chosen)
        )

    def writes() -> bool:
        return health.takes_objects(connection, config.bucket)

    return (
        _answers(config, layout, running, connection)
        and _comes(layout, running, reads, "its volumes cannot be read")
        and _comes(layout, running, writes, "it takes no objects")
    )


def _comes(layout: Layout, running: StackProcess, ready: Callable[[], bool], missing: str) -> bool:
    until = time.monotonic() + START_SECONDS
    while is_running(running.pid, running.started):
        if ready():
            return True
        if time.monotonic() > until:
            raise _failed(layout, f"{missing} after {START_SECONDS:.0f} s")
        time.sleep(0.03)
    return False


def _failed(layout: Layout, why: str) -> LocalStackFailed:
    return LocalStackFailed(
        f"the local stack did not come up: {why}",
        hint=f"Read its log ({layout.log}); `lakewarden local down`, then try again.",
    )


def _connection(region: str, chosen: Ports, credentials: Keys) -> Connection:
    return Connection(
        account=LOCAL_ACCOUNT,
        region=region,
        endpoint=f"http://{HOST}:{chosen.s3}",
        access_key=credentials.access_key,
        secret_key=credentials.secret_key,
    )


def connect(layout: Layout) -> Connection | None:
    """How to reach the stack as it was last started; None where it never was."""
    chosen = ports.remembered(layout)
    beside, told = ports.remembered_cloud(layout), cloud_config.read(layout)
    if chosen is None or told is None or beside is None:
        return None
    connection = _connection(told.region, chosen, keys(layout))
    return replace(connection, control=f"http://{HOST}:{beside.control}")


def write_endpoint(
    layout: Layout, config: StackConfig, connection: Connection, *, nessie: str | None = None
) -> None:
    """What the settings read to reach this stack."""
    beside = {"control": connection.control, "nessie": nessie}
    content = {
        "format": 1,
        "endpoint": connection.endpoint,
        "region": config.region,
        "bucket": config.bucket,
        "access_key": connection.access_key,
        "secret_key": connection.secret_key,
        **{name: where for name, where in beside.items() if where},
    }
    write_private(layout.endpoint, content)
