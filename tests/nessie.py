"""A Nessie of the tests' own, on the session's local stack; emptied for each that asks."""

import base64
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from lakewarden.aws.clients import Connection
from lakewarden.lake.nessie_model import NO_ANCESTOR
from lakewarden.local.nessie import (
    ISSUER,
    Java,
    RocksDb,
    Server,
    Warehouse,
    api,
    ask,
    command,
    environment,
    is_ready,
)
from lakewarden.local.overlay import FIRST_PORT, HOST
from tests import needs
from tests.stack import LocalStack

START = 120  # seconds that a loaded machine may take; alone it is five
_PORTS = 2_000  # just below the local stacks' own, whose gRPC neighbours lie above those
_given: set[int] = set()


@dataclass
class Nessie:
    """A server that can be killed and started again where it was."""

    java: Java
    jar: Path
    server: Server
    store: Connection
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        return api(self.server.port)

    @property
    def warehouse(self) -> str:
        return self.server.warehouse.location

    @property
    def bucket(self) -> str:
        return self.warehouse.split("/")[2]

    @property
    def log(self) -> Path:
        return self.server.folder / "log"

    @property
    def folder(self) -> Path:
        return self.server.folder

    def token(self, *, seconds: int = 3600) -> str:
        """One that this server takes, for so long from now."""
        return token_of(self.folder, seconds=seconds)

    def start(self) -> None:
        token = self.token() if self.server.public_key else None
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                command(self.java, self.jar, self.server),
                cwd=self.server.folder,
                env=environment(self.server),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        until = time.monotonic() + START
        while not is_ready(self.server.port, token=token):
            if self._process.poll() is not None or time.monotonic() > until:
                why = ask(self.server.port, token=token).detail
                self.kill()
                pytest.fail(f"Nessie did not start: {why}: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """As kill -9 does; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START)
            self._process = None

    def empty(self) -> None:
        """Nothing is left of what was in it; tables' files stay."""
        for one in self._ask("GET", "trees?max-records=1000")["references"]:
            name, where = one["name"].replace("/", "%2F"), one["hash"]
            if one["name"] != "main":
                self._ask("DELETE", f"trees/{name}@{where}?type={one['type']}")
            elif where != NO_ANCESTOR:
                nothing = {"type": "DETACHED", "hash": NO_ANCESTOR}
                self._ask("PUT", f"trees/main@{where}?type=BRANCH", nothing)

    def _ask(
        self, method: str, path: str, body: object = None
    ) -> "dict[str, list[dict[str, str]]]":
        sent = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self.uri}/api/v2/{path}", sent, headers, method=method)  # noqa: S310 - http, and ours
        with urlopen(request, timeout=30) as answer:  # noqa: S310 - see above
            told: dict[str, list[dict[str, str]]] = json.loads(answer.read() or b"{}")
        return told


def prepared(folder: Path, stack: LocalStack, *, with_tokens: bool = False) -> Nessie:
    """One that is not started yet, with a bucket and a store of its own."""
    java, jar = needs.java(), needs.maven()
    connection = stack.connection
    store = Warehouse(
        f"s3://{stack.bucket()}/warehouse",
        connection.endpoint or "",
        connection.region,
        connection.access_key or "",
        connection.secret_key or "",
    )
    port, management = _free_ports()
    key = public_key(folder) if with_tokens else None
    rocks = RocksDb(folder / "rocks")
    server = Server(port, management, rocks, store, folder, public_key=key)
    return Nessie(java, jar, server, connection)


@pytest.fixture(scope="session")
def nessie(tmp_path_factory: pytest.TempPathFactory, local_stack: LocalStack) -> Iterator[Nessie]:
    """One server for the whole session; every request of another kind than these belongs to a
    server of the test's own."""
    server = prepared(tmp_path_factory.mktemp("nessie"), local_stack)
    server.start()
    yield server
    server.kill()


def public_key(folder: Path) -> str:
    return _openssl("pkey", "-in", str(_private_key(folder)), "-pubout").decode()


def token_of(folder: Path, *, seconds: int = 3600) -> str:
    """A JWT that the folder's private key signed; the key is made where there is none."""
    now = int(time.time())
    told = {"sub": "tests", "upn": "tests", "iss": ISSUER, "iat": now - 7200, "exp": now + seconds}
    parts = [_base64(json.dumps(one).encode()) for one in ({"alg": "RS256", "typ": "JWT"}, told)]
    text = ".".join(parts)
    sign = ("dgst", "-sha256", "-sign", str(_private_key(folder)))
    return f"{text}.{_base64(_openssl(*sign, given=text.encode()))}"


def _private_key(folder: Path) -> Path:
    key = folder / "private.pem"
    if not key.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(key))
        _openssl("genpkey", "-quiet", *made)
    return key


def _openssl(*arguments: str, given: bytes = b"") -> bytes:
    program = str(needs.openssl())
    return subprocess.run(
        [program, *arguments], input=given, check=True, capture_output=True, timeout=60
    ).stdout


def _base64(told: bytes) -> str:
    return base64.urlsafe_b64encode(told).rstrip(b"=").decode()


def _free_ports() -> tuple[int, int]:
    """Each process looks elsewhere first."""
    start = os.getpid() * 20 % _PORTS
    candidates = (FIRST_PORT - _PORTS + (start + step) % _PORTS for step in range(_PORTS))
    free = (port for port in candidates if port not in _given and _can_listen(port))
    ports = next(free), next(free)
    _given.update(ports)
    return ports


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
