"""A process that publishes one batch after the other, for tests of runs that share tables.

    python -m tests.local.contention ROOT DATASET SECONDS LEAST

Runs batches of a dataset until the time is over, and at least so many; prints a line of JSON a
batch: how long it took, and how often it was staged.
"""

import json
import shutil
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import structlog

import lakewarden
from lakewarden.batch.conductor import StageDone


def main(root: Path, dataset: str, seconds: float, least: int) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    project = lakewarden.open(root)
    folder = root / f"delivery-{dataset}"
    end = time.monotonic() + seconds
    number = 0
    while number < least or time.monotonic() < end:
        batch = str(date(2024, 1, 1) + timedelta(days=number))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        rows = "".join(f"{n},{number}\n" for n in range(5))
        (folder / "sales.csv").write_text(f"id,amount\n{rows}")
        project.deliver(dataset, batch, folder)
        staged: list[str] = []

        def tell(done: StageDone, staged: list[str] = staged) -> None:
            staged.append(done.stage)

        began = time.monotonic()
        outcome = project.run(dataset, batch, tell=tell)
        told = {
            "status": outcome.status,
            "seconds": time.monotonic() - began,
            "staged": staged.count("transform"),
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
