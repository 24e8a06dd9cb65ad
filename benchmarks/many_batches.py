"""Three hundred tiny batches of one table, one after the other: what grows with their number."""

import csv
import json
import time
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.dataset import DAY, LAYOUTS, template
from benchmarks.site import project_beside
from benchmarks.trial import Detail, Job

BATCHES = 300
_NAME = "many_batches"
_SOME = 5
_AGAIN = BATCHES // 2


def run(job: Job) -> Callable[[], Detail]:
    """All of them; then one in the middle once more, with a record less."""
    import lakewarden

    text = json.dumps(template(_NAME, LAYOUTS["sales"], _NAME))
    folder = project_beside(Path(job.root), _NAME, {_NAME: text})
    project = lakewarden.open(folder)
    days = [str(date.fromisoformat(DAY) + timedelta(days=number)) for number in range(BATCHES)]
    for day in days:
        project.deliver(_NAME, day, Path(job.csv).parent)

    def work() -> Detail:
        batches = [_one(project, day) for day in days]
        first, last = batches[1 : 1 + _SOME], batches[-_SOME:]  # the very first makes the table
        before = _stored(project)
        _deliver_less(project, days[_AGAIN], Path(job.csv), folder)
        again = _one(project, days[_AGAIN])
        new = {key: size for key, size in _stored(project).items() if key not in before}
        return {
            "first": _median(first, "all"),
            "last": _median(last, "all"),
            **{
                f"{stage} grows by": _median(last, stage) - _median(first, stage)
                for stage in ("receive", "load", "publish")
            },
            "again": again["all"],
            "metadata bytes": float(_metadata_bytes(project)),
            "again, data files": float(sum("/data/" in key for key in new)),
            "again, data bytes": float(sum(size for key, size in new.items() if "/data/" in key)),
            "again, metadata bytes": float(
                sum(size for key, size in new.items() if "/metadata/" in key)
            ),
        }

    return work


def _one(project: Any, day: str) -> dict[str, float]:
    stages: dict[str, float] = {}
    begun = time.perf_counter()
    outcome = project.run(_NAME, day, tell=lambda done: stages.update({done.stage: done.seconds}))
    assert outcome.status == "published", outcome.status
    return {**stages, "all": time.perf_counter() - begun}


def _median(batches: Sequence[dict[str, float]], stage: str) -> float:
    return median(one[stage] for one in batches)


def _deliver_less(project: Any, day: str, delivered: Path, folder: Path) -> None:
    shorter = folder / "again" / delivered.name
    shorter.parent.mkdir()
    with delivered.open(newline="") as source, shorter.open("w", newline="") as target:
        csv.writer(target).writerows(list(csv.reader(source))[:-1])
    project.deliver(_NAME, day, shorter.parent)


def _stored(project: Any) -> dict[str, int]:
    return {one.key: one.size for one in project.objects.list(f"warehouse/raw/{_NAME}/")}


def _metadata_bytes(project: Any) -> int:
    location = project.pin().tables[f"raw.{_NAME}"]
    key = location.removeprefix(f"s3://{project.objects.bucket}/")
    return len(project.objects.get(key).body)
