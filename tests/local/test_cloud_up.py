"""What `up` of the whole stack meets: others that were faster, and ports that were taken."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lakewarden.local import cloud
from lakewarden.local.lock import locked
from tests.local.test_cloud_faults import ALL, up
from tests.stack import CloudStack, cloud_stack

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
