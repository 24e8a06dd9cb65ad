"""Whether dbt reads the project's models."""

import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

from lakewarden.batch.duck import DuckConfig
from lakewarden.batch.models.project import DbtProject, graph_of, read_manifest
from lakewarden.batch.models.runner import prepare_site
from lakewarden.batch.models.selection import Kind
from lakewarden.checkup import Answer


def check_models(project: DbtProject) -> Answer:
    """Parse the project, or take it from the cache. Raises DbtProjectInvalid, ModelMarkInvalid."""
    with tempfile.TemporaryDirectory(prefix="lakewarden-") as folder:
        site = prepare_site(project.folder, Path(folder) / "dbt", DuckConfig(Path(folder) / "duck"))
        variables = {"batches": [], "dataset": ""}
        graph = graph_of(read_manifest(project, site, variables=variables))
    kinds = Counter(node.kind for node in graph.values())
    marked = sum(1 for node in graph.values() if node.mark)
    return Answer(
        f"dbt {version('dbt-core')}, {kinds[Kind.MODEL]} models ({marked} written to the lake),"
        f" {kinds[Kind.TEST]} tests"
    )
