"""As a guest in a code location that has assets, resources, an executor and a dbt project of its
own; and as a process of its own, which answers over HTTP."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest

from lakewarden.dagster_defs import definitions
from lakewarden.dagster_defs.process import DagsterCommand, dev_command
from tests.local.dagster_site import AT_ONCE, EXAMPLE, FlightsSite, flights_site
from tests.stack import LocalStack

HOST_PROFILE = """
host:
  target: here
  outputs: {here: {type: duckdb, path: host.duckdb}}
"""


@pytest.fixture
def site(local_stack: LocalStack, tmp_path: Path) -> FlightsSite:
    return flights_site(local_stack, tmp_path / "flights")


def host_dbt(folder: Path) -> Path:
    """The host's own dbt project: its model has the name of one of ours."""
    files = {
        "dbt_project.yml": "{name: host, version: '1.0', profile: host}",
        "profiles.yml": HOST_PROFILE.replace("host.duckdb", str(folder / "host.duckdb")),
        "models/daily_delays.sql": "select 7 as answer",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def host(folder: Path) -> dg.Definitions:
    """Their keys, names and resources are those that ours would be called without a prefix."""

    class Answer(dg.ConfigurableResource[int]):
        value: int

    @dg.asset(key=["raw", "flights"])
    def flights(dbt: Answer) -> int:
        return dbt.value

    @dg.asset(key=["marts", "daily_delays"], deps=[flights])
    def lakewarden_flights() -> None:
        from dbt.cli.main import dbtRunner

        where = [f"--project-dir={folder}", f"--profiles-dir={folder}", "--quiet"]
        quiet = [f"--log-path={folder}", f"--target-path={folder}", "--log-level=none"]
        assert dbtRunner().invoke(["build", *where, *quiet]).success

    # Downstream of a table of ours.
    @dg.asset(deps=[dg.AssetKey(["lake", "marts", "daily_delays"])])
    def report(context: dg.AssetExecutionContext) -> None:
        context.log.info("reported")

    @dg.sensor(name="schema_drift_sensor", target=[flights])
    def theirs() -> dg.SkipReason:
        return dg.SkipReason("theirs")

    return dg.Definitions(
        assets=[flights, lakewarden_flights, report],
        sensors=[theirs],
        jobs=[dg.define_asset_job("lakewarden_flights_batches", selection=[flights])],
        resources={"dbt": Answer(value=7), "io_manager": dg.mem_io_manager},
        executor=dg.in_process_executor,
    )


def test_a_guest_changes_nothing_of_its_host(site: FlightsSite, tmp_path: Path) -> None:
    own = host(host_dbt(tmp_path / "host"))
    guest = definitions(site.project, key_prefix="lake", retry=AT_ONCE)
    merged = dg.Definitions.merge(own, guest)
    dg.Definitions.validate_loadable(merged)
    assert merged.executor is own.executor
    assert merged.resources == own.resources
    keys = {key.to_user_string() for key in merged.resolve_asset_graph().get_all_asset_keys()}
    assert {"raw/flights", "marts/daily_delays", "report"} <= keys
    assert {"lake/raw/flights", "lake/marts/daily_delays"} <= keys

    site.deliver("2013-01-01")
    theirs = merged.resolve_implicit_global_asset_job_def()
    ours = merged.resolve_job_def("lake_lakewarden_flights_batches")
    for _ in range(2):  # two dbt projects in one process, one after the other
        assert theirs.execute_in_process(
            asset_selection=[
                dg.AssetKey(["raw", "flights"]),
                dg.AssetKey(["marts", "daily_delays"]),
            ],
            instance=site.instance,
        ).success
        assert ours.execute_in_process(instance=site.instance, partition_key="2013-01-01").success
    (publication,) = site.project.lake.publications("flights")
    assert publication.contribution.counts["loaded"] == 842


# ── a process of its own ────────────────────────────────────────────────────────────────────────


@contextmanager
def started(command: DagsterCommand, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = (folder / "dagster.log").open("wb")
    process = subprocess.Popen(
        [*command.argv],
        env={**os.environ, **command.environment},
        cwd=folder,
        stdout=log,
        stderr=log,
        start_new_session=True,
        preexec_fn=ignore_interrupts,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def ignore_interrupts() -> None:
    """As a shell has it for what it starts in the background; SIGTERM has to end it even so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(url: str, query: str) -> Mapping[str, object]:
    body = json.dumps({"query": query}).encode()
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/graphql", body, head)  # noqa: S310 - our own loopback
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own loopback
        found: Mapping[str, object] = json.load(answer)["data"]
    return found


def wait_until_it_answers(process: subprocess.Popen[bytes], url: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process.poll() is None, "it ended"
        try:
            urllib.request.urlopen(f"{url}/server_info", timeout=5).close()  # noqa: S310 - our own
        except OSError:
            time.sleep(0.2)
            continue
        return
    raise AssertionError(f"{url} did not answer within {seconds} s")


LOCATION = """{
  workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    __typename ... on PythonError { message } } } } }
  assetNodes { assetKey { path } isMaterializable }
}"""


@pytest.mark.slow
def test_dagster_dev_answers_without_the_stack_and_ends_whole(tmp_path: Path) -> None:
    site = flights_site_without_a_stack(tmp_path / "flights")
    command = dev_command(site, "dev", port=free_port())
    assert command.url.startswith("http://127.0.0.1:")
    with started(command, tmp_path) as process:
        wait_until_it_answers(process, command.url, 150)
        found = ask(command.url, LOCATION)
        (location,) = found["workspaceOrError"]["locationEntries"]  # type: ignore[index] # JSON
        assert location["locationOrLoadError"] == {"__typename": "RepositoryLocation"}
        keys = {"/".join(one["assetKey"]["path"]) for one in found["assetNodes"]}  # type: ignore[attr-defined] # JSON
        assert {"raw/flights", "marts/daily_delays"} <= keys
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2  # the web server and the daemon, at the least
        listening = [c for one in family for c in one.net_connections() if c.status == "LISTEN"]
        assert listening and {c.laddr.ip for c in listening} == {"127.0.0.1"}
        process.terminate()
        process.wait(60)
        _, left = psutil.wait_procs(family, timeout=60)
        assert left == []
    home = site / ".lakewarden" / "dagster"
    assert "enabled: false" in (home / "dagster.yaml").read_text()
    assert not (home / ".telemetry").exists() and not (home / "logs").exists()
    assert home.stat().st_mode & 0o777 == 0o700


def flights_site_without_a_stack(root: Path) -> Path:
    shutil.copytree(EXAMPLE, root)
    return root


def test_the_command_line_tells_what_it_would_start(tmp_path: Path) -> None:
    root = flights_site_without_a_stack(tmp_path / "flights")
    line = [sys.executable, "-m", "lakewarden", "dagster", "dev", "--json", "--project", str(root)]
    answer = subprocess.run(line, check=True, capture_output=True, text=True)
    found = json.loads(answer.stdout)
    command = dev_command(root, "dev")
    assert found == {
        "url": command.url,
        "argv": list(command.argv),
        "environment": dict(command.environment),
    }
