"""Whether the stack really answers: its parts over HTTP, S3 by a signed request."""

import json
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException

from lakewarden.aws.clients import Connection, Patience, s3_client
from lakewarden.local.overlay import HOST
from lakewarden.local.ports import Ports

ONCE = Patience(total=0.0, connect=1.0, read=5.0, refused=0.0)
_PATHS = {"master": "/", "volume": "/status", "filer": "/"}
_OFF = 404  # master and filer answer nothing else by HTTP: that is turned off (weed.command)


@dataclass(frozen=True)
class Part:
    """One part of the stack, as it answered just now."""

    name: str  # master | volume | filer | s3 | control plane | …
    url: str
    up: bool
    detail: str  # why it is not up; empty when it is
    wanted: bool = True  # whether this stack has it


def ask(ports: Ports, connection: Connection, bucket: str) -> list[Part]:
    """Every part's own answer."""
    numbers = {"master": ports.master, "volume": ports.volume, "filer": ports.filer}
    parts = [_ask_http(name, port) for name, port in numbers.items()]
    return [*parts, ask_s3(connection, bucket)]


def ask_s3(connection: Connection, bucket: str) -> Part:
    """Whether the bucket answers our signature, with versioning on."""
    from botocore.exceptions import BotoCoreError, ClientError

    url = connection.endpoint or ""
    try:
        answer = s3_client(replace(connection, patience=ONCE)).get_bucket_versioning(Bucket=bucket)
    except (BotoCoreError, ClientError) as error:
        return Part("s3", url, up=False, detail=str(error))
    if answer.get("Status") != "Enabled":
        return Part("s3", url, up=False, detail=f"bucket {bucket} keeps no versions")
    return Part("s3", url, up=True, detail="")


def make_bucket(connection: Connection, bucket: str) -> None:
    """Make the bucket where it is missing, with versioning. Raises botocore's errors."""
    client = s3_client(replace(connection, patience=ONCE))
    if not any(b["Name"] == bucket for b in client.list_buckets()["Buckets"]):
        client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def knows_volumes(ports: Ports, known: Callable[[], AbstractSet[int] | None]) -> bool:
    """Whether the master can say where every volume is: what is asked of S3 before that is
    answered by HTTP 500. known: the volumes that the master knows."""
    return are_known(_get_json(ports.volume, "/status"), known())


def are_known(held: object, known: AbstractSet[int] | None) -> bool:
    """Whether all volumes that the volume server holds are known to the master, by the answers of
    both; None: there was none."""
    if not isinstance(held, dict) or known is None:
        return False
    return {one["Id"] for one in held.get("Volumes") or ()} <= known


def _get_json(port: int, path: str) -> object:
    """None where there is no such answer."""
    connection = HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        told: object = json.loads(answer.read()) if answer.status < 400 else None
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return told


def _ask_http(name: str, port: int) -> Part:
    url = f"http://{HOST}:{port}"
    connection = HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", _PATHS[name])
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return Part(name, url, up=False, detail=str(error))
    finally:
        connection.close()
    up = status < 400 or (status == _OFF and _PATHS[name] == "/")
    return Part(name, url, up=up, detail="" if up else f"HTTP {status}")
