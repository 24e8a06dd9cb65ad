"""Put data files that we wrote into a table of a branch, in one Iceberg commit."""

from collections.abc import Collection, Mapping, Sequence

from pyiceberg.expressions import BooleanExpression, EqualTo, In, Reference
from pyiceberg.expressions.literals import literal
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from lakewarden.tables.template import BATCH_COLUMN


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
    replacing: BooleanExpression | None,
    properties: Mapping[str, str],
) -> None:
    """Delete what `replacing` matches and append `data_files`, as one new metadata file.

    replacing: None deletes nothing, and plans nothing, so it is fast on a table with many batches;
    `AlwaysTrue()` replaces all rows. Files whose bounds prove that every row matches go whole;
    others are rewritten, which is slow: keep one batch to a file.
    properties: go into the summary of each snapshot made (one for the delete, one for the append).

    Manifests are merged as the table's own properties say (`commit.manifest-merge.enabled`, off
    unless set). With nothing to delete or append nothing is committed.
    """
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
