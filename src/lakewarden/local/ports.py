"""Free ports, chosen once and remembered."""

import socket
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lakewarden.errors import TryAgain
from lakewarden.local import sockets
from lakewarden.local.layout import Layout, write_private
from lakewarden.local.overlay import FIRST_PORT, GRPC_OFFSET, HOST, LAST_PORT, LINGER_SECONDS


class NoFreePorts(TryAgain):
    """Every port that the local stack may use is taken."""


@dataclass(frozen=True)
class Ports:
    """HTTP ports; each has its gRPC port 10,000 above."""

    master: int
    volume: int
    filer: int
    s3: int
    admin: int


@dataclass(frozen=True)
class CloudPorts:
    """HTTP ports of what is beside S3."""

    control: int
    nessie: int
    nessie_management: int
    dagster: int


_PORTS = TypeAdapter(Ports)
_CLOUD_PORTS = TypeAdapter(CloudPorts)


def choose(layout: Layout, *, anew: bool = False) -> Ports:
    """The remembered ports if they are still free, else others; remembered from now on."""
    last = None if anew else remembered(layout)
    if last is not None and become_free(last):
        return last
    ports = pick(_order(layout.root.resolve()), is_free)
    write_private(layout.ports, asdict(ports))
    return ports


def remembered(layout: Layout) -> Ports | None:
    """The ports of the last start."""
    try:
        return _PORTS.validate_json(layout.ports.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None  # chosen anew


def choose_cloud(layout: Layout, *, in_use: bool) -> CloudPorts:
    """The remembered ports, while who binds them runs (`in_use`) or they are free; else
    others, apart from those of S3; remembered from now on."""
    last = remembered_cloud(layout)
    if last is not None and (in_use or become_free(last)):
        return last
    taken = remembered(layout)
    others = set(asdict(taken).values()) if taken else set()
    free = (port for port in _order(layout.root.resolve()) if port not in others and is_free(port))
    found = list(islice(free, len(fields(CloudPorts))))
    if len(found) < len(fields(CloudPorts)):
        raise _none_free(len(fields(CloudPorts)))
    ports = CloudPorts(*found)
    write_private(layout.cloud_ports, asdict(ports))
    return ports


def remembered_cloud(layout: Layout) -> CloudPorts | None:
    """The ports of the last start with more than S3."""
    try:
        return _CLOUD_PORTS.validate_json(layout.cloud_ports.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _none_free(count: int) -> NoFreePorts:
    return NoFreePorts(
        f"no {count} free ports between {FIRST_PORT} and {LAST_PORT}",
        hint="Stop what uses them, then try again.",
    )


def pick(candidates: Iterator[int], free: Callable[[int], bool]) -> Ports:
    """The first five candidates that are free; raises NoFreePorts."""
    found: list[int] = []
    for port in candidates:
        if free(port):
            found.append(port)
        if len(found) == 5:
            return Ports(*found)
    raise _none_free(5)


def become_free(ports: Ports | CloudPorts) -> bool:
    """Whether they are free, or become so: a process that was killed lets go of its ports a
    moment after it is gone."""
    until = time.monotonic() + LINGER_SECONDS
    while not all(is_free(port) for port in asdict(ports).values()):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def is_free(port: int) -> bool:
    """Whether nobody listens on a port or on its gRPC neighbour, nor has its sockets."""
    return _can_listen(port) and _can_listen(port + GRPC_OFFSET) and sockets.is_ours_to_take(port)


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def _order(root: Path) -> Iterator[int]:
    """All candidates once; each project begins elsewhere, so that two seldom meet."""
    count = LAST_PORT - FIRST_PORT + 1
    start = zlib.crc32(str(root).encode()) % count
    return (FIRST_PORT + (start + step) % count for step in range(count))
