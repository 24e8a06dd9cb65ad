"""The demonstration: what it tells to do next can be done, and it may be given again."""

import json
import shlex
from pathlib import Path

import pytest

from lakewarden.cli.demo_pipeline import PAYLOAD
from tests import needs
from tests.local.test_cli import lakewarden
from tests.local.test_cloud_faults import processes_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

REFUSED = ["size-disagrees", "record-count-mismatch", "too-many-misfits", "tests-failed"]


def test_what_the_demonstration_tells_to_go_on_with(tmp_path: Path) -> None:
    told = lakewarden("demo", "--json", at=tmp_path)
    assert told.code == 0, told
    _, _, misfits, broken = told.json["refused"]
    assert [one["code"] for one in told.json["refused"]] == REFUSED
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


@pytest.mark.timeout(600)
def test_the_same_story_by_executions_of_the_state_machine(tmp_path: Path) -> None:
    needs.java()
    needs.maven()
    told = lakewarden("demo", "--cloud", "--json", at=tmp_path)
    assert told.code == 0, told
    assert [one["code"] for one in told.json["refused"]] == REFUSED
    published = [(one["batch"], one["counts"]["loaded"]) for one in told.json["published"]]
    days = [("2013-01-01", 842), ("2013-01-02", 943), ("2013-01-03", 914), ("2013-01-04", 915)]
    assert published == [("2013-01", 7022), *days]
    assert told.json["branches"] == 0
    ends = [(one["status"], one["states"][-1]) for one in told.json["executions"]]
    good, bad = ("SUCCEEDED", "Done"), ("FAILED", "Failed")
    assert ends == [*[good] * 4, *[bad] * 4, good]
    cut_off, *others = [one["states"] for one in told.json["executions"][4:8]]
    assert "RunDbtTransformations" not in cut_off
    assert all("RunDbtTransformations" in states for states in others)
    folder = tmp_path / "lakewarden-demo-cloud"
    assert json.loads((folder / PAYLOAD).read_text()) == {"dataset": "flights", "batch": days[3][0]}
    assert processes_in(folder) == []
    assert lakewarden("local", "status", at=folder).code == 75


def test_without_maven_it_says_so_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs.java()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    told = lakewarden("demo", "--cloud", "--json", at=tmp_path)
    assert (told.code, told.json["error"]["code"]) == (2, "nessie-missing")
    assert "`lakewarden demo` without --cloud needs none of it" in told.json["error"]["hint"]
    assert not (tmp_path / "lakewarden-demo-cloud").exists()
