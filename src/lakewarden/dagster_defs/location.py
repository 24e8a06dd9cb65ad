"""The code location of one project, for `dagster dev -m lakewarden.dagster_defs.location`.

LAKEWARDEN_PROJECT and LAKEWARDEN_ENV say which project and environment it is; what the
definitions are made by stands in `[dagster]` of its lakewarden.toml.
"""

import dagster as dg

from lakewarden.dagster_defs.assembly import definitions
from lakewarden.wiring import open_project


@dg.definitions
def defs() -> dg.Definitions:
    """Called by Dagster when it loads the location."""
    return definitions(open_project())
