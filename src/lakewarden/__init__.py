"""Lakewarden: a lakehouse that runs its own runbook.

import lakewarden

project = lakewarden.open("my-project", env="dev")
outcome = project.run("flights", "2013-01-01")
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lakewarden.wiring import Project

__all__ = ["open"]


def open(project: "Path | str | None" = None, env: str | None = None) -> "Project":
    """A project's folder (None: the nearest one above) and one of its environments."""
    from lakewarden.wiring import open_project

    return open_project(project, env)
