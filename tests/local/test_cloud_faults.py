"""The whole stack is killed part by part, brought up again, and ended."""

import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from lakewarden.local import agent, cloud, process, weed
from lakewarden.local.containers import records
from lakewarden.local.control import ministack
from lakewarden.local.layout import Layout
from lakewarden.local.process import Daemon
from tests.local.test_cloud_ecs import define, is_gone, lines, pid, run, stopped, wait_for
from tests.stack import CACHE, CloudStack, cloud_stack, machine

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudStack]:
    """One of its own, in a path with spaces that is too long for a socket."""
    root = tmp_path_factory.mktemp("cloud") / ("a long path with spaces é " * 5) / "project"
    root.mkdir(parents=True)
    with cloud_stack(root) as started:
        yield started


def kill(daemon: Daemon) -> None:
    found = process.find(daemon)
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    wait_for(lambda: is_gone(found.pid))


def up(stack: CloudStack) -> set[str]:
    return {part.name for part in cloud.status(stack.asked).parts if part.up}


ALL = {"master", "volume", "filer", "s3", "control plane", "ECS stand-in"}


def test_only_what_is_signed_passes(mine: CloudStack) -> None:
    control = mine.connection.control
    assert control is not None
    for path in ("/_ministack/reset", "/_localstack/health", "/", "/_ministack/config"):
        request = urllib.request.Request(f"{control}{path}", data=b"{}", method="POST")  # noqa: S310 - our own
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=5)  # noqa: S310 - our own
        assert caught.value.code == 403
    with urllib.request.urlopen(f"{control}/_ministack/health", timeout=5) as answer:  # noqa: S310 - our own
        assert answer.status == 200


def test_everything_listens_on_the_loopback_or_on_private_sockets(mine: CloudStack) -> None:
    layout = Layout(mine.asked.root)
    for daemon in (weed.daemon(layout), ministack.daemon(layout), agent.daemon(layout)):
        found = process.find(daemon)
        assert found is not None
        listening = [
            connection.laddr.ip
            for connection in psutil.Process(found.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert set(listening) <= {"127.0.0.1"}
        secret = mine.connection.secret_key
        assert secret
        assert secret not in " ".join(psutil.Process(found.pid).cmdline())
        assert secret not in daemon.log.read_text(errors="replace")
    assert layout.sockets.stat().st_mode & 0o077 == 0
    for path in layout.folder.iterdir():
        if not path.is_socket():
            assert path.stat().st_mode & 0o077 == 0, path


def test_up_again_changes_nothing(mine: CloudStack) -> None:
    layout = Layout(mine.asked.root)
    before = [process.find(each(layout)) for each in (weed.daemon, ministack.daemon, agent.daemon)]
    mine.client("ecs").list_clusters()
    again = mine.again()
    assert [
        process.find(each(layout)) for each in (weed.daemon, ministack.daemon, agent.daemon)
    ] == before
    assert again.connection == mine.connection
    assert up(mine) == ALL


def test_two_at_once_start_one(mine: CloudStack) -> None:
    assert cloud.down(mine.asked)
    assert up(mine) == set()
    with ThreadPoolExecutor(2) as pool:
        infos = list(pool.map(lambda _: mine.again().connection, range(2)))
    assert infos[0] == infos[1]
    assert up(mine) == ALL


def test_the_control_plane_is_killed(mine: CloudStack) -> None:
    """The front says so; what it knew seconds before is there again."""
    mine.client("sns").create_topic(Name="remembered")
    state = Layout(mine.asked.root).control / "state" / "sns.json"
    wait_for(lambda: state.exists() and "remembered" in state.read_text())
    kill(ministack.daemon(Layout(mine.asked.root)))
    assert up(mine) == ALL - {"control plane"}
    with pytest.raises(ClientError) as caught:
        mine.client("sns").list_topics()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    mine.again()
    assert up(mine) == ALL
    topics = mine.client("sns").list_topics()["Topics"]
    assert any(topic["TopicArn"].endswith(":remembered") for topic in topics)


def test_the_agent_is_killed_and_its_containers_with_it(mine: CloudStack) -> None:
    define(mine, "doomed", memory=512)
    arn = run(mine, "doomed", "children")
    parent = pid(mine, arn)
    child = int(wait_for(lambda: lines(mine, arn)[1:])[0].split()[1])
    kill(agent.daemon(Layout(mine.asked.root)))
    wait_for(lambda: is_gone(parent))
    assert up(mine) == ALL - {"control plane", "ECS stand-in"}
    mine.again()
    assert up(mine) == ALL
    wait_for(lambda: is_gone(child))  # a child of its own outlives it until then
    assert stopped(mine, arn)["containers"][0]["exitCode"] == 137


def test_s3_is_killed(mine: CloudStack) -> None:
    kill(weed.daemon(Layout(mine.asked.root)))
    assert up(mine) == {"control plane", "ECS stand-in"}
    mine.again()
    assert up(mine) == ALL


def test_down_leaves_no_process_whatever_was_killed(mine: CloudStack) -> None:
    layout = Layout(mine.asked.root)
    define(mine, "left", memory=512)
    arn = run(mine, "left", "children")
    parent = pid(mine, arn)
    child = int(wait_for(lambda: lines(mine, arn)[1:])[0].split()[1])
    kill(agent.daemon(layout))
    assert cloud.down(mine.asked)
    wait_for(lambda: is_gone(parent) and is_gone(child))
    assert processes_in(layout.folder) == []
    assert not layout.endpoint.exists()
    assert not layout.sockets.exists()
    assert not cloud.down(mine.asked)
    assert all(
        record.state != "running" or record.pid for record in records.read_all(layout.containers)
    )


def processes_in(folder: Path) -> list[int]:
    """Those that work below a folder."""
    found = []
    for candidate in psutil.process_iter():
        try:
            if Path(candidate.cwd()).is_relative_to(folder.resolve()):
                found.append(candidate.pid)
        except (psutil.Error, OSError):
            continue
    return found


def test_the_emulator_is_installed_whole_or_not_at_all(tmp_path: Path) -> None:
    from lakewarden.local.control.installed import ControlPlaneNotInstalled, folder_of, installed

    nowhere = {"PATH": "/usr/bin:/bin", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
    with pytest.raises(ControlPlaneNotInstalled):
        installed(tmp_path, nowhere)
    assert not folder_of(tmp_path).exists()
    assert installed(CACHE, dict(os.environ)).exists()
    assert machine(tmp_path).cache == CACHE
