"""A project of its own, on a SeaweedFS of its own, in a folder that goes when the run ends."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.dataset import LAYOUTS, template

BUCKET = "benchmarks"
REGION = "us-east-1"
MEMORY_LIMIT = "512MB"
THREADS = 2

_TOML = f"""
project = "benchmarks"

[env.dev]
account = "local"
region = "{REGION}"
bucket = "{BUCKET}"
catalog = {{ type = "sql", uri = "sqlite:///.lakewarden/catalog.db" }}

[load]
memory_limit = "{MEMORY_LIMIT}"
threads = {THREADS}
"""
_DATASET = """
[dataset.{name}]
batch = "date"
landing = "raw/{name}/{{batch}}/"
tables = {{ {name} = "*.csv" }}
"""


@dataclass(frozen=True)
class Site:
    """The project's folder; `store` is the process id of its SeaweedFS."""

    root: Path
    store: int

    def forget(self) -> None:
        """Start from an empty catalog: every counted batch is the first of its table."""
        for file in self.root.glob(".lakewarden/catalog.db*"):
            file.unlink()


def cache_folder() -> Path:
    """Where generated data stay for the next time."""
    folder = Path(tempfile.gettempdir()) / "lakewarden-benchmarks"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def site() -> Iterator[Site]:
    """Up for as long as it is needed."""
    from lakewarden.local.stack import StackConfig, down, up

    with tempfile.TemporaryDirectory(prefix="lakewarden-bench-") as folder:
        root = Path(folder)
        _write_project(root)
        config = StackConfig(root, BUCKET, REGION)
        try:
            yield Site(root, up(config).pid)
        finally:
            down(config)


def _write_project(root: Path) -> None:
    datasets = "".join(_DATASET.format(name=name) for name in LAYOUTS)
    (root / "lakewarden.toml").write_text(_TOML + datasets)
    (root / "tables").mkdir()
    for name, layout in LAYOUTS.items():  # JSON is YAML
        text = json.dumps(template(name, layout, name), indent=1)
        (root / "tables" / f"{name}.yaml").write_text(text)


def project_beside(root: Path, dataset: str, templates: Mapping[str, str]) -> Path:
    """A project on the same stack, with a catalog of its own and one dataset, whose table has its
    name."""
    folder = root / f"beside-{dataset}"
    (folder / "tables").mkdir(parents=True)
    (folder / "lakewarden.toml").write_text(_TOML + _DATASET.format(name=dataset))
    for table, text in templates.items():
        (folder / "tables" / f"{table}.yaml").write_text(text)
    _share_stack(root, folder)
    return folder


def flights_project(root: Path, *, models: bool) -> Path:
    """The example project on the same stack; without models where they are not wanted."""
    from lakewarden.cli.init import write_example

    folder = root / ("flights" if models else "flights-without-models")
    if folder.exists():
        shutil.rmtree(folder)
    write_example("flights", folder)
    if not models:
        shutil.rmtree(folder / "transform")
    _share_stack(root, folder)
    return folder


def _share_stack(root: Path, folder: Path) -> None:
    """Reach the same SeaweedFS from another project's folder, in the same bucket."""
    settings = folder / "lakewarden.toml"
    text = settings.read_text()
    settings.write_text(text.replace('"flights-dev"', json.dumps(BUCKET)))
    endpoint = folder / ".lakewarden" / "local" / "endpoint.json"
    endpoint.parent.mkdir(parents=True)
    shutil.copy(root / ".lakewarden" / "local" / "endpoint.json", endpoint)
