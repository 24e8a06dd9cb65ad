"""What `up` of the whole stack meets: others that were faster, and ports that were taken."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lakewarden.local import agent, cloud, config, ports, process
from lakewarden.local.containers import images
from lakewarden.local.containers.images import Image
from lakewarden.local.control import ministack
from lakewarden.local.layout import Layout
from lakewarden.local.lock import locked
from lakewarden.local.overlay import HOST
from lakewarden.local.provision import dagster_image
from tests.local.test_cloud_ecs import define, run, stopped, wait_for
from tests.local.test_cloud_faults import ALL, kill, up
from tests.stack import CloudStack, cloud_stack, machine, task_image

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudStack]:
    with cloud_stack(tmp_path_factory.mktemp("cloud up")) as started:
        yield started


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Another command, which has the lock when the next `up` comes to it, and is through with its
    work when that one gets it."""

    def comes_first(other: Callable[[], object]) -> None:
        @contextmanager
        def after_it(path: Path, *, seconds: float) -> Iterator[None]:
            monkeypatch.undo()  # the other one's lock, and ours from now on, is the ordinary one
            other()
            with locked(path, seconds=seconds):
                yield

        monkeypatch.setattr(cloud, "locked", after_it)

    return comes_first


def test_who_waited_for_a_down_starts_all_of_it(
    mine: CloudStack, faster: Callable[[Callable[[], object]], None]
) -> None:
    """A `down` takes the folder of the sockets with it."""
    faster(lambda: cloud.down(mine.asked))
    mine.again()
    assert up(mine) == ALL


def test_a_port_that_was_taken_while_the_agent_was_dead_is_chosen_anew(mine: CloudStack) -> None:
    """Though the control plane runs, which was told of the old one. What it knew stays."""
    here = mine.again()
    here.client("sns").create_topic(Name="remembered")
    kill(agent.daemon(Layout(mine.asked.root)))
    wait_for(lambda: ports.is_free(control_port(here)))  # its threads end a moment after it
    with socket.create_server((HOST, control_port(here))):
        elsewhere = mine.again()
        assert control_port(elsewhere) != control_port(here)
        assert up(mine) == ALL
    told = elsewhere.client("sns").list_topics()["Topics"]
    assert any(topic["TopicArn"].endswith(":remembered") for topic in told)


def test_a_killed_agent_comes_back_at_its_ports_whoever_holds_them_of_its_own(
    mine: CloudStack,
) -> None:
    """What a container started outlives the agent until the next `up`, with the port of its
    service; and the control plane runs on."""
    here = mine.again()
    layout = Layout(mine.asked.root)
    chosen = ports.remembered_cloud(layout)
    assert chosen is not None
    define(here, "parent", memory=512)
    arn = run(here, "parent", f"children {chosen.dagster}")
    wait_for(lambda: not ports.is_free(chosen.dagster))
    before = process.find(ministack.daemon(layout))
    kill(agent.daemon(layout))
    assert here.again().connection == here.connection
    assert process.find(ministack.daemon(layout)) == before
    assert stopped(here, arn)["containers"][0]["exitCode"] == 137


def control_port(stack: CloudStack) -> int:
    port = urlsplit(stack.connection.control or "").port
    assert port is not None
    return port


def test_two_at_once_with_different_parts_start_both(
    mine: CloudStack, faster: Callable[[Callable[[], object]], None]
) -> None:
    """Nothing that one was told to start is taken away by the other."""
    root, layout = mine.asked.root, Layout(mine.asked.root)

    def dagster(port: int) -> Image:
        """Something that answers as fast as Dagster is slow."""
        image = task_image(root)
        serving = {**image.environment, "LAKEWARDEN_TASK": f"serve {port}"}
        return replace(image, environment=serving, takes=(), single=True)

    this = machine(root, dagster=dagster)
    faster(lambda: cloud.up(mine.asked, replace(mine.wanted, dagster=True), this))
    info = cloud.up(mine.asked, mine.wanted, this)
    assert info.dagster is not None
    assert up(mine) == {*ALL, "Dagster"}
    kept = config.read(layout)
    assert kept is not None
    assert kept.dagster
    assert dagster_image(mine.wanted.project) in images.read(layout.images)
