"""An Iceberg REST catalog that only reads: it answers GET as the specification has it, and
remembers what else it was asked."""

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

from pyiceberg.table import Table


class RestCatalogServer:
    """On the loopback, below /iceberg/main. `methods`: those that it was asked by."""

    def __init__(self, tables: Mapping[str, Table], *, views: Sequence[str], token: str) -> None:
        self.methods: set[str] = set()
        self._tables, self._views, self._token = tables, views, token
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "RestCatalogServer":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str) -> object | None:
        """What a GET says; None where there is nothing."""
        parts = [unquote(part) for part in urlsplit(path).path.split("/") if part]
        spaces = sorted({name.rpartition(".")[0] for name in (*self._tables, *self._views)})
        match parts:
            case ["iceberg", "main", "v1", "config"]:
                # As Nessie does, it names a FileIO that the client may not have.
                overrides = {
                    "py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO",
                    "nessie.is-nessie-catalog": "true",
                }
                return {"defaults": {}, "overrides": overrides, "endpoints": _ENDPOINTS}
            case ["iceberg", "main", "v1", "namespaces"]:
                return {"namespaces": [] if "parent=" in path else [[one] for one in spaces]}
            case ["iceberg", "main", "v1", "namespaces", space, "tables"]:
                return _listed(self._tables, space)
            case ["iceberg", "main", "v1", "namespaces", space, "views"]:
                return _listed(self._views, space)
            case ["iceberg", "main", "v1", "namespaces", space, "tables", name]:
                table = self._tables[f"{space}.{name}"]
                return {
                    "metadata-location": table.metadata_location,
                    "metadata": json.loads(table.metadata.model_dump_json()),
                    "config": {},
                }
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # http.server's name
                self._reply(server.answer(self.path))

            def do_HEAD(self) -> None:
                self._reply(None)

            def do_POST(self) -> None:
                self._reply(None)

            do_PUT = do_DELETE = do_POST  # noqa: N815  # as above

            def _reply(self, found: object | None) -> None:
                server.methods.add(self.command)
                allowed = self.headers.get("Authorization") == f"Bearer {server._token}"
                status = 401 if not allowed else 404 if found is None else 200
                error = {"error": {"message": "no", "type": "Refused", "code": status}}
                body = json.dumps(found if status == 200 else error).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quietly."""

        return Handler


_SPACE = "/v1/{prefix}/namespaces/{namespace}"
_ENDPOINTS = [
    "GET /v1/{prefix}/namespaces",
    f"GET {_SPACE}",
    f"GET {_SPACE}/tables",
    f"GET {_SPACE}/tables/{{table}}",
    f"GET {_SPACE}/views",
    f"POST {_SPACE}/tables",
]


def _listed(names: Iterable[str], space: str) -> Mapping[str, object]:
    found = [name.rpartition(".") for name in names if name.startswith(f"{space}.")]
    return {"identifiers": [{"namespace": [space], "name": name} for _, _, name in found]}
