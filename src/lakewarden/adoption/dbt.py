"""A dbt project, read and not run: its manifest where there is one, else its files.

Of profiles.yml only the type of the adapter is taken; everything else in there may be a secret.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lakewarden.adoption.model import DbtProjectUnreadable, DbtSurvey, ModelFound

_MOST_BYTES = 200 << 20  # of a manifest
_LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_MATERIALIZED = re.compile(r"materialized\s*=\s*['\"](\w+)['\"]")
OUR_ADAPTER = "duckdb"
_T = TypeVar("_T", bound=BaseModel)


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Project(_Model):
    name: str
    profile: str | None = None
    model_paths: list[str] = Field(["models"], alias="model-paths")
    snapshot_paths: list[str] = Field(["snapshots"], alias="snapshot-paths")


class _Config(_Model):
    materialized: str = "view"
    meta: dict[str, object] = {}


class _Node(_Model):
    resource_type: str
    name: str
    schema_: str | None = Field(None, alias="schema")
    alias: str | None = None
    config: _Config = _Config()


class _SourceNode(_Model):
    schema_: str = Field(alias="schema")
    name: str
    identifier: str | None = None


class _ManifestMeta(_Model):
    adapter_type: str | None = None


class _Manifest(_Model):
    metadata: _ManifestMeta = _ManifestMeta()
    nodes: dict[str, _Node] = {}
    sources: dict[str, _SourceNode] = {}


class _SourceTable(_Model):
    name: str
    identifier: str | None = None


class _SourceFile(_Model):
    name: str
    schema_: str | None = Field(None, alias="schema")
    tables: list[_SourceTable] = []


class _ModelFile(_Model):
    name: str
    config: _Config = _Config()


class _Properties(_Model):
    sources: list[_SourceFile] = []
    models: list[_ModelFile] = []


class _Output(_Model):
    type: str


class _Profile(_Model):
    target: str = "dev"
    outputs: dict[str, _Output] = {}


def survey_dbt(folder: Path, tables: Collection[str]) -> DbtSurvey:
    """Which of its sources and models are which of the tables, and what would have to change.

    Raises DbtProjectUnreadable."""
    project = _read(_Project, folder / "dbt_project.yml", "it has no dbt_project.yml")
    manifest_file = folder / "target" / "manifest.json"
    if manifest_file.is_file():
        by = "target/manifest.json"
        adapter, sources, models, snapshots = _by_manifest(manifest_file)
    else:
        by = "its files (there is no target/manifest.json; `dbt parse` writes one)"
        adapter, (sources, models, snapshots) = (
            _adapter(folder, project),
            _by_files(folder, project),
        )
    named = {name: name if name in tables else None for name in sorted(sources)}
    found = [
        ModelFound(name, kind, _table_of(schema, name, tables), marked)
        for schema, name, kind, marked in sorted(models, key=lambda one: one[1])
    ]
    changes = [*_changes(adapter, named, found, snapshots)]
    return DbtSurvey(project.name, by, adapter, named, found, changes)


_Models = Sequence[tuple[str | None, str, str, bool]]  # schema, relation, materialized, marked


def _by_manifest(file: Path) -> tuple[str | None, Sequence[str], _Models, int]:
    if file.stat().st_size > _MOST_BYTES:
        raise DbtProjectUnreadable(f"{file} is larger than {_MOST_BYTES >> 20} MiB")
    try:
        manifest = _Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise _unreadable(file, f"{error.error_count()} fields are not as expected") from None
    sources = [f"{s.schema_}.{s.identifier or s.name}" for s in manifest.sources.values()]
    nodes = manifest.nodes.values()
    models = [
        (n.schema_, n.alias or n.name, n.config.materialized, "lake" in n.config.meta)
        for n in nodes
        if n.resource_type == "model"
    ]
    snapshots = sum(n.resource_type == "snapshot" for n in nodes)
    return manifest.metadata.adapter_type, sources, models, snapshots


def _by_files(folder: Path, project: _Project) -> tuple[Sequence[str], _Models, int]:
    sources: list[str] = []
    configs: dict[str, _Config] = {}
    kinds: dict[str, str] = {}
    for path in project.model_paths:
        for file in sorted((folder / path).rglob("*.y*ml")):
            found = _read(_Properties, file, "it is gone")
            for source in found.sources:
                schema = source.schema_ or source.name
                sources += [f"{schema}.{t.identifier or t.name}" for t in source.tables]
            configs |= {model.name: model.config for model in found.models}
        for file in sorted((folder / path).rglob("*.sql")):
            told = _MATERIALIZED.search(file.read_text("utf-8", errors="replace"))
            kinds[file.stem] = told[1] if told else ""
    snapshots = sum(1 for path in project.snapshot_paths for _ in (folder / path).rglob("*.sql"))
    models = [
        (None, name, kind or configs.get(name, _Config()).materialized, _marked(configs.get(name)))
        for name, kind in kinds.items()
    ]
    return sources, models, snapshots


def _marked(config: _Config | None) -> bool:
    return config is not None and "lake" in config.meta


def _adapter(folder: Path, project: _Project) -> str | None:
    """From a profiles.yml beside the project; the one in the home folder is nobody's business."""
    file = folder / "profiles.yml"
    if not project.profile or not file.is_file():
        return None
    try:
        content = yaml.load(file.read_bytes(), Loader=_LOADER)  # noqa: S506  # a safe loader
        profile = _Profile.model_validate(dict(content)[project.profile])
    except (yaml.YAMLError, ValidationError, KeyError, TypeError, ValueError):
        return None  # Jinja, or another profile: not known
    chosen = profile.outputs.get(profile.target)
    return chosen.type if chosen else None


def _table_of(schema: str | None, name: str, tables: Collection[str]) -> str | None:
    if schema is not None:
        return f"{schema}.{name}" if f"{schema}.{name}" in tables else None
    fitting = [table for table in tables if table.rpartition(".")[2] == name]
    return fitting[0] if len(fitting) == 1 else None


def _changes(
    adapter: str | None,
    sources: Mapping[str, str | None],
    models: Sequence[ModelFound],
    snapshots: int,
) -> Iterator[str]:
    if adapter != OUR_ADAPTER:
        yield (
            f"its adapter is {adapter or 'not known'}: Lakewarden runs models by dbt-duckdb over"
            " the branch's tables, so SQL that only another database knows has to be rewritten"
        )
    if gone := [name for name, table in sources.items() if table is None]:
        yield f"sources that are no tables of this catalog: {', '.join(gone)}"
    written = [one for one in models if one.table and not one.marked]
    if written:
        names = ", ".join(one.name for one in written)
        yield (
            f"models that write tables of this catalog: {names}. Each needs `meta: {{lake: {{table:"
            " …, write: all|batch}}`, and its table the level owned (its template without `level`)"
        )
    if incremental := [one.name for one in models if one.materialized == "incremental"]:
        yield (
            f"incremental models: {', '.join(incremental)}. dbt builds anew in each run; mark them"
            " with `write: batch`, which replaces the rows of the run's batches"
        )
    if snapshots:
        yield (
            f"{snapshots} dbt snapshots, which are refused: a model over the raw table, which keeps"
            " every delivery, does what they do"
        )


def _read(kind: type[_T], file: Path, missing: str) -> _T:
    try:
        content = yaml.load(file.read_bytes(), Loader=_LOADER)  # noqa: S506  # a safe loader
        return kind.model_validate(content or {})
    except FileNotFoundError:
        raise DbtProjectUnreadable(
            f"{file.parent} is no dbt project: {missing}", hint="--dbt names its folder."
        ) from None
    except OSError as error:
        raise _unreadable(file, error.strerror or type(error).__name__) from None
    except yaml.YAMLError:
        raise _unreadable(file, "it is not YAML") from None
    except ValidationError as error:
        raise _unreadable(file, f"{error.error_count()} fields are not as expected") from None


def _unreadable(file: Path, why: str) -> DbtProjectUnreadable:
    return DbtProjectUnreadable(
        f"{file} cannot be read: {why}", hint="Does `dbt parse` read the project?"
    )
