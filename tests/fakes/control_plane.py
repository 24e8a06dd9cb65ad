"""A control plane that knows accounts, roles, secrets, parameters and topics, over HTTP on the
loopback.

Who asks is read from the access key of the request's signature, which is not checked.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs

_ACCESS_KEY = re.compile(r"Credential=([^/]+)/")
_IN_ROLE = "IN-ROLE"  # the access key that AssumeRole gives


@dataclass
class FakeControlPlane:
    """`accounts`: by access key; `calls`: (access key, operation) of each request that came."""

    endpoint: str
    partition: str = "aws"
    accounts: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str | bytes] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    sent: list[tuple[str, str, str]] = field(default_factory=list)  # topic, subject, message
    denied: set[str] = field(default_factory=set)  # operations
    answers: dict[str, object] = field(default_factory=dict)  # of other operations, as JSON
    away: set[str] = field(default_factory=set)  # operations that are answered with HTTP 503
    calls: list[tuple[str, str]] = field(default_factory=list)

    def asked(self, operation: str) -> int:
        """How often an operation was asked for."""
        return sum(1 for _, name in self.calls if name == operation)

    def answer(self, key: str, operation: str, told: Mapping[str, str]) -> tuple[int, str]:
        """The status and the body."""
        self.calls.append((key, operation))
        if operation in self.away:
            return 503, json.dumps({"__type": "InternalServerError", "Message": ""})
        if operation in self.denied:
            return _refusal(operation, "AccessDeniedException")
        match operation:
            case "GetCallerIdentity":
                return self._identity(key)
            case "AssumeRole":
                account = told["RoleArn"].split(":")[4]
                self.accounts[_IN_ROLE] = account
                return 200, _ASSUMED
            case "GetSecretValue":
                found = self.secrets.get(told["SecretId"])
                if found is None:
                    return _refusal(operation, "ResourceNotFoundException")
                kept = (
                    {"SecretString": found} if isinstance(found, str) else {"SecretBinary": "AAAA"}
                )
                return 200, json.dumps({"Name": told["SecretId"], **kept})
            case "GetParameter":
                value = self.parameters.get(told["Name"])
                if value is None:
                    return _refusal(operation, "ParameterNotFound")
                return 200, json.dumps({"Parameter": {"Name": told["Name"], "Value": value}})
            case "Publish":
                self.sent.append((told["TopicArn"], told["Subject"], told["Message"]))
                number = f"<MessageId>{len(self.sent)}</MessageId>"
                return 200, _xml("PublishResponse", _result("Publish", number))
        if operation in self.answers:
            return 200, json.dumps(self.answers[operation])
        return _refusal(operation, "ResourceNotFoundException")

    def _identity(self, key: str) -> tuple[int, str]:
        account = self.accounts.get(key)
        if account is None:
            return 403, _xml("ErrorResponse", "<Error><Code>InvalidClientTokenId</Code></Error>")
        who = f"arn:{self.partition}:sts::{account}:assumed-role/writer/lakewarden"
        if key != _IN_ROLE:
            who = f"arn:{self.partition}:iam::{account}:user/{key}"
        told = f"<Arn>{who}</Arn><UserId>x</UserId><Account>{account}</Account>"
        return 200, _xml("GetCallerIdentityResponse", _result("GetCallerIdentity", told))


@contextmanager
def fake_control_plane() -> Iterator[FakeControlPlane]:
    """One that runs until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.daemon_threads = True
    plane = FakeControlPlane(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = _handler(plane)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield plane
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(plane: FakeControlPlane) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            signed = _ACCESS_KEY.search(self.headers.get("Authorization", ""))
            target = self.headers.get("X-Amz-Target")
            if target:
                operation, told = target.partition(".")[2], json.loads(body)
            else:
                told = {name: values[0] for name, values in parse_qs(body).items()}
                operation = told["Action"]
            status, text = plane.answer(signed[1] if signed else "", operation, told)
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: pytest tells what failed."""

    return Handler


def _refusal(operation: str, code: str) -> tuple[int, str]:
    if operation in ("GetCallerIdentity", "AssumeRole"):
        return 403, _xml("ErrorResponse", f"<Error><Code>{code}</Code></Error>")
    return 400, json.dumps({"__type": code, "Message": f"no {operation}"})


def _xml(name: str, inner: str) -> str:
    return f'<{name} xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{inner}</{name}>'


def _result(operation: str, inner: str) -> str:
    return f"<{operation}Result>{inner}</{operation}Result>"


_ASSUMED = _xml(
    "AssumeRoleResponse",
    _result(
        "AssumeRole",
        f"<Credentials><AccessKeyId>{_IN_ROLE}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
        "<SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>",
    ),
)
