"""One batch, whatever starts it and whatever catalog it is on: equal rows, receipts, refusals."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

import lakewarden
from lakewarden.cli.init import write_example
from lakewarden.dagster_defs import definitions
from lakewarden.wiring import Project
from tests.local.parity import EXAMPLES, FrontEnd, Record, Told, live
from tests.local.pipeline_site import Site, pipeline_site
from tests.local.shop import connect_project
from tests.local.test_cli import lakewarden as command
from tests.local.test_nessie import use_nessie
from tests.nessie import Nessie, nessie
from tests.stack import LocalStack

__all__ = ["nessie"]  # pytest finds the fixture here

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CATALOGS = ("sql", "nessie")
_KINDS = {1: "failed", 3: "refused", 75: "waiting"}


@dataclass(frozen=True)
class CommandLine:
    """`lakewarden batch run`, as a person types it."""

    project: Project

    def run(self, dataset: str, batch: str) -> Told:
        answer = command("batch", "run", dataset, batch, "--json", at=self.project.root)
        told = json.loads(answer.out)
        if answer.code == 0:
            return Told(told["status"])
        error = told["error"]
        return Told(_KINDS[answer.code], error["code"], error["message"])


@dataclass
class StepFunctions:
    """An execution of the pipeline; what it told the topic."""

    site: Site

    def run(self, dataset: str, batch: str) -> Told:
        execution = self.site.start(dataset, batch)
        ended = execution.end()
        (notice,) = self.site.notices()
        if ended["status"] == "SUCCEEDED":
            return Told(notice["outcome"])
        assert ended["error"] == notice["error"]["name"]
        assert notice["error"]["message"] in ended["cause"]
        return Told("refused", notice["error"]["code"], notice["error"]["message"])


@dataclass
class Dagster:
    """A materialization of the batch's partition."""

    project: Project
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)

    def run(self, dataset: str, batch: str) -> Told:
        job = definitions(self.project).resolve_job_def(f"lakewarden_{dataset}_batches")
        key = batch if len(batch) == len("2013-01-01") else f"{batch}-01"
        key = batch if batch in self._keys(job) else key
        result = job.execute_in_process(
            instance=self.instance, partition_key=key, raise_on_error=False
        )
        if result.success:
            (status,) = {
                event.step_materialization_data.materialization.metadata["status"].value
                for event in result.all_events
                if event.is_step_materialization
            }
            return Told(str(status))
        (failed,) = [event for event in result.all_events if event.is_step_failure]
        failure = failed.step_failure_data.user_failure_data
        assert failure is not None
        told = {name: str(value.value) for name, value in failure.metadata.items()}
        return Told("refused", told["code"], told["message"])

    def _keys(self, job: dg.JobDefinition) -> set[str]:
        found = job.partitions_def
        return set(found.get_partition_keys()) if found else set()


Way = tuple[str, str]  # a front end, and a catalog
PLAIN: Way = ("command line", "sql")
OTHERS: tuple[Way, ...] = tuple(
    (front_end, catalog)
    for front_end in ("command line", "dagster", "step functions")
    for catalog in CATALOGS
    if (front_end, catalog) != PLAIN
)


@dataclass(frozen=True)
class Places:
    """Where a story can be lived through."""

    folder: Path
    stack: LocalStack
    nessie: Callable[[], Nessie]  # started when it is first asked for

    def live(self, example: str, way: Way) -> Record:
        front_end, catalog = way
        root = self.folder / f"{example} {front_end} {catalog}".replace(" ", "-")
        write_example(example, root)
        if front_end == "step functions":
            with self._pipeline(root, example, catalog) as site:
                return live(root, example, lambda _: StepFunctions(site))
        server = self.nessie() if catalog == "nessie" else None
        bucket = server.bucket if server else self.stack.bucket()
        connect_project(root, self.stack.connection, bucket)
        if server:  # whose bucket is the one that its warehouse lies in
            use_nessie(root, server)
            objects = lakewarden.open(root).objects
            for one in list(objects.list("")):
                objects.delete(one.key)
        made: Callable[[Project], FrontEnd] = {"command line": CommandLine, "dagster": Dagster}[
            front_end
        ]
        return live(root, example, made)

    @contextmanager
    def _pipeline(self, root: Path, example: str, catalog: str) -> Iterator[Site]:
        """A whole stack of its own, as `local up --cloud` makes it."""
        settings = root / "lakewarden.toml"
        text = re.sub(r'(?m)^bucket = "[^"]*"', f'bucket = "{example}-dev"', settings.read_text())
        if catalog == "nessie":
            text = re.sub(r"(?m)^catalog = .*", 'catalog = { type = "nessie" }', text)
        settings.write_text(text)
        # Nobody is killed here, and a machine under load may take long to start a runner.
        with pipeline_site(root, example, nessie=catalog == "nessie", heartbeat=120) as site:
            yield site


@pytest.fixture(scope="module")
def places(
    local_stack: LocalStack,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Places:
    def server() -> Nessie:
        found: Nessie = request.getfixturevalue("nessie")
        return found

    return Places(tmp_path_factory.mktemp("parity"), local_stack, server)


@pytest.fixture(scope="module", params=EXAMPLES)
def plain(places: Places, request: pytest.FixtureRequest) -> tuple[str, Record]:
    """What the others have to agree with: the command line on the SQL catalog."""
    return request.param, places.live(request.param, PLAIN)


def test_the_story_has_something_of_everything(plain: tuple[str, Record]) -> None:
    _, record = plain
    assert {"published", "unchanged", "refused"} == {one.status for one in record.told.values()}
    assert all(record.receipts.values())
    assert len(set(record.tables.values())) == len(record.tables) > 5


@pytest.mark.parametrize("way", OTHERS, ids=" on ".join)
def test_it_is_the_same_every_way(places: Places, plain: tuple[str, Record], way: Way) -> None:
    example, expected = plain
    found = places.live(example, way)
    assert found.told == expected.told
    for title, receipts in expected.receipts.items():
        assert found.receipts[title] == receipts, title
    assert found.tables == expected.tables
