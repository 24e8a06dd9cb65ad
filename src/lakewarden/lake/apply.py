"""Carries out the plan of one table, on whatever branch the catalog stands for."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import Table, Transaction
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, UNSORTED_SORT_ORDER_ID
from pyiceberg.table.update import (
    AddSortOrderUpdate,
    AssertDefaultSortOrderId,
    AssertTableUUID,
    SetDefaultSortOrderUpdate,
    TableUpdate,
)
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.transforms import IdentityTransform

from lakewarden.errors import Refused, TryAgain
from lakewarden.tables.changes import (
    AddColumn,
    Change,
    CreateTable,
    MakeOptional,
    OrderColumns,
    RemoveProperty,
    RenameColumn,
    ReplacePartitionSpec,
    ReplaceSortOrder,
    SetDoc,
    SetProperty,
    TablePlan,
    WidenColumn,
)
from lakewarden.tables.drift import Finding, drift, hinders_loading
from lakewarden.tables.iceberg import NULL_ORDERS
from lakewarden.tables.levels import require
from lakewarden.tables.plan import plan as plan_of
from lakewarden.tables.present import field_ids
from lakewarden.tables.properties import FIELD_IDS, field_ids_record, recorded_field_ids
from lakewarden.tables.template import ADDED_COLUMNS, Direction, Level, Template
from lakewarden.tables.types import iceberg_type, transform_of


class TableDrifted(Refused):
    """A table is not what its template says, so nothing is written to it."""


class PlanOutdated(TryAgain):
    """The table is not the one that the plan was made for."""

    def __init__(self, identifier: str) -> None:
        super().__init__(
            f"{identifier} was changed by somebody else since the plan was made",
            hint="Make the plan again and look at it.",
        )


class TableNotRewritable(Refused):
    """A table holds what nobody here can rewrite, so its rows cannot be replaced."""


def table_for(
    catalog: Catalog, template: Template, *, needs: Level = Level.OWNED, what: str = "to write it"
) -> Table:
    """The template's table on a branch, to be written: made where it is missing.

    Raises LevelTooLow where the table is not at the level that it needs, TableDrifted where it is
    not what the template says, TableNotRewritable."""
    name = template.identifier
    require(name, template.level, needs, what)
    if template.level is Level.OWNED and not catalog.table_exists(name):
        apply(catalog, plan_of(template, None))
    try:
        table = catalog.load_table(name)
    except NoSuchTableError:
        table = None
    found = [one for one in drift(template, table) if hinders_loading(template, one)]
    return _undrifted(name, table, found)


def _undrifted(name: str, table: Table | None, findings: Sequence[Finding]) -> Table:
    if table is None or findings:
        more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
        raise TableDrifted(
            f"{name} is not what its template says: {findings[0].describe()}{more}",
            hint="Look at `lakewarden table drift`, then at `lakewarden table plan`.",
        )
    snapshot = table.current_snapshot()
    summary = snapshot.summary if snapshot else None
    if summary and (summary["total-equality-deletes"] or "0") != "0":
        raise TableNotRewritable(
            f"{name} has equality deletes, and PyIceberg cannot rewrite files that have some",
            hint="Let who writes the table compact it, or keep it at the level observed.",
        )
    return table


def apply(catalog: Catalog, plan: TablePlan) -> None:
    """Make the plan's changes; an empty plan changes nothing.

    One commit does it all, except that dropping a sort order is a commit of its own before it:
    a plan that was cut off between the two is made again for what is left.
    Afterwards the table is what its template says, and `drift` finds nothing.
    Raises PlanOutdated where the table is no longer at `plan.base`.
    """
    if not plan.changes:
        return
    _check_level(plan)
    try:
        if plan.base is None:
            _create(catalog, plan)
        else:
            _evolve(catalog, plan)
    except (CommitFailedException, NoSuchTableError, TableAlreadyExistsError) as error:
        raise PlanOutdated(plan.identifier) from error


def _check_level(plan: TablePlan) -> None:
    gained = {column.name for column in ADDED_COLUMNS}
    for change in plan.changes:
        gains = isinstance(change, AddColumn) and change.column in gained and not change.required
        needed = Level.LOADED if gains else Level.OWNED
        require(plan.identifier, plan.level, needed, f"to {change.describe()}")


def _create(catalog: Catalog, plan: TablePlan) -> None:
    (creation,) = plan.changes
    if not isinstance(creation, CreateTable):
        raise TypeError("a plan without a base has to create its table")
    catalog.create_namespace_if_not_exists(plan.identifier.rpartition(".")[0])
    table = catalog.create_table(
        plan.identifier,
        schema=creation.schema,
        partition_spec=creation.partition_spec,
        sort_order=creation.sort_order,
        properties=dict(creation.properties),
    )
    if recorded_field_ids(table.properties) != field_ids(table):
        with table.transaction() as transaction:  # a catalog is free to choose ids of its own
            transaction.set_properties({FIELD_IDS: field_ids_record(field_ids(table))})


def _evolve(catalog: Catalog, plan: TablePlan) -> None:
    table = catalog.load_table(plan.identifier)
    if table.metadata_location != plan.base:
        raise PlanOutdated(plan.identifier)
    if ReplaceSortOrder(()) in plan.changes:
        _drop_sort_order(catalog, table)
        table = catalog.load_table(plan.identifier)
    with table.transaction() as transaction:
        _change_schema(transaction, plan.changes)
        for change in plan.changes:
            _change_layout(transaction, change)
        if plan.level is Level.OWNED:
            _change_properties(transaction, plan.changes)


def _change_schema(transaction: Transaction, changes: Sequence[Change]) -> None:
    """All in one new schema. PyIceberg finds columns by their names of before, added ones by
    their new names."""
    kinds = RenameColumn | WidenColumn | MakeOptional | SetDoc | AddColumn | OrderColumns
    mine = [change for change in changes if isinstance(change, kinds)]
    if not mine:
        return
    before = {change.new: change.old for change in mine if isinstance(change, RenameColumn)}
    # A required column is only ever planned for a table without rows.
    required = any(isinstance(change, AddColumn) and change.required for change in mine)
    with transaction.update_schema(allow_incompatible_changes=required) as update:
        for change in mine:
            _change_column(update, change, before)


def _change_column(update: UpdateSchema, change: Change, before: Mapping[str, str]) -> None:
    match change:
        case RenameColumn(old, new):
            update.rename_column(old, new)
        case WidenColumn(column, _, new):
            update.update_column(before.get(column, column), field_type=iceberg_type(new))
        case MakeOptional(column):
            update.make_column_optional(before.get(column, column))
        case SetDoc(column, doc):
            update.update_column(before.get(column, column), doc=doc)
        case AddColumn(column, kind, required, doc):
            update.add_column(column, iceberg_type(kind), doc or None, required)
        case OrderColumns(columns):
            names = [before.get(column, column) for column in columns]
            update.move_first(names[0])
            for earlier, name in pairwise(names):
                update.move_after(name, earlier)
        case _:
            raise TypeError(f"not a change of the schema: {change}")


def _change_layout(transaction: Transaction, change: Change) -> None:
    match change:
        case ReplacePartitionSpec(fields):
            with transaction.update_spec() as spec:
                for field in transaction.table_metadata.spec().fields:
                    spec.remove_field(field.name)
                for part, name in fields:
                    spec.add_field(part.column, transform_of(part.transform), name)
        case ReplaceSortOrder(sorted_by) if sorted_by:
            with transaction.update_sort_order() as order:
                for column in sorted_by:
                    add = order.asc if column.direction is Direction.ASC else order.desc
                    add(column.column, IdentityTransform(), NULL_ORDERS[column.null_order])
        case _:
            pass  # of the schema or of the properties


def _drop_sort_order(catalog: Catalog, table: Table) -> None:
    """Through the catalog: PyIceberg's update_sort_order takes the highest id for the one just
    added, and the unsorted order's id is 0, so that it fails where the table was born sorted."""
    updates: tuple[TableUpdate, ...] = (
        SetDefaultSortOrderUpdate(sort_order_id=UNSORTED_SORT_ORDER_ID),
    )
    if table.metadata.sort_order_by_id(UNSORTED_SORT_ORDER_ID) is None:
        updates = (AddSortOrderUpdate(sort_order=UNSORTED_SORT_ORDER), *updates)
    catalog.commit_table(
        table,
        (
            AssertTableUUID(uuid=table.metadata.table_uuid),
            AssertDefaultSortOrderId(default_sort_order_id=table.metadata.default_sort_order_id),
        ),
        updates,
    )


def _change_properties(transaction: Transaction, changes: Sequence[Change]) -> None:
    removed = [change.name for change in changes if isinstance(change, RemoveProperty)]
    wanted = {change.name: change.value for change in changes if isinstance(change, SetProperty)}
    fields = transaction.table_metadata.schema().fields
    ids = {field.name: field.field_id for field in fields}
    if removed:
        transaction.remove_properties(*removed)
    transaction.set_properties({**wanted, FIELD_IDS: field_ids_record(ids)})
