"""The zip of the Lambda functions: one for all of them, and equal bytes from equal files.

    python -m lakewarden.stepfunctions.bundle --packages FOLDER --project DIR --out build/lambda.zip

Packages come from a folder as pip and uv fill it (`make lambdas` fills one for Lambda's platform);
by default from where this Python has them, which serves a Lambda that runs on this machine. Of
Lakewarden itself everything is taken but the examples; of the project only lakewarden.toml.
"""

import argparse
import re
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

from lakewarden.errors import Failed, WrongUsage

# requirements/lambda.txt, as folders and modules.
_WANTED = (
    "annotated_types",
    "dotenv",
    "pydantic",
    "pydantic_core",
    "pydantic_settings",
    "structlog",
    "tenacity",
    "typing_extensions.py",
    "typing_inspection",
)
_LEFT_OUT = re.compile(r"(^|/)(__pycache__|examples|tests?)(/|$)|\.pyi?c$")
_MOST_BYTES = 20 << 20
_BEGINNING = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip can tell
SETTINGS = "lakewarden.toml"


class PackagesMissing(WrongUsage):
    """The folder of packages lacks one that the functions need."""


class BundleTooLarge(Failed):
    """The zip is larger than it should ever be: something heavy came in."""


def bundle(project: Path, out: Path, packages: Path | None = None) -> int:
    """Write the zip; returns its bytes. `packages` None: this Python's own."""
    found = packages or Path(sysconfig.get_paths()["purelib"])
    missing = [name for name in _WANTED if not (found / name).exists()]
    if missing:
        raise PackagesMissing(
            f"{found} lacks {', '.join(missing)}", hint="make lambdas PROJECT=DIR"
        )
    files = dict(_files(found, Path(__file__).parents[1]))
    settings = project / SETTINGS
    if not settings.is_file():
        raise WrongUsage(f"no {SETTINGS} in {project}", hint="Name the project's folder.")
    files[SETTINGS] = settings
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _BEGINNING)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    size = out.stat().st_size
    if size > _MOST_BYTES:
        out.unlink()
        raise BundleTooLarge(f"{size:,} bytes; a function's zip has at most {_MOST_BYTES:,}")
    return size


def _files(packages: Path, lakewarden: Path) -> Iterator[tuple[str, Path]]:
    """Names within the zip, and where they come from."""
    for wanted in _WANTED:
        path = packages / wanted
        yield from _below(packages, [path] if path.is_file() else path.rglob("*"))
    yield from _below(lakewarden.parent, lakewarden.rglob("*"))


def _below(root: Path, paths: "Iterator[Path] | list[Path]") -> Iterator[tuple[str, Path]]:
    for path in paths:
        name = path.relative_to(root).as_posix()
        if path.is_file() and not _LEFT_OUT.search(name):
            yield name, path


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m lakewarden.stepfunctions.bundle")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/lambda.zip"))
    parser.add_argument("--packages", type=Path)
    given = parser.parse_args()
    size = bundle(given.project, given.out, given.packages)
    sys.stdout.write(f"{given.out}: {size:,} bytes\n")


if __name__ == "__main__":
    main()
