"""Faults are injected on this machine only."""

import pytest

from tests.faults import faulty_proxy


@pytest.mark.parametrize(
    "target",
    [
        "https://s3.eu-west-1.amazonaws.com",
        "http://10.0.0.7:8333",
        "http://127.0.0.1.example.com",
        "http://0.0.0.0:8333",
        "",
    ],
)
def test_no_fault_stands_before_another_machine(target: str) -> None:
    with pytest.raises(ValueError, match="this machine only"), faulty_proxy(target):
        pass
