"""The one port of the control plane: it lets through what is signed with the stack's keys.

ministack itself takes any request, and has an endpoint that forgets everything; so it listens on
a private socket, and this is what others reach.
"""

import json
import socketserver
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

from lakewarden.local.control.signature import Refusal, Request, refusal
from lakewarden.local.control.unix import UnixConnection
from lakewarden.local.overlay import HOST

HEALTH = "/_ministack/health"

_LARGEST = 100 << 20  # bytes of one request: a function's zip has at most 50 MB
_SECONDS = 310  # a function may run for five minutes
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}
_OURS = {*_HOP_BY_HOP, "content-length", "date", "server"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class FrontConfig:
    port: int
    upstream: Path  # ministack's socket
    secrets: Mapping[str, str]  # of each access key
    now: Callable[[], datetime]


class FrontServer(socketserver.ThreadingMixIn, HTTPServer):
    """A thread for each connection, on the loopback."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, config: FrontConfig) -> None:
        self.config = config
        super().__init__((HOST, config.port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that hung up is no error of ours
            super().handle_error(request, client_address)  # type: ignore[arg-type] # as socketserver


def ask(upstream: Path, request: Request, *, timeout: float = _SECONDS) -> Answer:
    """ministack's own answer; raises OSError and HTTPException."""
    connection = UnixConnection(upstream, timeout=timeout)
    try:
        connection.putrequest(
            request.method, request.target, skip_host=True, skip_accept_encoding=True
        )
        for name, value in request.headers:
            if name.lower() not in _HOP_BY_HOP | {"content-length", "expect"}:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(request.body)))
        connection.putheader("Connection", "close")
        connection.endheaders(request.body)
        answer = connection.getresponse()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OURS]
        return Answer(answer.status, tuple(kept), answer.read())
    finally:
        connection.close()


def is_of_the_emulator(target: str) -> bool:
    """Whether ministack would take it for one of its own endpoints, however it is written."""
    path = unquote(urlsplit(target).path if "://" in target.partition("?")[0] else target)
    return path.lstrip("/").startswith(("_ministack", "_localstack"))


def refused(request: Request, found: Refusal, *, status: int = 403) -> Answer:
    """In the form of the service that was asked: JSON, or the query services' XML."""
    if "x-www-form-urlencoded" not in request.header("content-type"):
        body = json.dumps({"__type": found.code, "message": found.message}).encode()
        kind = ("Content-Type", "application/x-amz-json-1.1")
        return Answer(status, (kind, ("x-amzn-ErrorType", found.code)), body)
    text = f"<Type>Sender</Type><Code>{found.code}</Code><Message>{escape(found.message)}</Message>"
    body = f"<ErrorResponse><Error>{text}</Error></ErrorResponse>".encode()
    return Answer(status, (("Content-Type", "text/xml"),), body)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120  # seconds that an idle connection is kept
    server: FrontServer

    def _handle(self) -> None:
        body = self._body()
        if body is None:
            return
        request = Request(self.command, self.path, tuple(self.headers.items()), body)
        answer = self._answer(request)
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _body(self) -> bytes | None:
        length = self.headers.get("content-length", "0")
        if self.headers.get("transfer-encoding") or not (length.isascii() and length.isdigit()):
            self.send_error(411)
        elif int(length) > _LARGEST:
            self.send_error(413)
        else:
            return self.rfile.read(int(length))
        self.close_connection = True
        return None

    def _answer(self, request: Request) -> Answer:
        config = self.server.config
        if request.target != HEALTH or request.method != "GET":
            why = refusal(request, config.secrets, config.now())
            if why is None and is_of_the_emulator(request.target):
                why = Refusal("AccessDeniedException", "This is not a service of AWS.")
            if why is not None:
                return refused(request, why)
        try:
            return ask(config.upstream, request)
        except (OSError, HTTPException) as error:
            away = Refusal("ServiceUnavailable", f"The control plane does not answer: {error}")
            return refused(request, away, status=503)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _handle  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line for each request would fill the log, and may name what is private."""
