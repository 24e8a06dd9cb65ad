"""As much of the Docker Engine API as ministack uses, on a private Unix socket.

Images are names of the allow-list; networks, mounts, commands and rights are not looked at.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Annotated, cast
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError

from lakewarden.errors import LakewardenError
from lakewarden.local.containers.images import ImageUnknown, VariableRefused
from lakewarden.local.containers.processes import Containers, ContainerUnknown
from lakewarden.local.containers.records import Record
from lakewarden.local.control.unix import UnixServer
from lakewarden.local.overlay import HOST

VERSION = "1.44"  # of the API
_LARGEST = 1 << 20  # bytes of one request


class _Create(BaseModel):
    """What is looked at of a request to make a container."""

    image: Annotated[str, Field(alias="Image", max_length=512)]
    variables: Annotated[list[str] | None, Field(alias="Env")] = None
    labels: Annotated[dict[str, str] | None, Field(alias="Labels")] = None


class _Filters(BaseModel):
    """Which containers are listed; Docker takes a list and an older form."""

    label: list[str] | dict[str, bool] = []
    name: list[str] | dict[str, bool] = []
    status: list[str] | dict[str, bool] = []
    id: list[str] | dict[str, bool] = []


_FILTERS = TypeAdapter(_Filters)
Query = Mapping[str, str]


class DockerServer(UnixServer):
    def __init__(self, path: Path, containers: Containers) -> None:
        self.containers = containers
        super().__init__(path, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120

    @property
    def _containers(self) -> Containers:
        return cast(DockerServer, self.server).containers

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        path = re.sub(r"^/v1\.\d+(?=/)", "", parts.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        body = self._body()
        if body is None:
            return
        for method, pattern, answer in _ROUTES:
            found = re.fullmatch(pattern, path)
            if self.command == method and found:
                self._answer(answer, unquote(found[1]) if found.groups() else "", query, body)
                return
        self._send(404, {"message": "page not found"})

    def _answer(self, answer: "_Answer", name: str, query: Query, body: bytes) -> None:
        try:
            answer(self, name, query, body)
        except (ImageUnknown, ContainerUnknown) as error:
            self._send(404, {"message": error.message})
        except (VariableRefused, ValidationError) as error:
            said = error.message if isinstance(error, LakewardenError) else "not understood"
            self._send(400, {"message": said})

    def _body(self) -> bytes | None:
        length = int(self.headers.get("content-length", "0"))
        if length > _LARGEST:
            self.send_error(413)
            self.close_connection = True
            return None
        return self.rfile.read(length)

    def _send(self, status: int, content: JsonValue = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_stream(self, pieces: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.docker.multiplexed-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _ping(self, name: str, query: Query, body: bytes) -> None:
        self._send(200, "OK")

    def _version(self, name: str, query: Query, body: bytes) -> None:
        self._send(
            200,
            {
                "Version": "lakewarden",
                "ApiVersion": VERSION,
                "MinAPIVersion": "1.24",
                "Os": "linux",
            },
        )

    def _info(self, name: str, query: Query, body: bytes) -> None:
        self._send(200, {"Name": "lakewarden", "Containers": len(self._containers.all())})

    def _pull(self, name: str, query: Query, body: bytes) -> None:
        self._containers.image(query.get("fromImage", ""))
        self._send(200, {"status": "on this machine already"})

    def _show_image(self, name: str, query: Query, body: bytes) -> None:
        self._containers.image(name)
        self._send(200, {"Id": _digest(name), "RepoTags": [name], "Config": {}})

    def _tag(self, name: str, query: Query, body: bytes) -> None:
        self._send(201)

    def _distribution(self, name: str, query: Query, body: bytes) -> None:
        self._containers.image(name)
        kind = "application/vnd.oci.image.manifest.v1+json"
        self._send(
            200, {"Descriptor": {"mediaType": kind, "digest": _digest(name)}, "Platforms": []}
        )

    def _list(self, name: str, query: Query, body: bytes) -> None:
        filters = _FILTERS.validate_json(query.get("filters", "{}"))
        found: list[JsonValue] = [
            _summary(record)
            for record in self._containers.all()
            if (query.get("all", "0") in ("1", "true", "True") or record.state == "running")
            and _fits(record, filters)
        ]
        self._send(200, found)

    def _create(self, name: str, query: Query, body: bytes) -> None:
        asked = _Create.model_validate_json(body)
        pairs = (each.partition("=") for each in asked.variables or [])
        variables = {name: value for name, _, value in pairs}
        made = self._containers.create(
            query.get("name", ""), asked.image, variables, asked.labels or {}
        )
        self._send(201, {"Id": made.id, "Warnings": []})

    def _start(self, name: str, query: Query, body: bytes) -> None:
        self._containers.start(name)
        self._send(204)

    def _stop(self, name: str, query: Query, body: bytes) -> None:
        self._containers.stop(name)
        self._send(204)

    def _kill(self, name: str, query: Query, body: bytes) -> None:
        self._containers.kill(name)
        self._send(204)

    def _wait(self, name: str, query: Query, body: bytes) -> None:
        self._send(200, {"StatusCode": self._containers.wait(name)})

    def _show(self, name: str, query: Query, body: bytes) -> None:
        self._send(200, _inspect(self._containers.get(name)))

    def _logs(self, name: str, query: Query, body: bytes) -> None:
        follow = query.get("follow", "0") in ("1", "true", "True")
        self._containers.get(name)
        self._send_stream(self._containers.output(name, follow=follow))

    def _remove(self, name: str, query: Query, body: bytes) -> None:
        self._containers.remove(name)
        self._send(204)

    do_GET = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815 - http.server's names

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: ministack asks ten times a second."""


_Answer = Callable[[_Handler, str, Query, bytes], None]
_NAME = r"/([^/]+)"
_ROUTES: tuple[tuple[str, str, _Answer], ...] = (
    ("GET", r"/_ping", _Handler._ping),
    ("HEAD", r"/_ping", _Handler._ping),
    ("GET", r"/version", _Handler._version),
    ("GET", r"/info", _Handler._info),
    ("POST", r"/images/create", _Handler._pull),
    ("GET", r"/images/(.+)/json", _Handler._show_image),
    ("POST", r"/images/(.+)/tag", _Handler._tag),
    ("GET", r"/distribution/(.+)/json", _Handler._distribution),
    ("GET", r"/containers/json", _Handler._list),
    ("POST", r"/containers/create", _Handler._create),
    ("POST", rf"/containers{_NAME}/start", _Handler._start),
    ("POST", rf"/containers{_NAME}/stop", _Handler._stop),
    ("POST", rf"/containers{_NAME}/kill", _Handler._kill),
    ("POST", rf"/containers{_NAME}/wait", _Handler._wait),
    ("GET", rf"/containers{_NAME}/json", _Handler._show),
    ("GET", rf"/containers{_NAME}/logs", _Handler._logs),
    ("DELETE", rf"/containers{_NAME}", _Handler._remove),
)
_STATUS = {"created": "created", "waiting": "running", "running": "running", "exited": "exited"}


def _digest(name: str) -> str:
    return f"sha256:{sha256(name.encode()).hexdigest()}"


def _fits(record: Record, filters: _Filters) -> bool:
    labels = {*record.labels, *(f"{name}={value}" for name, value in record.labels.items())}
    return (
        all(label in labels for label in filters.label)
        and (not filters.name or any(name in record.name for name in filters.name))
        and (not filters.status or _STATUS[record.state] in filters.status)
        and (not filters.id or any(record.id.startswith(each) for each in filters.id))
    )


def _summary(record: Record) -> dict[str, JsonValue]:
    return {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": record.image,
        "Labels": dict(record.labels),
        "State": _STATUS[record.state],
        "Status": _STATUS[record.state],
        "Created": int(datetime.fromisoformat(record.created).timestamp()),
    }


def _inspect(record: Record) -> dict[str, JsonValue]:
    state = _STATUS[record.state]
    return {
        "Id": record.id,
        "Name": f"/{record.name}",
        "Image": _digest(record.image),
        "Created": record.created,
        "Config": {"Image": record.image, "Labels": dict(record.labels), "Tty": False},
        "HostConfig": {},
        "NetworkSettings": {
            "IPAddress": HOST,
            "Networks": {"bridge": {"IPAddress": HOST}},
            "Ports": {},
        },
        "State": {
            "Status": state,
            "Running": state == "running",
            "Pid": record.pid or 0,
            "ExitCode": record.exit_code or 0,
            "OOMKilled": record.out_of_memory,
            "StartedAt": record.started_at or "0001-01-01T00:00:00Z",
            "FinishedAt": record.ended_at or "0001-01-01T00:00:00Z",
        },
    }
