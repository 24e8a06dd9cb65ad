"""The runner, before there is anything to run."""

import json
import shutil
from pathlib import Path

import pytest

from lakewarden.stepfunctions import task
from tests.fakes.control_plane import fake_control_plane

EXAMPLE = Path(__file__).parents[2] / "src" / "lakewarden" / "examples" / "dpc"


@pytest.mark.parametrize("order", ["", '{"action": "rollback", "execution": "x"}'])
def test_who_waits_is_told_that_an_order_is_none(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the execution would wait for a sign of life until its time is over."""
    shutil.copy(EXAMPLE / "lakewarden.toml", tmp_path)
    folder = tmp_path / ".lakewarden" / "local"
    folder.mkdir(parents=True)
    monkeypatch.setenv("LAKEWARDEN_PROJECT", str(tmp_path))
    monkeypatch.delenv("LAKEWARDEN_ENV", raising=False)
    monkeypatch.setenv("LAKEWARDEN_TASK", order)
    monkeypatch.setenv("LAKEWARDEN_TASK_TOKEN", "a token")
    with fake_control_plane() as plane:
        plane.accounts["KEY"] = "000000000000"
        plane.answers["SendTaskFailure"] = {}
        told = {
            "format": 1,
            "endpoint": plane.endpoint,
            "control": plane.endpoint,
            "region": "us-east-1",
            "bucket": "dpc-dev",
            "access_key": "KEY",
            "secret_key": "secret",
        }
        (folder / "endpoint.json").write_text(json.dumps(told))
        assert task.run() == 2
        assert plane.asked("SendTaskFailure") == 1
