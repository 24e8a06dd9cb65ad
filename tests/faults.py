"""A proxy before an S3 server, or a Nessie, that goes wrong on request."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Protocol
from urllib.parse import urlsplit

from lakewarden.aws.clients import is_loopback


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None


@dataclass(frozen=True)
class Fault:
    """What happens to one request. The default is nothing."""

    status: int | None = None  # answered in the server's stead, with this S3 error code
    code: str = ""
    reset: bool = False  # the connection breaks before the server hears of it
    lose_answer: bool = False  # the server does it; the connection breaks before the answer
    then: Callable[[], None] | None = None  # what happens when it is done and not answered yet
    stall: bool = False  # no answer at all
    cut_after: int | None = None  # bytes of the body, then the connection breaks
    stall_after: int | None = None  # bytes of the body, then silence
    bytes_per_second: float | None = None  # of the body


FINE = Fault()


class Plan(Protocol):
    def __call__(self, request: Request) -> Fault: ...


@dataclass
class FaultyProxy:
    """`plan` decides about each request; `requests` are those that came."""

    endpoint: str
    plan: Plan = lambda request: FINE
    requests: list[Request] = field(default_factory=list)

    def fail(self, *faults: Fault, method: str | None = None) -> None:
        """These happen to the next requests (of a method), one each; then all is fine."""
        left, lock = list(faults), Lock()

        def plan(request: Request) -> Fault:
            with lock:
                return left.pop(0) if left and method in (None, request.method) else FINE

        self.plan = plan

    def always(self, fault: Fault) -> None:
        self.plan = lambda request: fault


@contextmanager
def faulty_proxy(target: str) -> Iterator[FaultyProxy]:
    """A proxy before `target`, an http:// endpoint; raises ValueError unless it is on this
    machine: nothing that injects a fault may ever stand before anything real."""
    if not is_loopback(target):
        raise ValueError(f"faults are injected on this machine only, not at {target}")
    closing = Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.daemon_threads = True
    proxy = FaultyProxy(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = _handler(proxy, target, closing)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(proxy: FaultyProxy, target: str, closing: Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with suppress(OSError):  # a client that was killed
                super().handle()

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, self.path, self.headers.get("Range"))
            proxy.requests.append(request)
            fault = proxy.plan(request)
            if fault.reset:
                self._break()
            elif fault.stall:
                closing.wait(60)
                self._break()
            elif fault.status is not None:
                self._refuse(fault)
            else:
                self._pass_on(body, fault)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _do  # noqa: N815 - http.server's names

        def _refuse(self, fault: Fault) -> None:
            text = f"<Error><Code>{fault.code}</Code><Message>no</Message></Error>".encode()
            self.send_response(fault.status or 500)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def _pass_on(self, body: bytes, fault: Fault) -> None:
            host = urlsplit(target)
            server = HTTPConnection(host.hostname or "", host.port, timeout=30)
            try:
                server.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    if name.lower() not in ("expect", "connection"):
                        server.putheader(name, value)
                server.endheaders(body or None)
                answer = server.getresponse()
                content = answer.read()
                if fault.then:
                    fault.then()
                if fault.lose_answer:
                    self._break()
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                        self.send_header(name, value)
                if answer.chunked:  # it came in pieces, and goes on in one
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self._send(content, fault)
            except (OSError, HTTPException):  # either side went away
                self._break()
            finally:
                server.close()

        def _send(self, content: bytes, fault: Fault) -> None:
            if fault.bytes_per_second is not None:
                for start in range(0, len(content), 100):
                    self.wfile.write(content[start : start + 100])
                    if closing.wait(100 / fault.bytes_per_second):
                        return
            elif fault.cut_after is not None:
                self.wfile.write(content[: fault.cut_after])
                self._break()
            elif fault.stall_after is not None:
                self.wfile.write(content[: fault.stall_after])
                self.wfile.flush()
                closing.wait(60)
                self._break()
            else:
                self.wfile.write(content)

        def _break(self) -> None:
            self.close_connection = True
            # With this option a close sends a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: pytest tells what failed."""

    return Handler
