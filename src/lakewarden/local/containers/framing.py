"""How Docker sends a container's output: each piece behind eight bytes. Pure.

The form is that of "Stream format" under ContainerAttach in the Docker Engine API.
"""

import struct

STDOUT = 1
STDERR = 2


def frame(stream: int, payload: bytes) -> bytes:
    """One piece: the stream's number, three zeros, the length (big-endian), the bytes."""
    return struct.pack(">BxxxL", stream, len(payload)) + payload


def whole_lines(held: bytes, *, ended: bool) -> tuple[bytes, bytes]:
    """What can be sent of the bytes that are held, and what has to wait: a line that is not at
    its end would be read as two. What is `ended` or very long waits no more."""
    if ended or len(held) > 1 << 18:
        return held, b""
    cut = held.rfind(b"\n") + 1
    return held[:cut], held[cut:]
