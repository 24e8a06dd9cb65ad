"""A thousand tables with their metadata in S3: how long it takes to say that none has drifted."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.dataset import LAYOUTS, template
from benchmarks.site import project_beside
from benchmarks.trial import Detail, Job

TABLES = 1_000
_NAMES = [f"t{number:04d}" for number in range(TABLES)]


def drift(job: Job) -> Callable[[], Detail]:
    """Make the tables, in one publish; then, in an opened project, look at all of them."""
    import lakewarden

    folder = project_beside(Path(job.root), _NAMES[0], _templates())
    lakewarden.open(folder).apply_tables()
    project = lakewarden.open(folder)
    begun = time.perf_counter()
    assert len(project.templates) == TABLES
    read = time.perf_counter() - begun

    def work() -> Detail:
        begun = time.perf_counter()
        assert project.drift() == {}
        return {
            "templates, before": read,
            "drift": time.perf_counter() - begun,
        }

    return work


def _templates() -> dict[str, str]:
    """JSON, which is YAML, by the table's name; the first is a dataset's, as one has to be."""
    return {
        name: json.dumps(
            template(name, LAYOUTS["event_stream"], name if name == _NAMES[0] else None)
        )
        for name in _NAMES
    }
