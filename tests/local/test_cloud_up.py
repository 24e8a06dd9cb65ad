"""What `up` of the whole stack meets: others that were faster, and ports that were taken."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lakewarden.local import cloud, config
from lakewarden.local.containers import images
from lakewarden.local.containers.images import Image
from lakewarden.local.layout import Layout
from lakewarden.local.lock import locked
from lakewarden.local.provision import dagster_image
from tests.local.test_cloud_faults import ALL, up
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
