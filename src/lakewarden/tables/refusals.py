"""Changes that Iceberg cannot make to a table that holds data, and what to do instead."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from lakewarden.errors import Refused


class RefusalKind(StrEnum):
    NARROWING = "narrowing"
    DROPPED_COLUMN = "dropped-column"
    MADE_REQUIRED = "made-required"
    NEW_REQUIRED_COLUMN = "new-required-column"
    REPLACED_COLUMN = "replaced-column"
    NAME_TAKEN = "name-taken"


@dataclass(frozen=True)
class Refusal:
    """One impossible change: why, and what to do."""

    kind: RefusalKind
    column: str
    message: str
    instead: str


class ChangeRefused(Refused):
    """A template asks for changes that are not made; `refusals` are all of them."""

    def __init__(self, identifier: str, refusals: Sequence[Refusal]) -> None:
        super().__init__(
            "\n".join(f"{identifier}: {refusal.message}" for refusal in refusals),
            hint="\n".join(dict.fromkeys(refusal.instead for refusal in refusals)),
        )
        self.identifier = identifier
        self.refusals = tuple(refusals)


def narrowing(column: str, old: str, new: str) -> Refusal:
    return Refusal(
        RefusalKind.NARROWING,
        column,
        f"{column} is {old}, and cannot become {new}",
        f"Iceberg widens int to long, float to double and a decimal's precision, nothing else. "
        f"Keep {column} {old} and add a column of another name with the type {new}.",
    )


def dropped(column: str, field_id: int, recorded_as: str | None) -> Refusal:
    """`recorded_as` is the name under which the last apply knew the field."""
    if recorded_as is not None and recorded_as != column:
        return Refusal(
            RefusalKind.DROPPED_COLUMN,
            column,
            f"{recorded_as} (field {field_id}) was renamed to {column} by somebody else",
            f"Write `was: {column}` under {recorded_as} to rename it back, or name it {column} "
            "in the template.",
        )
    return Refusal(
        RefusalKind.DROPPED_COLUMN,
        column,
        f"{column} is in the table and not in the template; columns are not dropped",
        f"Keep {column} in the template (`required: false` if nothing fills it any more), or "
        f"write `was: {column}` under the column that it has become.",
    )


def made_required(column: str) -> Refusal:
    return Refusal(
        RefusalKind.MADE_REQUIRED,
        column,
        f"{column} is optional in the table, and cannot become required",
        f"Rows without {column} may exist. Write `required: false` and let a not_null test "
        "guard it.",
    )


def new_required(column: str) -> Refusal:
    return Refusal(
        RefusalKind.NEW_REQUIRED_COLUMN,
        column,
        f"{column} is new and required, and the table already has rows, which lack it",
        f"Write `required: false` under {column}; a not_null test can guard what comes.",
    )


def replaced(identifier: str, column: str, recorded: int, found: int) -> Refusal:
    return Refusal(
        RefusalKind.REPLACED_COLUMN,
        column,
        f"{column} is field {found}, and was field {recorded} when last applied: somebody "
        "dropped it and made it again, so that its older values cannot be read",
        "Roll the table back to before that. To accept the loss, remove the table's property "
        "lakewarden.field-ids "
        f"(`pyiceberg properties remove table {identifier} lakewarden.field-ids`), and apply.",
    )


def name_taken(column: str) -> Refusal:
    return Refusal(
        RefusalKind.NAME_TAKEN,
        column,
        f"{column} is the name of a partition field that the table has or had",
        f"Choose another name for the column {column}.",
    )
