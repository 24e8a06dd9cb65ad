"""What may be done to a table at its level: the one rule that every way of writing asks."""

from lakewarden.errors import Refused
from lakewarden.tables.template import Level


class LevelTooLow(Refused):
    """A table is not ours enough for what was to be done to it; nothing was changed."""


def require(identifier: str, level: Level, needed: Level, what: str) -> None:
    """Raises LevelTooLow. `what`: what needs that level, as in "to load into it"."""
    if level.reaches(needed):
        return
    raise LevelTooLow(
        f"{identifier} is {level}, and {what} needs {needed}",
        hint=_HINTS[needed],
    )


_HINTS = {
    Level.OBSERVED: None,
    Level.LOADED: "If batches are to be added to a table that others made, write `level: loaded`"
    " in its template, then `lakewarden table plan` and `table apply`.",
    Level.OWNED: "What others made is theirs to change. If nobody else writes or changes the table"
    " any more, leave `level` out of its template; `lakewarden table plan` shows what follows.",
}
