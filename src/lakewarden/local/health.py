"""Whether the stack really answers: its parts over HTTP, S3 and the control plane by a signed
request."""

import json
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from lakewarden.aws.clients import Connection, Patience, s3_client, sts_client
from lakewarden.local.control.unix import UnixConnection
from lakewarden.local.overlay import HOST
from lakewarden.local.ports import Ports

ONCE = Patience(total=0.0, connect=1.0, read=5.0, refused=0.0)
CONTAINERS = "ECS stand-in"  # as users know it
CONTROL = "control plane"
_PROBE = "lakewarden-probe"
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
    return [
        ask_http("master", ports.master, "/", good=_OFF),
        ask_http("volume", ports.volume, "/status"),
        ask_http("filer", ports.filer, "/", good=_OFF),
        ask_s3(connection, bucket),
    ]


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


def takes_objects(connection: Connection, bucket: str) -> bool:
    """Whether a write is answered in time, be it by an error: a full disk is no reason to wait.
    Of what was written nothing is left."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = s3_client(replace(connection, patience=ONCE))
    try:
        # Not an empty one, which needs no place.
        written = client.put_object(Bucket=bucket, Key=_PROBE, Body=b"?")
        client.delete_object(Bucket=bucket, Key=_PROBE, VersionId=written["VersionId"])
    except ClientError:
        return True
    except BotoCoreError:
        return False
    return True


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


def ask_http(name: str, port: int, path: str, *, good: int | None = None) -> Part:
    """Whether it answers below HTTP 400, or `good`."""
    url = f"http://{HOST}:{port}"
    return _asked(name, url, HTTPConnection(HOST, port, timeout=2), path, good)


def ask_containers(socket: Path) -> Part:
    """Whether the stand-in for ECS's machines answers."""
    return _asked(CONTAINERS, str(socket), UnixConnection(socket, timeout=2), "/_ping")


def ask_control(connection: Connection) -> Part:
    """Whether a signed request comes through to the control plane and back."""
    from botocore.exceptions import BotoCoreError, ClientError

    url = connection.control or ""
    try:
        sts_client(replace(connection, patience=ONCE), attempts=1).get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        return Part(CONTROL, url, up=False, detail=str(error))
    return Part(CONTROL, url, up=True, detail="")


def _asked(
    name: str, url: str, connection: HTTPConnection, path: str, good: int | None = None
) -> Part:
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return Part(name, url, up=False, detail=str(error))
    finally:
        connection.close()
    up = status < 400 or status == good
    return Part(name, url, up=up, detail="" if up else f"HTTP {status}")
