"""The whole stack of one project: S3, and beside it the control plane, ECS, Nessie, Dagster.

`up` starts what is missing of it, as much as possible at once, and waits until each part answers;
`status` asks each; `down` ends everything, whatever state it is in. S3 alone is `stack`.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from lakewarden.aws.clients import Connection
from lakewarden.aws.definitions import names
from lakewarden.local import agent, config, nessie, ports, process, stack, weed
from lakewarden.local.config import NessieStore
from lakewarden.local.containers import images, records, sessions
from lakewarden.local.containers.images import Image
from lakewarden.local.containers.processes import end_left
from lakewarden.local.control import installed, ministack
from lakewarden.local.health import (
    CONTAINERS,
    CONTROL,
    Part,
    ask_containers,
    ask_control,
    ask_http,
)
from lakewarden.local.identity import keys
from lakewarden.local.layout import Layout
from lakewarden.local.lock import locked
from lakewarden.local.overlay import HOST
from lakewarden.local.ports import CloudPorts
from lakewarden.local.process import Daemon
from lakewarden.local.provision import NESSIE_IMAGE, Made, Pipeline, Provision, dagster_image
from lakewarden.local.stack import LocalStackFailed, StackConfig, StackStatus

_ANSWER_SECONDS = 30.0  # the control plane and the agent; usually about one
_SERVICE_SECONDS = 90.0  # Nessie and Dagster; usually about ten
_CONTROL_STOP_SECONDS = 20.0
_AGENT_STOP_SECONDS = 45.0  # its containers may take thirty

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Machine:
    """What of this machine is used, and of its user's environment."""

    cache: Path  # the user's, for all projects
    environment: dict[str, str] = field(repr=False)  # for pip or uv, where they are needed
    java_home: Path | None = None
    dagster: Callable[[int], Image] | None = None  # what runs it at a port; raises where it is not
    images: Mapping[str, Image] = field(default_factory=dict)  # on the allow-list beside ours


@dataclass(frozen=True)
class CloudInfo:
    """A stack that answers."""

    connection: Connection  # with `control`
    nessie: str | None  # where the catalog's server answers
    dagster: str | None
    made: Made
    seconds: Mapping[str, float]  # until each part answered


@dataclass(frozen=True)
class _Programs:
    """Where the programs are that had to be found, or fetched."""

    python: Path  # ministack's
    java: nessie.Java | None
    jar: Path | None


def up(
    asked: StackConfig,
    wanted: config.CloudConfig,
    machine: Machine,
    *,
    pipeline: Callable[[Connection], Pipeline] | None = None,
    tell: Tell = lambda _: None,
) -> CloudInfo:
    """Start what does not run, and wait until all of it answers: what is wanted, and what ran
    before. `pipeline` is asked for the state machine and its functions, once it is known where S3
    and the control plane are.

    Raises what `stack.up` and `Machine.dagster` raise, ControlPlaneNotInstalled, JavaMissing and
    NessieMissing."""
    begun = time.monotonic()
    seconds: dict[str, float] = {}

    def answered(part: str) -> None:
        seconds[part] = time.monotonic() - begun
        tell(f"{part} answers after {seconds[part]:.1f} s")

    layout = stack.layout_of(asked)
    with locked(layout.lock, seconds=stack.LOCK_SECONDS + _SERVICE_SECONDS):
        # Both only now: another command may have had the lock until a moment ago.
        layout.make_cloud()
        wanted = config.beside(wanted, config.read(layout))
        if wanted.dagster and machine.dagster:
            machine.dagster(1)  # what is missing is told before anything starts
        if wanted.nessie:
            wanted = replace(wanted, nessie_store=config.store_of(layout, wanted.nessie_store))
        with ThreadPoolExecutor(max_workers=2) as pool:
            tell("starting S3 and looking for programs")
            found = pool.submit(_find, wanted, machine)
            s3 = pool.submit(stack.start, asked, layout, tell)
            connection = _first(s3, found)
            answered("S3")
            programs = found.result()
        chosen = _ports(layout)
        connection = replace(connection, control=f"http://{HOST}:{chosen.control}")
        config.write(layout, wanted)
        if wanted.nessie_store is not None:  # only now: it is going to start
            config.keep_store(layout, wanted.nessie_store)
        ours = dict(_images(wanted, connection, machine, programs, chosen, layout))
        images.write(layout.images, {**ours, **machine.images})
        tell("starting the control plane and the stand-in for ECS")
        _start(agent.daemon(layout), agent.command(layout), agent.environment(layout))
        _start(
            ministack.daemon(layout),
            ministack.command(programs.python, layout),
            ministack.environment(layout, keys(layout), port=chosen.control, region=asked.region),
        )
        _wait(CONTAINERS, lambda: ask_containers(layout.containers_socket), agent.daemon(layout))
        answered(CONTAINERS)
        _wait(CONTROL, lambda: ask_control(connection), ministack.daemon(layout))
        answered(CONTROL)
        tell("making what the definitions describe")
        provision = Provision(wanted, connection, chosen.nessie, chosen.dagster)
        made = provision.make(pipeline(connection) if pipeline else None)
        answered("provisioning")
        told = CloudInfo(
            connection=connection,
            nessie=nessie.api(chosen.nessie) if wanted.nessie else None,
            dagster=f"http://{HOST}:{chosen.dagster}" if wanted.dagster else None,
            made=made,
            seconds=seconds,
        )
        stack.write_endpoint(layout, asked, connection, nessie=told.nessie)
        for part in _services(layout, wanted, chosen, connection, provision):
            tell(f"waiting for {part[0]}")
            _wait(part[0], part[1], agent.daemon(layout), seconds=_SERVICE_SECONDS)
            answered(part[0])
    return told


def down(asked: StackConfig) -> bool:
    """End everything of this project's stack; whether there was anything. The data stay. S3 comes
    last: the others may still write to it."""
    layout = Layout(asked.root)
    if not layout.folder.exists():
        return False
    with locked(layout.lock, seconds=stack.LOCK_SECONDS + _SERVICE_SECONDS):
        ended = [_end_cloud(layout)]
        layout.cloud.unlink(missing_ok=True)
        ended.append(stack.stop(layout))
        layout.remove_sockets()
        return any(ended)


def status(asked: StackConfig) -> StackStatus:
    """Ask every part; changes nothing."""
    layout = Layout(asked.root)
    found = stack.status(asked)
    wanted, chosen = config.read(layout), ports.remembered_cloud(layout)
    if not found.parts:
        return found
    connection = stack.connect(layout)
    if wanted is None or chosen is None or connection is None:
        missing = (CONTROL, CONTAINERS, "Nessie", "Dagster")
        return replace(found, parts=(*found.parts, *map(_not_here, missing)))
    provision = Provision(wanted, connection, chosen.nessie, chosen.dagster)
    beside = [ask_control(connection), ask_containers(layout.containers_socket)]
    asks = dict(_services(layout, wanted, chosen, connection, provision))
    for name in ("Nessie", "Dagster"):
        beside.append(asks[name]() if name in asks else _not_here(name))
    return replace(found, parts=(*found.parts, *beside))


def logs(asked: StackConfig, part: str, lines: int = 100) -> list[str]:
    """The last lines of a part's log, oldest first: s3, control, agent; and nessie, dagster,
    runner, of which the newest container is taken."""
    path = _log_of(Layout(asked.root), part)
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=lines)]
    except FileNotFoundError:
        return []


def _log_of(layout: Layout, part: str) -> Path:
    daemons = {"s3": weed.daemon, "control": ministack.daemon, "agent": agent.daemon}
    if part in daemons:
        return daemons[part](layout).log
    fitting = [
        record
        for record in records.read_all(layout.containers)
        if images.name_of(record.image).endswith(part)
    ]
    newest = max(fitting, key=lambda record: record.created, default=None)
    return records.log_file(layout.containers, newest.id if newest else "none")


def memory(asked: StackConfig) -> Mapping[str, int]:
    """Bytes that each process of the stack holds in memory, with its children."""
    layout = Layout(asked.root)
    found: dict[str, int] = {}
    for name, daemon in (
        ("S3", weed.daemon(layout)),
        ("control plane", ministack.daemon(layout)),
        ("agent", agent.daemon(layout)),
    ):
        running = process.find(daemon)
        if running is not None:
            with suppress(psutil.Error):
                whole = psutil.Process(running.pid)
                family = [whole, *whole.children(recursive=True)] if name != "agent" else [whole]
                found[name] = sum(each.memory_info().rss for each in family)
    for record in records.read_all(layout.containers):
        if record.state == "running" and record.pid is not None:
            name = images.name_of(record.image)
            found[name] = found.get(name, 0) + sessions.memory(record.pid)
    return found


def _find(wanted: config.CloudConfig, machine: Machine) -> _Programs:
    java = nessie.find_java(machine.java_home) if wanted.nessie else None
    jar = nessie.find_jar(machine.cache, machine.environment) if wanted.nessie else None
    return _Programs(installed.installed(machine.cache, machine.environment), java, jar)


def _first(s3: "Future[tuple[Connection, bool, int]]", found: "Future[_Programs]") -> Connection:
    """S3's connection; a program that is missing is told before S3 has started."""
    with suppress(TimeoutError):
        found.result(timeout=0.5)
    return s3.result()[0]


def _ports(layout: Layout) -> CloudPorts:
    """The ports of all that is beside S3: those of the last start while the agent runs, which
    binds them with its containers. Where it is gone, anyone may have taken them: then others are
    chosen, but first who was told of the old ones is ended, as the control plane was."""
    last = ports.remembered_cloud(layout)
    bound = last is not None and process.find(agent.daemon(layout)) is not None
    if not bound:
        _end_left(layout)  # lest its own containers are in the way
        if last is None or not ports.become_free(last):
            _end_cloud(layout)
    return ports.choose_cloud(layout, in_use=bound)


def _start(daemon: Daemon, command: list[str], environment: Mapping[str, str]) -> None:
    if process.find(daemon) is None:
        process.launch(daemon, command, environment)


def _end_cloud(layout: Layout) -> bool:
    """End all that is beside S3; whether there was anything. First who would start anew what is
    ended (the control plane, which also writes its state), then the containers with the agent."""
    ended = [
        _end(ministack.daemon(layout), _CONTROL_STOP_SECONDS),
        _end(agent.daemon(layout), _AGENT_STOP_SECONDS),
    ]
    _end_left(layout)
    return any(ended)


def _end_left(layout: Layout) -> None:
    """Kill what is left of the containers of an agent that is gone."""
    for record in records.read_all(layout.containers):
        if record.state != "exited":
            end_left(record)


def _end(daemon: Daemon, seconds: float) -> bool:
    running = process.find(daemon)
    if running is not None:
        process.end(daemon, running, seconds=seconds)
        sessions.kill(running.pid)  # what it started: workers of Lambda functions
    return running is not None


def _wait(
    name: str, ask: Callable[[], Part], daemon: Daemon, *, seconds: float = _ANSWER_SECONDS
) -> None:
    """Until the part answers; raises LocalStackFailed."""
    until = time.monotonic() + seconds
    while not (part := ask()).up:
        gone = process.find(daemon) is None
        if gone or time.monotonic() > until:
            raise LocalStackFailed(
                f"{name} did not come up: {'its process ended' if gone else part.detail}",
                hint=f"Read {daemon.log}, or `lakewarden local logs`; then `lakewarden local up`"
                " again.",
            )
        time.sleep(0.1)


def _services(
    layout: Layout,
    wanted: config.CloudConfig,
    chosen: CloudPorts,
    connection: Connection,
    provision: Provision,
) -> Iterator[tuple[str, Callable[[], Part]]]:
    """What runs as services of ECS, and how each is asked."""
    if wanted.nessie:
        service = provision.names.nessie_service
        yield (
            "Nessie",
            lambda: _of_service(
                replace(nessie.ask(chosen.nessie), name="Nessie"), service, connection, provision
            ),
        )
    if wanted.dagster:
        yield (
            "Dagster",
            lambda: _of_service(
                ask_http("Dagster", chosen.dagster, "/server_info"),
                provision.names.dagster_service,
                connection,
                provision,
            ),
        )


def _of_service(part: Part, service: str, connection: Connection, provision: Provision) -> Part:
    """A service that was scaled to zero is told as such."""
    from botocore.exceptions import BotoCoreError, ClientError

    from lakewarden.aws.clients import control_client
    from lakewarden.errors import LakewardenError

    if part.up:
        return part
    try:
        ecs = control_client(connection, "ecs", attempts=1)
        cluster = provision.names.cluster
        found = ecs.describe_services(cluster=cluster, services=[service])["services"]
    except (BotoCoreError, ClientError, LakewardenError):
        return part
    if found and found[0]["desiredCount"] == 0:
        return replace(part, detail="its service's desired count is 0")
    return part


def _not_here(name: str) -> Part:
    return Part(name, "", up=False, detail="not part of this stack", wanted=False)


def _images(
    wanted: config.CloudConfig,
    connection: Connection,
    machine: Machine,
    programs: _Programs,
    chosen: CloudPorts,
    layout: Layout,
) -> Iterator[tuple[str, Image]]:
    """The allow-list."""
    root = layout.root.resolve()
    seen = {
        "HOME": str(root),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TMPDIR": str(layout.temporary.resolve()),
        "LAKEWARDEN_PROJECT": str(root),
        "LAKEWARDEN_ENV": wanted.env,
        "PYTHONUNBUFFERED": "1",
    }
    yield (
        names(wanted.project, wanted.env, wanted.names).runner,
        Image(
            # -P: a module in the project's folder is not taken for one of Python's.
            argv=(sys.executable, "-P", "-m", "lakewarden.stepfunctions.task"),
            folder=root,
            environment=seen,
            takes=("LAKEWARDEN_TASK", "LAKEWARDEN_TASK_TOKEN"),
        ),
    )
    if wanted.nessie and programs.java and programs.jar:
        server = _nessie(wanted, connection, layout, chosen)
        yield (
            images.name_of(NESSIE_IMAGE),
            Image(
                argv=tuple(nessie.command(programs.java, programs.jar, server)),
                folder=server.folder,
                environment=nessie.environment(server),
                single=True,
            ),
        )
    if wanted.dagster and machine.dagster:
        yield dagster_image(wanted.project), machine.dagster(chosen.dagster)


def _nessie(
    wanted: config.CloudConfig, connection: Connection, layout: Layout, chosen: CloudPorts
) -> nessie.Server:
    folder, found = layout.nessie.resolve(), keys(layout)
    store: nessie.RocksDb | nessie.DynamoDb = nessie.RocksDb(folder / "store")
    if wanted.nessie_store == NessieStore.DYNAMODB:
        store = nessie.DynamoDb(
            prefix=names(wanted.project, wanted.env, wanted.names).nessie_service,
            region=connection.region,
            access_key=found.access_key,
            secret_key=found.secret_key,
            endpoint=connection.control,
        )
    return nessie.Server(
        port=chosen.nessie,
        management_port=chosen.nessie_management,
        store=store,
        warehouse=nessie.Warehouse(
            location=f"s3://{wanted.bucket}/{wanted.warehouse}",
            endpoint=connection.endpoint or "",
            region=connection.region,
            access_key=found.access_key,
            secret_key=found.secret_key,
        ),
        folder=folder,
    )
