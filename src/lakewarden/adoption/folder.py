"""Writes a survey's files into a new folder, all of them or none."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from lakewarden.adoption.model import FolderTaken


def refuse_taken(folder: Path) -> None:
    """Raises FolderTaken where something is there already."""
    if folder.is_symlink() or folder.exists():
        raise FolderTaken(f"{folder} is there already", hint="Name a new folder with --into.")


def write_folder(folder: Path, files: Mapping[str, str], check: Callable[[Path], None]) -> None:
    """Write files by their names within a new folder. It appears when all are written and `check`,
    which is given the place where they lie, found nothing wrong. Raises FolderTaken."""
    refuse_taken(folder)
    parent = folder.resolve().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent))
    except OSError as error:
        raise FolderTaken(
            f"{folder} cannot be made: {error.strerror}", hint="Name another with --into."
        ) from error
    try:
        for name, text in files.items():
            file = made / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, "utf-8")
        check(made)
        made.chmod(0o755)
        refuse_taken(folder)
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
