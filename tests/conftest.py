"""Fixtures for every room's tests."""

import signal
from collections.abc import Iterator

import pytest

from lakewarden.local.stack import StackConfig, up
from tests.stack import CloudStack, LocalStack, cloud_stack, throw_away

# A shell starts what it puts in the background with Ctrl-C ignored, and children inherit that;
# tests that send it have to be heard all the same.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def local_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A real SeaweedFS, started once and ended with the session."""
    config = StackConfig(tmp_path_factory.mktemp("local stack"), "lakewarden-tests", "us-east-1")
    try:
        yield LocalStack(up(config).connection)
    finally:
        throw_away(config)


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudStack]:
    """S3, the control plane and ECS, started once and ended with the session."""
    with cloud_stack(tmp_path_factory.mktemp("cloud stack")) as started:
        yield started
