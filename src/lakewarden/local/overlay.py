"""Everything that differs on this machine from AWS, in one place.

Point by point for users: docs/local-stack.md. What is different, and cannot be set:

S3 is SeaweedFS.
- It collapses `//` in a key, turns a backslash into `/` and does not list control characters
  faithfully; real S3 keeps every byte.
- Its port answers GetCallerIdentity with account 000000000000 (aws.clients knows).
- If-Match on a key that does not exist answers 412; real S3 answers 404.
- Its gRPC ports ask for no credentials: they listen on the loopback only. The HTTP of its master
  and filer is off, that of its volume wants tokens.
- After a start it may take no objects for fifteen seconds, in which its master waits for others.
- A kill of the process loses nothing that was acknowledged; a loss of power may.
- It sends no events: standins/arrivals.py lists, and tells from SOURCE.

The control plane is ministack, behind control/front.py, which asks for signatures.
- Every key of the stack may do everything: no policy is enforced.
- A retried state has the token of its first attempt; history has no TaskSubmitted, and a timed-out
  state has TaskFailed; no execution can be redriven; TimeoutSeconds of a whole machine is ignored.
- What a Lambda function raises has the type Runtime.HandlerError; functions run by ministack's own
  Python, whatever their runtime.
- CloudTrail has no data events, says of everyone that they are the key, and forgets at a stop.
- After a kill the last SECONDS of control/emulator/saving.py are lost, DynamoDB's too.
- A start ends every execution that was running: FAILED, States.ServiceRestart.

What stands in within it: control/emulator/, one module each.
- Alarms see time run faster, by ALARM_HASTE.
- A heartbeat's time-out is TaskFailed with States.HeartbeatTimeout; so is a wait whose execution
  was stopped, with States.Timeout.

ECS is containers/: processes of an allow-list.
- No image is pulled, no network, mount, role or command of a task definition is looked at.
- A task is told as STOPPED when its process was asked to end, not when it has.
- Memory is looked at twice a second; CPU is not limited at all.
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
