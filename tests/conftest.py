"""Fixtures for every room's tests."""

from collections.abc import Iterator

import pytest

from lakewarden.local.stack import StackConfig, down, up
from tests.stack import LocalStack


@pytest.fixture(scope="session")
def local_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A real SeaweedFS, started once and ended with the session."""
    config = StackConfig(tmp_path_factory.mktemp("local stack"), "lakewarden-tests", "us-east-1")
    try:
        yield LocalStack(up(config).connection)
    finally:
        down(config)
