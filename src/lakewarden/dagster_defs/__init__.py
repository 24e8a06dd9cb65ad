"""Dagster as a front end: definitions to be merged into anyone's code location.

from lakewarden.dagster_defs import definitions

defs = dagster.Definitions.merge(mine, definitions(lakewarden.open("my-project")))

This room needs the extra `lakewarden[dagster]`, and is the only one that does; what starts Dagster
(process.py) does not.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lakewarden.dagster_defs.assembly import definitions

__all__ = ["definitions"]


def __getattr__(name: str) -> object:
    if name != "definitions":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lakewarden.dagster_defs.assembly import definitions

    return definitions
