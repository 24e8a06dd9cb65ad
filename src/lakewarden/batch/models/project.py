"""A dbt project: what is in it, parsed once for as long as its files stay the same."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from lakewarden.batch.models.runner import (
    DATABASE,
    DbtProjectInvalid,
    DbtSite,
    invoke,
    prepare_site,
)
from lakewarden.batch.models.selection import Graph, Kind, LakeMark, ModelMarkInvalid, Node, Write
from lakewarden.errors import TryAgain, WrongUsage

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

_log = structlog.get_logger(__name__)

_FORMAT = 1
_KEEP = 4  # parsed projects in the cache
_READ = frozenset({".sql", ".py", ".yml", ".yaml", ".csv", ".md"})
_WRITTEN = frozenset({"target", "logs"})
_FOREIGN = frozenset({".git", ".venv", "__pycache__"})
_KINDS = {kind.value: kind for kind in Kind}
# What models read of a run; where there is none, any will do.
_ANY_RUN: Mapping[str, object] = {"batches": ["2000-01-01"], "dataset": ""}
_DIGEST_BYTES = hashlib.sha256().digest_size


class DbtProjectMissing(WrongUsage):
    """There is no dbt project in the folder."""


class DbtProjectChanged(TryAgain):
    """Somebody changed the dbt project while a run built its models."""


@dataclass(frozen=True)
class DbtProject:
    """`folder` holds dbt_project.yml and is only read; `cache` may be emptied at any time."""

    folder: Path
    cache: Path


def project_digest(folder: Path) -> str:
    """The sha256, in hex, of what dbt reads of a project: names and contents of its files.

    Other files (a database of one's own, notes) do not count, nor do the folders that dbt writes,
    nor links that lead nowhere or to a folder above them.
    Raises DbtProjectMissing.
    """
    if not (folder / "dbt_project.yml").is_file():
        raise DbtProjectMissing(
            f"{folder} holds no dbt_project.yml",
            hint="`lakewarden init` writes an example; without models, leave the folder out.",
        )
    whole = hashlib.sha256()
    for file in sorted(_files(folder)):
        name = file.relative_to(folder).as_posix()
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        whole.update(f"{len(name)} {name} {content}\n".encode())
    return whole.hexdigest()


def check_unchanged(folder: Path, digest: str) -> None:
    """Raises DbtProjectChanged where the project is not what `digest` was made of."""
    if project_digest(folder) != digest:
        raise DbtProjectChanged(
            f"the dbt project in {folder} changed while its models were built",
            hint="Nothing was published. Run it again.",
        )


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder, followlinks=True):
        written = _WRITTEN if Path(root) == folder else frozenset()
        folders[:] = [
            name
            for name in folders
            if name not in written | _FOREIGN and not _leads_back(Path(root, name))
        ]
        found = (Path(root, name) for name in files if Path(name).suffix in _READ)
        yield from (file for file in found if file.is_file())


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to one of the folders on the way to it, which would never end."""
    return folder.is_symlink() and any(above.samefile(folder) for above in folder.parents)


def read_manifest(
    project: DbtProject, site: DbtSite, *, variables: Mapping[str, object]
) -> "Manifest":
    """dbt's manifest of the project, from the cache or parsed anew; the caller may change it.

    variables are not part of what is remembered: they belong in a model's SQL, where each run sees
    its own, and not in what decides which models there are. A project that reads the environment
    is parsed each time. Raises DbtProjectMissing, DbtProjectInvalid.
    """
    key = _cache_key(project.folder)
    path = project.cache / f"{key}.msgpack"
    cached = _load(path)
    if cached is not None:
        return cached
    try:
        result = invoke(site, "parse", ["--no-write-json"], variables=variables)
    except FileNotFoundError as error:
        raise DbtProjectInvalid(
            f"dbt cannot read {error.filename}: {error.strerror}",
            hint="If it is a link that leads nowhere, mend or remove it.",
        ) from error
    manifest: Manifest = result.result  # type: ignore[assignment]  # what `parse` returns
    depends = manifest.env_vars or b"env_var" in _settings(project.folder)
    if not depends and _cache_key(project.folder) == key:  # nobody wrote a file meanwhile
        try:
            _save(path, manifest)
        except OSError as error:  # the next run parses it again, and that is all
            _log.warning("the parsed dbt project could not be kept", path=path, why=error.strerror)
    return manifest


def read_graph(project: DbtProject, scratch: Path) -> Graph:
    """What is in a project, without a run: neither the store nor the catalog is asked.

    scratch: a folder of this call, removed again. Raises as `read_manifest` and `graph_of` do."""
    from lakewarden.batch.duck import DuckConfig

    site = prepare_site(project.folder, scratch, DuckConfig(temp=scratch / "duckdb"))
    try:
        return graph_of(read_manifest(project, site, variables=_ANY_RUN))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _cache_key(folder: Path) -> str:
    """What a manifest depends on. It holds absolute paths: a project elsewhere is another one."""
    versions = [version(package) for package in ("dbt-core", "dbt-duckdb", "duckdb")]
    key = f"{_FORMAT} {versions} {project_digest(folder)} {folder.absolute()}"
    return hashlib.sha256(key.encode()).hexdigest()


def _settings(folder: Path) -> bytes:
    """dbt_project.yml, whose own use of the environment the manifest does not tell."""
    return (folder / "dbt_project.yml").read_bytes()


def _load(path: Path) -> "Manifest | None":
    """The manifest in a cache file; None where there is none that can be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, packed = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(packed).digest() != digest:
        _log.warning("a damaged file in the cache of parsed dbt projects is made again", path=path)
        return None
    from dbt.contracts.graph.manifest import Manifest
    from dbt.parser.manifest import extended_mashumuro_decoder

    manifest: Manifest = Manifest.from_msgpack(packed, decoder=extended_mashumuro_decoder)
    manifest.build_flat_graph()  # type: ignore[no-untyped-call]  # dbt's own has no annotations
    return manifest


def _save(path: Path, manifest: "Manifest") -> None:
    """Put a manifest in the cache whole or not at all, whoever else does the same."""
    from dbt.parser.manifest import extended_mashumaro_encoder

    packed = manifest.to_msgpack(extended_mashumaro_encoder)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(packed).digest() + packed)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    _forget_old(path.parent)


def _forget_old(cache: Path) -> None:
    """Keep the newest few. Another process may do the same, so what is gone is gone."""
    found: list[tuple[float, Path]] = []
    for file in cache.glob("*.msgpack"):
        try:
            found.append((file.stat().st_mtime, file))
        except FileNotFoundError:
            continue
    for _, file in sorted(found, reverse=True)[_KEEP:]:
        file.unlink(missing_ok=True)


def graph_of(manifest: "Manifest") -> Graph:
    """The parts of a manifest that decide what runs; raises ModelMarkInvalid."""
    nodes = [
        Node(
            id=source.unique_id,
            name=source.name,
            kind=Kind.SOURCE,
            # A source in another database is not a table of the lake, whatever its name.
            schema=source.schema if source.database == DATABASE else "",
            relation=source.identifier,
        )
        for source in manifest.sources.values()
    ]
    for node in manifest.nodes.values():
        kind = _KINDS.get(str(node.resource_type))
        if kind is None:
            continue
        nodes.append(
            Node(
                id=node.unique_id,
                name=node.name,
                kind=kind,
                parents=tuple(node.depends_on_nodes),
                schema=node.schema,
                relation=node.alias,
                inlined=node.config.materialized == "ephemeral",
                mark=_mark(node.name, node.config.meta),
                about=getattr(node, "attached_node", None),  # which generic tests alone have
            )
        )
    return {node.id: node for node in nodes}


def _mark(model: str, meta: Mapping[str, object]) -> LakeMark | None:
    match meta.get("lake"):
        case None:
            return None
        case {"table": str(table), "write": "all" | "batch" as write, **rest} if not rest:
            if table.count(".") == 1 and all(table.split(".")):
                return LakeMark(table, Write(write))
    raise ModelMarkInvalid(
        f"model {model} has a meta.lake that cannot be read",
        hint="Write it as `meta: {lake: {table: namespace.name, write: all}}`, or `write: batch`.",
    )
