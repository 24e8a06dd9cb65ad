"""The local stack's ports."""

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.local import ports
from lakewarden.local.layout import Layout
from lakewarden.local.ports import NoFreePorts, choose, is_free, pick, remembered


@given(st.lists(st.integers(12_000, 21_999), unique=True), st.sets(st.integers(12_000, 21_999)))
def test_the_first_five_that_are_free(candidates: list[int], taken: set[int]) -> None:
    free = [port for port in candidates if port not in taken]
    if len(free) < 5:
        with pytest.raises(NoFreePorts):
            pick(iter(candidates), lambda port: port not in taken)
        return
    found = pick(iter(candidates), lambda port: port not in taken)
    assert [found.master, found.volume, found.filer, found.s3, found.admin] == free[:5]


def test_a_port_and_its_grpc_neighbour_belong_together(tmp_path: Path) -> None:
    port = choose(_layout(tmp_path)).master
    assert is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
    with socket.create_server(("127.0.0.1", port + 10_000)):
        assert not is_free(port)


def test_they_are_remembered_while_they_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "LINGER_SECONDS", 0)
    layout = _layout(tmp_path)
    assert remembered(layout) is None
    chosen = choose(layout)
    assert choose(layout) == chosen == remembered(layout)
    with socket.create_server(("127.0.0.1", chosen.filer)):
        other = choose(layout)
    assert chosen.filer not in (other.master, other.volume, other.filer, other.s3, other.admin)
    assert choose(layout) == other == remembered(layout)


def test_what_was_remembered_may_be_damaged(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    layout.ports.write_text("{")
    assert choose(layout) == remembered(layout)


def _layout(root: Path) -> Layout:
    layout = Layout(root)
    layout.make()
    return layout


def test_ports_of_the_cloud_are_others_and_are_remembered(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    s3 = choose(layout)
    beside = ports.choose_cloud(layout, in_use=False)
    taken = [s3.master, s3.volume, s3.filer, s3.s3, s3.admin]
    found = [beside.control, beside.nessie, beside.nessie_management, beside.dagster]
    assert len({*taken, *found}) == 9
    assert ports.choose_cloud(layout, in_use=False) == beside
    with socket.create_server(("127.0.0.1", beside.control)):
        assert ports.choose_cloud(layout, in_use=True) == beside  # our own has it
