"""What a test's container does: LAKEWARDEN_TASK tells. Run by itself, apart from the tests.

exit CODE | sleep | deaf | environment | memory MB | children [PORT] | serve PORT | burn
"""

import http.server
import json
import os
import signal
import subprocess
import sys
import time

_CHILD = """
import socket, sys, time
held = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:]]
time.sleep(600)
"""


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> None:
    word, _, rest = os.environ.get("LAKEWARDEN_TASK", "sleep").partition(" ")
    if word == "deaf":  # first: who reads that it has begun may ask it to end
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("begun", os.getpid(), flush=True)
    if word == "exit":
        print("to standard error", file=sys.stderr)
        sys.exit(int(rest))
    if word == "environment":
        print(json.dumps(dict(os.environ)), flush=True)
        return
    if word == "children":
        child = subprocess.Popen([sys.executable, "-I", "-c", _CHILD, *rest.split()])
        print("child", child.pid, flush=True)
    if word == "memory":
        held = [b"x" * (1 << 20) for _ in range(int(rest))]
        print("holds", len(held), flush=True)
    if word == "serve":
        http.server.ThreadingHTTPServer(("127.0.0.1", int(rest)), Answer).serve_forever()
    while word == "burn":
        pass
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
