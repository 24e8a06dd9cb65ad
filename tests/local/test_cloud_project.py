"""A project on the whole stack, by the command line: a delivery that arrives is published by the
state machine, its functions and a real task; Dagster runs beside it, as a service of ECS."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lakewarden import wiring
from lakewarden.cli.flights_data import write_delivery
from lakewarden.local.layout import Layout
from tests.local.test_cloud_ecs import wait_for
from tests.local.test_cloud_faults import processes_in
from tests.local.test_dagster_guest import LOCATION, ask

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]


def lakewarden(*words: str, project: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lakewarden", *words],
        cwd=project,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_delivery_that_arrives_is_published(tmp_path: Path) -> None:
    project = tmp_path / "flights"
    lakewarden("init", str(project), "--example", "flights", project=tmp_path)
    try:
        told = json.loads(lakewarden("local", "up", "--dagster", "--json", project=project))
        assert told["control"].startswith("http://127.0.0.1:")
        nodes: Any = ask(told["dagster"], LOCATION)["assetNodes"]
        assert ["raw", "flights"] in [node["assetKey"]["path"] for node in nodes]
        assert "MiB of memory in all" in lakewarden("local", "up", project=project)
        lakewarden("table", "apply", project=project)
        folder = write_delivery(date(2013, 1, 1), tmp_path / "day").parent
        lakewarden("batch", "deliver", "flights", "2013-01-01", str(folder), project=project)
        opened = wiring.open_project(project)
        machines = opened.client("stepfunctions")
        arn = opened.arn("states", f"stateMachine:{opened.names.pipeline}")

        def status() -> str:
            found = machines.list_executions(stateMachineArn=arn)["executions"]
            return str(found[0]["status"]) if found else ""

        wait_for(lambda: status() not in ("", "RUNNING"), 150)
        assert status() == "SUCCEEDED"
        [run] = json.loads(lakewarden("batch", "list", "--json", project=project))
        assert (run["batch"], run["outcome"]) == ("2013-01-01", "published")
        assert "version" in lakewarden("local", "logs", "runner", project=project)
        states = lakewarden("local", "status", project=project)
        state = {line.split("  ")[0]: line.split()[1] for line in states.splitlines()}
        assert (state["Dagster"], state["Nessie"]) == ("up", "-")
    finally:
        lakewarden("local", "down", project=project)
    assert processes_in(Layout(project).folder) == []
