"""Dagster's definitions of the examples, as they are made: no stack runs, and none is asked."""

import re
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

import lakewarden
from lakewarden.dagster_defs import definitions
from lakewarden.dagster_defs.assembly import FirstBatchUnsaid
from lakewarden.wiring import Project
from tests.local.dagster_site import EXAMPLE

SNAPSHOT = Path(__file__).parent / "dagster_definitions.txt"
DUE = """due = { at = "06:00", zone = "Asia/Tokyo", grace = "90m", first = 2013-01-01 }
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The flights of the example, with a calendar. There is no stack that it could ask."""
    root = tmp_path_factory.mktemp("definitions") / "flights"
    shutil.copytree(EXAMPLE, root)
    settings = root / "lakewarden.toml"
    text = settings.read_text().replace(
        'tables = { flights = "flights*.csv*" }\n', 'tables = { flights = "flights*.csv*" }\n' + DUE
    )
    settings.write_text(text)
    return lakewarden.open(root)


def told(defs: dg.Definitions) -> Iterator[str]:
    """One line a thing, in a stable order."""
    graph = defs.resolve_asset_graph()
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        yield f"asset {key.to_user_string()}"
        yield f"  group {node.group_name}; kinds {', '.join(sorted(node.kinds))}"
        if node.partitions_def:
            yield f"  partitions {partitions(node.partitions_def)}"
        if node.freshness_policy:
            policy = node.freshness_policy
            assert isinstance(policy, dg.FreshnessPolicy)
            yield f"  fresh by {getattr(policy, 'deadline_cron', policy)}"
        for parent in sorted(node.parent_keys):
            yield f"  from {parent.to_user_string()}"
        for check in sorted(node.check_keys):
            yield f"  check {check.name}"
    for job in sorted(defs.jobs or [], key=lambda one: one.name):
        yield f"job {job.name}"
    for sensor in sorted(defs.sensors or [], key=lambda one: one.name):
        every = sensor.minimum_interval_seconds
        yield f"sensor {sensor.name}: every {every} s, {sensor.default_status.value.lower()}"
    for one in sorted(defs.schedules or [], key=lambda one: one.name):
        assert isinstance(one, dg.ScheduleDefinition)
        status = one.default_status.value.lower()
        yield f"schedule {one.name}: {one.cron_schedule} {one.execution_timezone}, {status}"


def partitions(found: dg.PartitionsDefinition[str]) -> str:
    assert isinstance(found, dg.TimeWindowPartitionsDefinition)
    return f"{found.fmt} from {found.get_first_partition_key()} in {found.timezone}"


def test_the_definitions_are_as_they_were(project: Project) -> None:
    """`SNAPSHOT` is what they were: look at the difference before you write it anew."""
    text = "\n".join(told(definitions(project))) + "\n"
    assert text == SNAPSHOT.read_text("utf-8")


def test_a_prefix_stands_before_every_name(project: Project) -> None:
    plain = "\n".join(told(definitions(project)))
    prefixed = "\n".join(told(definitions(project, key_prefix=["north", "lake"])))
    assert prefixed == re.sub(
        r"^(  group |job |sensor |schedule )",
        r"\1north_lake_",
        re.sub(r"^(asset |  from )", r"\1north/lake/", plain, flags=re.MULTILINE),
        flags=re.MULTILINE,
    )


def test_running_turns_everything_on(project: Project) -> None:
    lines = [line for line in told(definitions(project, running=True)) if ": " in line]
    assert lines and all(line.endswith(", running") for line in lines)


def test_partitions_are_the_projects_own_keys(project: Project) -> None:
    defs = definitions(project, first={"flights": date(2026, 1, 30)})
    flights = defs.resolve_asset_graph().get(dg.AssetKey(["raw", "flights"])).partitions_def
    planes = defs.resolve_asset_graph().get(dg.AssetKey(["raw", "planes"])).partitions_def
    assert flights is not None and planes is not None
    for form, found in (("flights", flights), ("reference", planes)):
        keys = found.get_partition_keys()
        assert [project.key(form, key) for key in keys] == keys
    assert flights.get_partition_keys()[:2] == ["2026-01-30", "2026-01-31"]
    assert planes.get_partition_keys()[0] == "2013-01"


def test_where_partitions_begin_has_to_be_said(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "unsaid"
    shutil.copytree(project.root, root, ignore=shutil.ignore_patterns(".lakewarden"))
    settings = root / "lakewarden.toml"
    settings.write_text(settings.read_text().partition("[dagster]")[0])
    with pytest.raises(FirstBatchUnsaid, match="reference"):
        definitions(lakewarden.open(root))
