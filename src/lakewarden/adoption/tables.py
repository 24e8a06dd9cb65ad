"""What a table's metadata do not say: what kinds of files its current snapshot has. Reads only."""

from collections.abc import Iterator, Sequence

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFileContent, ManifestContent, ManifestFile
from pyiceberg.table.metadata import TableMetadata

from lakewarden.adoption.catalogs import Listed
from lakewarden.adoption.classify import classify
from lakewarden.adoption.model import (
    Adopted,
    CatalogUnreadable,
    FileFacts,
    NotAdopted,
    Obstacle,
    Reason,
)

_MANIFESTS = 40  # of data, that are read: first ones and last ones
_FOOTERS = 2


def survey_table(listed: Listed, io: FileIO, *, bucket: str) -> Adopted | NotAdopted:
    """What becomes of one entry of a catalog. Raises CatalogUnreadable where nobody answered; what
    is wrong with the table is told of it."""
    if listed.read is None:
        return NotAdopted(
            listed.name, [Reason(Obstacle.VIEW, "a view: its SQL is another engine's")]
        )
    try:
        metadata = listed.read()
        facts = file_facts(metadata, io)
    except CatalogUnreadable:
        raise
    except FileNotFoundError as error:
        return _unreadable(listed.name, f"a file of its metadata is gone ({_name(error)})")
    except Exception as error:  # whatever a stranger wrote there: a library's parser says why not
        return _unreadable(listed.name, f"its metadata cannot be read ({type(error).__name__})")
    return classify(listed.name, metadata, facts, bucket=bucket)


def _unreadable(table: str, why: str) -> NotAdopted:
    return NotAdopted(table, [Reason(Obstacle.METADATA, why)])


def _name(error: OSError) -> str:
    return str(error.filename or "").rpartition("/")[2] or "its name is not told"


def file_facts(metadata: TableMetadata, io: FileIO) -> FileFacts:
    """Kinds of files, by the manifests and a few footers."""
    snapshot = metadata.current_snapshot()
    if snapshot is None:
        return FileFacts()
    manifests = snapshot.manifests(io)
    data = [one for one in manifests if one.content == ManifestContent.DATA]
    deletes = [one for one in manifests if one.content == ManifestContent.DELETES]
    chosen = (
        data if len(data) <= _MANIFESTS else [*data[: _MANIFESTS // 2], *data[-_MANIFESTS // 2 :]]
    )
    formats: set[str] = set()
    counted = {DataFileContent.POSITION_DELETES: 0, DataFileContent.EQUALITY_DELETES: 0}
    vectors = 0
    for content, kind, _ in _files(deletes, io):
        if kind == "PUFFIN":
            vectors += 1
        else:
            formats.add(kind)
            counted[content] += 1
    paths = []
    for _, kind, path in _files(chosen, io):
        formats.add(kind)
        paths.append(path)
    has_ids, missing = _footers(paths if formats <= {"PARQUET"} else (), io)
    return FileFacts(
        formats=frozenset(formats),
        position_deletes=counted[DataFileContent.POSITION_DELETES],
        equality_deletes=counted[DataFileContent.EQUALITY_DELETES],
        deletion_vectors=vectors,
        has_field_ids=has_ids,
        missing=missing,
        sampled=len(chosen) < len(data),
    )


def _files(
    manifests: Sequence[ManifestFile], io: FileIO
) -> Iterator[tuple[DataFileContent, str, str]]:
    for manifest in manifests:
        for entry in manifest.fetch_manifest_entry(io):
            file = entry.data_file
            yield file.content, file.file_format.name, file.file_path


def _footers(paths: Sequence[str], io: FileIO) -> tuple[bool, str | None]:
    """Whether the oldest and the newest of the files have field ids; the name of one that is not
    there."""
    import pyarrow.parquet as pq

    has_ids = True
    for path in dict.fromkeys([*paths[:1], *paths[-(_FOOTERS - 1) :]]):
        try:
            with io.new_input(path).open() as stream:
                schema = pq.read_schema(stream)
        except FileNotFoundError:
            return has_ids, path.rpartition("/")[2]
        has_ids &= all(b"PARQUET:field_id" in (field.metadata or {}) for field in schema)
    return has_ids, None
