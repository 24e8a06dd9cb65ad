"""The demonstration's folder: made anew as long as it holds nothing but what a demonstration wrote.

It keeps a record of its files. `.lakewarden` and what dbt writes are not looked at.
"""

import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path, PurePath

from lakewarden.cli.init import write_example
from lakewarden.errors import WrongUsage

_RECORD = Path(".lakewarden/demo.json")
_MADE = {
    Path(".lakewarden"),
    *(Path("transform", one) for one in ("target", "logs", "dbt_packages")),
}
_CATALOG = re.compile(r"^catalog = .*$", re.MULTILINE)
_NAMED = 3  # of the files that somebody else wrote


class FolderTaken(WrongUsage):
    """The demonstration's folder holds something else."""


def make_project(folder: Path, *, nessie: bool = False) -> None:
    """An empty project, in the place of what an earlier demonstration left. `nessie`: its catalog
    is the local stack's."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        recorded = _recorded(folder)
        if recorded is None:
            raise FolderTaken(
                f"{folder} is not empty", hint="Run it elsewhere, or choose a folder: --dir DIR"
            )
        if foreign := _foreign(folder, recorded):
            more = f", and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
            raise FolderTaken(
                f"{folder} holds what is not the demonstration's: "
                + ", ".join(foreign[:_NAMED])
                + more,
                hint="Move it elsewhere, or choose another folder: --dir DIR",
            )
        _empty(folder)
    write_example("flights", folder)
    if nessie:
        _take_nessie(folder / "lakewarden.toml")
    record(folder)


def _take_nessie(settings: Path) -> None:
    changed, found = _CATALOG.subn('catalog = { type = "nessie" }', settings.read_text())
    if found != 1:
        raise RuntimeError(f"{settings} has {found} catalogs")
    settings.write_text(changed)


def record(folder: Path) -> None:
    """What lies there is the demonstration's, as it is now."""
    path = folder / _RECORD
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({one.as_posix(): _digest(folder / one) for one in _files(folder)}))
    draft.replace(path)


def _recorded(folder: Path) -> Mapping[str, str] | None:
    try:
        told = json.loads((folder / _RECORD).read_bytes())
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _foreign(folder: Path, recorded: Mapping[str, str]) -> Sequence[str]:
    """What somebody wrote or changed; of a folder that is somebody's as a whole, its name."""
    ours = {parent for name in recorded for parent in PurePath(name).parents}
    changed = (
        one for one in _files(folder) if recorded.get(one.as_posix()) != _digest(folder / one)
    )
    return sorted({_topmost(one, ours) for one in changed})


def _topmost(path: PurePath, ours: Collection[PurePath]) -> str:
    above = next((one for one in reversed(path.parents) if one not in ours), None)
    return f"{above.as_posix()}/" if above else path.as_posix()


def _files(folder: Path) -> Iterator[Path]:
    """Relative to the folder; links are files, whatever they lead to."""
    for at, folders, files in os.walk(folder):
        here = Path(at).relative_to(folder)
        links = [name for name in folders if (folder / here / name).is_symlink()]
        yield from (here / name for name in (*files, *links))
        folders[:] = [name for name in folders if here / name not in _MADE]


def _digest(path: Path) -> str:
    """Of no file that somebody else's link or pipe leads to."""
    if path.is_symlink() or not path.is_file():
        return ""
    return sha256(path.read_bytes()).hexdigest()


def _empty(folder: Path) -> None:
    """End the stack that works in the folder, and remove what is in it."""
    from lakewarden.local.cloud import down
    from lakewarden.local.stack import StackConfig
    from lakewarden.wiring import open_project

    project = open_project(folder)
    down(StackConfig(project.root, project.env.bucket, project.env.region))
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
