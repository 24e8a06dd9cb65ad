"""A topic of SNS, as far as Publish goes: what boto3 sends is kept. Loopback only."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

_STS = "GetCallerIdentity"
_ANSWERS = {
    "Publish": "<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult>"
    "</PublishResponse>",
    _STS: "<GetCallerIdentityResponse><GetCallerIdentityResult><Account>000000000000</Account>"
    "<Arn>arn:aws:iam::000000000000:root</Arn><UserId>1</UserId></GetCallerIdentityResult>"
    "</GetCallerIdentityResponse>",
}


@dataclass
class FakeTopic:
    """`sent`: topic, subject and message of each Publish. `status`: what is answered to one."""

    sent: list[tuple[str, str, str]] = field(default_factory=list)
    status: int = 200
    url: str = ""

    @property
    def bodies(self) -> list[dict[str, object]]:
        return [json.loads(message) for _, _, message in self.sent]


@contextmanager
def fake_topic() -> Iterator[FakeTopic]:
    topic = FakeTopic()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked = {k: v[0] for k, v in parse_qs(self.rfile.read(length).decode()).items()}
            status = topic.status if asked["Action"] == "Publish" else 200
            if asked["Action"] == "Publish" and status == 200:
                topic.sent.append((asked["TopicArn"], asked["Subject"], asked["Message"]))
            body = _ANSWERS[asked["Action"]].encode() if status == 200 else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    topic.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield topic
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
