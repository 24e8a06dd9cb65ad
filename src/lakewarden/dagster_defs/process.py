"""Dagster of one project as a process: its command line, its environment and its home.

`dagster dev` is the web server, the daemon that evaluates sensors and schedules, and the code
location, on the loopback. Its storage is SQLite, under the project's `.lakewarden/dagster`.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lakewarden.errors import WrongUsage

PORT = 3000
_HOST = "127.0.0.1"
_DAGSTER = "lakewarden.dagster_defs"  # see __main__.py
_LOCATION = "lakewarden.dagster_defs.location"
_NEEDED = ("dagster", "dagster_webserver")
_CONFIG = """\
# Made by `lakewarden dagster dev`, and left as it is from then on.
telemetry:
  enabled: false
nux: # questions of the web page that would be sent on
  enabled: false
freshness:
  enabled: true
concurrency:
  runs:
    max_concurrent_runs: 2 # each may take [load] memory_limit, and some hundred MB more
"""


class DagsterMissing(WrongUsage):
    """Dagster is not installed."""


@dataclass(frozen=True)
class DagsterCommand:
    """What to start, in any folder, and where it answers then; SIGTERM ends it with its children.
    `environment` is beside what the process inherits."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    url: str


def dev_command(root: Path, env: str, *, port: int = PORT) -> DagsterCommand:
    """`dagster dev` for a project in one of its environments; its home is made where there is none.

    Raises DagsterMissing."""
    if any(find_spec(name) is None for name in _NEEDED):
        raise DagsterMissing(
            "Dagster and its web server are not installed", hint="pip install 'lakewarden[dagster]'"
        )
    argv = (
        *(sys.executable, "-m", _DAGSTER, "dev"),
        *("--host", _HOST, "--port", str(port)),
        *("--module-name", _LOCATION),
    )
    environment = {
        "DAGSTER_HOME": str(_home(root)),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "LAKEWARDEN_PROJECT": str(root),
        "LAKEWARDEN_ENV": env,
    }
    return DagsterCommand(argv, environment, f"http://{_HOST}:{port}")


def _home(root: Path) -> Path:
    """The folder of Dagster's storage, with its settings; those that are there stay."""
    home = root / ".lakewarden" / "dagster"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        config.write_text(_CONFIG)
    return home
