"""Everything that differs on this machine from AWS, in one place.

The local stack is SeaweedFS. What else is different, and cannot be set:
- SeaweedFS collapses `//` in a key, turns a backslash into `/` and does not list control
  characters faithfully; real S3 keeps every byte.
- Its port answers GetCallerIdentity with account 000000000000 (aws.clients knows).
- If-Match on a key that does not exist answers 412; real S3 answers 404.
- Its filer, master and volume ports ask for no credentials: they listen on the loopback only.
- A kill of the process loses nothing that was acknowledged; a loss of power may.
"""

from pathlib import Path

HOST = "127.0.0.1"
ADMIN = "lakewarden"  # the one identity
ACCOUNT_KEY = "000000000000"  # with which Lambda functions sign; ministack takes it as the account
ADMIN_ACTIONS = ("Admin", "Read", "Write", "List", "Tagging")

# A port and the one 10,000 above it (gRPC) belong together. Both lie below the range from which
# Linux (32768) and macOS (49152) take the ports of outgoing connections.
FIRST_PORT = 12_000
LAST_PORT = 21_999
GRPC_OFFSET = 10_000
SOCKETS = Path("/tmp")  # noqa: S108 - where SeaweedFS puts its Unix sockets, whatever it is told

SOURCE = "lakewarden.rehearsal"  # of events that AWS alone may send under its own name
ALARM_HASTE = 30  # alarms see so many seconds as one: five minutes as ten seconds

START_SECONDS = 30.0  # until the stack answers; usually about one
STOP_SECONDS = 15.0  # from SIGTERM to SIGKILL; usually about four
LINGER_SECONDS = 1.0  # how long an ended process may still hold its ports
LOG_BYTES = 8 << 20  # a longer log is set aside at the next start
VOLUME_MB = 128  # SeaweedFS keeps objects in files of this size, some for each bucket
