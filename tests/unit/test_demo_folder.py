"""The demonstration's folder is made anew, and never with somebody's work in it."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lakewarden.cli.demo import to_have_the_command
from lakewarden.cli.demo_folder import FolderTaken, make_project, record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As a demonstration leaves it."""
    folder = tmp_path / "lakewarden-demo"
    make_project(folder)
    write(folder / "deliveries" / "2013-01-01" / "flights.csv")
    record(folder)
    return folder


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("something")


def write_five(folder: Path) -> None:
    for name in "abcde":
        write(folder / name)


def everything(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.name != "demo.json")


def test_what_a_demonstration_left_is_made_anew(folder: Path) -> None:
    write(folder / ".lakewarden" / "catalog.db")
    write(folder / "transform" / "target" / "manifest.json")
    write(folder / "transform" / "logs" / "dbt.log")
    (folder / "README.md").unlink()
    make_project(folder)
    assert (folder / "README.md").exists()
    left = {path.name for path in everything(folder)}
    assert not left & {"deliveries", "catalog.db", "target", "logs"}
    make_project(folder)


FOREIGN: list[tuple[Callable[[Path], None], str]] = [
    (lambda at: write(at / "notes.txt"), r": notes.txt$"),
    (lambda at: write(at / "my-lake" / "tables" / "a.yaml"), r": my-lake/$"),
    (lambda at: write(at / "transform" / "models" / "mine" / "a.sql"), r"models/mine/$"),
    (lambda at: write(at / "deliveries" / "2013-01-06" / "a.csv"), r"deliveries/2013-01-06/$"),
    (lambda at: write(at / "lakewarden.toml"), r": lakewarden.toml$"),
    (lambda at: (at / "elsewhere").symlink_to(at.parent), r": elsewhere$"),
    (write_five, r": a, b, c, and 2 more$"),
]


@pytest.mark.parametrize(("change", "told"), FOREIGN)
def test_somebodys_work_stays_and_is_named(
    folder: Path, change: Callable[[Path], None], told: str
) -> None:
    change(folder)
    before = everything(folder)
    with pytest.raises(FolderTaken, match=told) as caught:
        make_project(folder)
    assert "--dir" in (caught.value.hint or "")
    assert everything(folder) == before


def test_another_folder_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path / "full" / "notes.txt")
    write(tmp_path / "file")
    for name in ("full", "file"):
        with pytest.raises(FolderTaken, match="not empty"):
            make_project(tmp_path / name)


def test_the_command_is_found_from_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "my venv" / "bin"
    write(programs / "activate")
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert to_have_the_command() == [". 'my venv/bin/activate'"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert to_have_the_command() == [f". {shlex.quote(str(programs / 'activate'))}"]
    (programs / "activate").unlink()
    assert to_have_the_command() == [f'PATH={shlex.quote(str(programs))}:"$PATH"']
    program = programs / "lakewarden"
    write(program)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    assert to_have_the_command() == []
