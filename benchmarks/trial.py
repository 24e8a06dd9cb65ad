"""One job in a process of its own, and what it cost: time, CPU, memory, the store's CPU.

`python -m benchmarks.trial NAME JSON` does the job and prints what it cost. What comes before the
clock starts (imports, connections, a small one of the same kind) is each job's own `prepare`.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil

Detail = Mapping[str, float | Mapping[str, float]]


@dataclass(frozen=True)
class Job:
    """What a job is told. `table` and `form` mean something to some of them only."""

    root: str
    csv: str
    rows: int
    store: int  # process id
    table: str = "sales"
    form: str = ""
    models: bool = False

    def of(self, *, form: str = "", models: bool = False) -> "Job":
        return replace(self, form=form or self.form, models=models)


@dataclass(frozen=True)
class Cost:
    """Seconds; `cpu` of the job's process, `store_cpu` of SeaweedFS, `others_cpu` of whatever
    else was running on this machine meanwhile; `peak_mib` of the process's resident memory."""

    seconds: float
    cpu: float
    store_cpu: float
    others_cpu: float
    peak_mib: float
    detail: Detail = field(default_factory=dict)


def run(name: str, job: Job) -> Cost:
    """Do a job in a new process; its errors go to standard error."""
    os.sync()  # what was written before this is not this job's to write
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.trial", name, json.dumps(asdict(job))],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


@dataclass(frozen=True)
class _Clock:
    wall: float
    own: float
    store: float
    machine: float

    @classmethod
    def read(cls, store: int) -> "_Clock":
        own = resource.getrusage(resource.RUSAGE_SELF)
        of_store = psutil.Process(store).cpu_times()
        all_of_it = psutil.cpu_times()
        return cls(
            time.perf_counter(),
            own.ru_utime + own.ru_stime,
            of_store.user + of_store.system,
            sum(all_of_it) - all_of_it.idle - getattr(all_of_it, "iowait", 0.0),
        )


def _main(name: str, job: Job) -> None:
    from benchmarks.jobs import JOBS

    work = JOBS[name](job)
    begun = _Clock.read(job.store)
    detail = work()
    ended = _Clock.read(job.store)
    own, store = ended.own - begun.own, ended.store - begun.store
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost = Cost(
        seconds=ended.wall - begun.wall,
        cpu=own,
        store_cpu=store,
        others_cpu=max(0.0, ended.machine - begun.machine - own - store),
        peak_mib=peak / (1 << 20 if sys.platform == "darwin" else 1 << 10),
        detail=detail,
    )
    print(json.dumps(asdict(cost)))


if __name__ == "__main__":
    _main(sys.argv[1], Job(**json.loads(sys.argv[2])))
