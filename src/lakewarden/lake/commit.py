"""Put data files that we wrote into a table of a branch, in one Iceberg commit."""

from collections.abc import Collection, Mapping, Sequence

from pyiceberg.expressions import BooleanExpression, EqualTo, In, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from lakewarden.tables.levels import require
from lakewarden.tables.template import BATCH_COLUMN, Level


def rows_of(batches: Collection[str]) -> BooleanExpression:
    """The rows that these batches brought; at least one."""
    column, keys = Reference(BATCH_COLUMN), {literal(batch) for batch in batches}
    if len(keys) == 1:
        return EqualTo(term=column, value=keys.pop())
    return In(term=column, literals=keys)


def stage(
    catalog_table: Table,
    data_files: Sequence[DataFile],
    *,
    level: Level,
    replacing: BooleanExpression | None,
    properties: Mapping[str, str],
) -> None:
    """Delete what `replacing` matches and append `data_files`, as one new metadata file.

    level: the table's; the rows of batches are written at `loaded`, others at `owned` only.
    replacing: None deletes nothing, and plans nothing, so it is fast on a table with many batches;
    `AlwaysTrue()` replaces all rows. Files whose bounds prove that every row matches go whole;
    others are rewritten, which is slow: keep one batch to a file.
    properties: go into the summary of each snapshot made (one for the delete, one for the append).

    Manifests are merged as the table's own properties say (`commit.manifest-merge.enabled`, off
    unless set). With nothing to delete or append nothing is committed. Raises LevelTooLow.
    """
    _check_level(catalog_table, level, replacing)
    summary = dict(properties)
    with catalog_table.transaction() as transaction:
        if replacing is not None:
            with transaction.update_snapshot(snapshot_properties=summary).delete() as removal:
                removal.delete_by_predicate(replacing)
            if removal.rewrites_needed:
                transaction.delete(replacing, snapshot_properties=summary)
        if data_files:
            with transaction.update_snapshot(snapshot_properties=summary).merge_append() as append:
                for file in data_files:
                    append.append_data_file(file)


def _check_level(table: Table, level: Level, replacing: BooleanExpression | None) -> None:
    identifier = ".".join(table.name())
    require(identifier, level, Level.LOADED, "to write rows into it")
    if replacing is not None and not _is_of_batches(replacing):
        require(identifier, level, Level.OWNED, "to replace rows that no batch brought")


def _is_of_batches(replacing: BooleanExpression) -> bool:
    """Whether it is what `rows_of` makes: it never matches a row without a batch."""
    return isinstance(replacing, EqualTo | In) and replacing.term == Reference(BATCH_COLUMN)
