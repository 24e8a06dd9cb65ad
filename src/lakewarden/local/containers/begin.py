"""Becomes a container's process. Run by itself, with nothing but the standard library:

    python -I -S begin.py PARENT_PID COMMAND [ARGUMENT...]

On Linux the kernel is asked to kill it when its parent ends, so that nothing outlives the stand-in
for ECS unseen.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we could ask
        sys.exit(137)
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell: a command of the allow-list
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - it becomes the container's output
        sys.exit(127)


if __name__ == "__main__":
    main()
