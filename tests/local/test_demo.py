"""The demonstration: what it tells to do next can be done, and it may be given again."""

import shlex
from pathlib import Path

import pytest

from tests.local.test_cli import lakewarden

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_what_the_demonstration_tells_to_go_on_with(tmp_path: Path) -> None:
    told = lakewarden("demo", "--json", at=tmp_path)
    assert told.code == 0, told
    _, _, misfits, broken = told.json["refused"]
    assert (misfits["code"], broken["code"]) == ("too-many-misfits", "tests-failed")
    folder = tmp_path / "lakewarden-demo"
    assert lakewarden("local", "up", at=folder).code == 0
    try:
        for one in (misfits, broken):
            program, *args = shlex.split(one["next"])
            assert program == "lakewarden"
            answer = lakewarden(*args, at=folder)
            assert answer.code == 0, answer
        assert len(lakewarden("lake", "branches", "--json", at=folder).json) == 1
        (folder / "notes.txt").write_text("mine")
        again = lakewarden("demo", "--json", at=tmp_path)
        assert (again.code, again.json["error"]["code"]) == (2, "folder-taken")
        assert lakewarden("local", "status", at=folder).code == 0, "no stack was stopped"
        (folder / "notes.txt").unlink()
        assert lakewarden("demo", "--json", at=tmp_path).code == 0
    finally:
        assert lakewarden("local", "down", at=folder).code == 0
