"""The process that stands in for what AWS is beside its APIs.

It has the control plane's front, the machines of ECS, and a thread for each of the stand-ins.
Started by `up` as `python -m lakewarden.local.agent PROJECT`; ends on SIGTERM, and its containers
with it.
"""

import signal
import sys
import threading
from pathlib import Path
from uuid import uuid4  # noqa: TID251 - ids of containers; an entry point

from lakewarden import wiring
from lakewarden.local import config, ports
from lakewarden.local.containers.docker_api import DockerServer
from lakewarden.local.containers.processes import Containers, ContainersConfig
from lakewarden.local.control.front import FrontConfig, FrontServer
from lakewarden.local.identity import function_keys, keys
from lakewarden.local.layout import Layout
from lakewarden.local.process import Daemon
from lakewarden.local.stack import connect
from lakewarden.local.standins.watchers import Standins

MODULE = "lakewarden.local.agent"


def daemon(layout: Layout) -> Daemon:
    return Daemon(
        layout.folder, layout.folder / "agent.json", layout.folder / "agent.log", (MODULE,)
    )


def command(layout: Layout) -> list[str]:
    return [sys.executable, "-m", MODULE, str(layout.root.resolve())]


def environment(layout: Layout) -> dict[str, str]:
    """All that it sees: nothing of the user's own environment, least of all AWS keys."""
    return {
        "HOME": str(layout.folder.resolve()),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TMPDIR": str(layout.temporary.resolve()),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def main() -> None:
    layout = Layout(Path(sys.argv[1]))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(layout, stop)


def run(layout: Layout, stop: threading.Event) -> None:
    """Until `stop` is set."""
    told, chosen = config.read(layout), ports.remembered_cloud(layout)
    connection = connect(layout)
    if told is None or chosen is None or connection is None:
        sys.exit("this stack was never started with --cloud")
    found = keys(layout)
    containers = Containers(
        ContainersConfig(
            folder=layout.containers,
            allowed=layout.images,
            now=wiring.now,
            new_id=lambda: uuid4().hex + uuid4().hex,
        )
    )
    front = FrontServer(
        FrontConfig(
            port=chosen.control,
            upstream=layout.control_socket,
            secrets={each.access_key: each.secret_key for each in (found, function_keys(found))},
            now=wiring.now,
        )
    )
    docker = DockerServer(layout.containers_socket, containers)
    for server in (front, docker):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    Standins(told, connection, containers, layout).start(stop)
    stop.wait()
    containers.close()


if __name__ == "__main__":
    main()
