"""HTTP over a Unix socket: who may open the folder that it lies in may talk, and nobody else."""

import socket
import socketserver
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path


class UnixConnection(HTTPConnection):
    """A client's connection."""

    def __init__(self, path: Path, *, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, handler: type[BaseHTTPRequestHandler]) -> None:
        path.unlink(missing_ok=True)  # of one that was killed
        super().__init__(str(path), handler)
        path.chmod(0o600)
