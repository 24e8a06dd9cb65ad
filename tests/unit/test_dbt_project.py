"""The digest of a dbt project: what a run's results depend on, and nothing else."""

from pathlib import Path

import pytest

from lakewarden.batch.models.project import (
    DbtProject,
    DbtProjectMissing,
    project_digest,
    read_manifest,
)
from lakewarden.batch.models.runner import DbtProjectInvalid, DbtSite


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "models" / "logs").mkdir(parents=True)
    (tmp_path / "dbt_project.yml").write_text("name: shop")
    (tmp_path / "models" / "sales.sql").write_text("select 1")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["dbt_project.yml", "models/sales.sql", "models/logs/one.sql", "seeds.csv", "m.py"]
)
def test_a_change_in_what_dbt_reads_counts(project: Path, name: str) -> None:
    before = project_digest(project)
    (project / name).write_text("name: shops")
    assert project_digest(project) != before


def test_a_new_name_counts(project: Path) -> None:
    before = project_digest(project)
    (project / "models" / "sales.sql").rename(project / "models" / "logs" / "sales.sql")
    assert project_digest(project) != before


@pytest.mark.parametrize(
    "name",
    ["target/run.sql", "logs/dbt.sql", ".git/x.yml", "dev.duckdb", "models/__pycache__/m.py"],
)
def test_what_dbt_writes_and_what_is_not_its_own_does_not_count(project: Path, name: str) -> None:
    before = project_digest(project)
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text("anything")
    (project / "models" / "sales.sql").touch()
    assert project_digest(project) == before


def test_links_that_lead_nowhere_or_back_are_passed_over(project: Path) -> None:
    before = project_digest(project)
    (project / "models" / ".#sales.sql").symlink_to("somebody@host.42:1")  # the lock of an editor
    (project / "models" / "self.sql").symlink_to("self.sql")
    for name in ("one", "two"):
        (project / "models" / name).symlink_to("..")
        (project / "models" / "logs" / name).symlink_to(project.parent)
    assert project_digest(project) == before


def test_what_dbt_does_not_find_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dbt itself reads the links that lead nowhere, and ends."""
    (project / "models" / "gone.sql").symlink_to("nowhere")

    def parse(*_: object, **__: object) -> None:
        (project / "models" / "gone.sql").stat()

    monkeypatch.setattr("lakewarden.batch.models.project.invoke", parse)
    site = DbtSite(project, project / "site")
    with pytest.raises(DbtProjectInvalid, match=r"gone\.sql"):
        read_manifest(DbtProject(project, project / "cache"), site, variables={})


def test_what_lies_behind_links_counts(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    away = tmp_path_factory.mktemp("away")
    (away / "one.sql").write_text("select 1")
    digests = [project_digest(project)]
    (project / "models" / "away").symlink_to(away)
    digests.append(project_digest(project))
    (project / "models" / "again").symlink_to(away)
    digests.append(project_digest(project))
    (away / "one.sql").write_text("select 2")
    digests.append(project_digest(project))
    (away / "back").symlink_to(project / "models")  # in a circle, through another folder
    assert project_digest(project)
    assert len(set(digests)) == len(digests)


def test_a_folder_without_a_project_is_told(tmp_path: Path) -> None:
    with pytest.raises(DbtProjectMissing, match=r"dbt_project\.yml"):
        project_digest(tmp_path)
