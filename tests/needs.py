"""What a test needs of the machine. It skips elsewhere, with the reason; where the need is
required, it fails instead.

    def test_full_disk(tmp_path: Path) -> None:
        with needs.tmpfs(tmp_path / "small", size="16m") as small:
            ...

LAKEWARDEN_REQUIRE names what must not be missing: `root,postgresql,tmpfs`, or `all`. `.ci/run`
requires all of it, so that nothing is quietly left untested where it could be tested.
"""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from lakewarden.local import nessie
from lakewarden.local.nessie import Java

NAMES = frozenset(
    {
        "aws_cli",
        "git",
        "java",
        "maven",
        "openssl",
        "postgresql",
        "root",
        "tmpfs",
        "venv",
    }
)


def root() -> None:
    """The rights of root: to change owners, to mount, to start a process as somebody else."""
    if os.name != "posix" or os.geteuid() != 0:
        _missing("root", "this process is not root")


def postgresql() -> Path:
    """The folder with PostgreSQL's own programs: initdb, postgres, pg_ctl.

    PostgreSQL refuses to run as root; who is root starts it as `nobody`.
    """
    programs = ("initdb", "postgres", "pg_ctl")
    for folder in _postgresql_folders():
        if all((folder / program).is_file() for program in programs):
            break
    else:
        _missing("postgresql", f"none of {', '.join(programs)} where systems keep them")
    return folder


@contextmanager
def tmpfs(folder: Path, *, size: str) -> Iterator[Path]:
    """A file system of its own, of `size` (as mount takes it: "16m"), mounted on `folder`, which
    is made where it is missing. It is gone afterwards."""
    if sys.platform != "linux":
        _missing("tmpfs", "tmpfs is Linux's")
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=1777"
    mounted = _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    if mounted.returncode != 0:
        _missing("tmpfs", mounted.stderr.partition("\n")[0])
    try:
        yield folder
    finally:
        unmounted = _run("umount", str(folder))
        if unmounted.returncode != 0:
            # Something still has a file open there: take the name away now, the rest when it ends.
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def git() -> Path:
    """The git program, and a checkout to ask it about."""
    found = shutil.which("git")
    if found is None:
        _missing("git", "no git on the PATH")
    if not (Path(__file__).parents[1] / ".git").exists():
        _missing("git", "these are not the files of a checkout")
    return Path(found)


def aws_cli() -> Path:
    """The package of the AWS CLI v2, packed, which has it for Linux on x86-64 only."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        _missing("aws_cli", "PyPI has the AWS CLI v2 for Linux on x86-64 only")
    try:
        files = importlib.metadata.files("aws-cdk-asset-awscli-v2") or []
    except importlib.metadata.PackageNotFoundError:
        _missing("aws_cli", "the package aws-cdk-asset-awscli-v2 is not installed")
    (asset,) = (Path(str(file.locate())) for file in files if file.suffix == ".tgz")
    return asset


def java() -> Java:
    """A Java that is new enough for Nessie."""
    try:
        return nessie.find_java()
    except nessie.JavaMissing as error:
        _missing("java", error.message)


def maven() -> Path:
    """Nessie's jar, which Maven fetches where this user has none yet."""
    try:
        return nessie.find_jar(nessie.cache(), dict(os.environ))
    except nessie.NessieMissing as error:
        _missing("maven", error.message)


def openssl() -> Path:
    """The openssl program, to make keys and sign with them."""
    found = shutil.which("openssl")
    if found is None:
        _missing("openssl", "no openssl on the PATH")
    return Path(found)


def venv() -> None:
    """A Python that can make a virtual environment with pip in it."""
    if _run(sys.executable, "-c", "import ensurepip, venv").returncode != 0:
        _missing("venv", "this Python has no ensurepip (on Debian: apt-get install python3-venv)")


def _postgresql_folders() -> Iterator[Path]:
    on_path = shutil.which("initdb")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(debian, key=lambda folder: -int(folder.parent.name))
    yield from sorted(Path("/opt/homebrew/opt").glob("postgresql@*/bin"), reverse=True)


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, check=False, capture_output=True, text=True)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(argv, 127, "", str(error))


def required(names: str) -> frozenset[str]:
    """What LAKEWARDEN_REQUIRE asks for; a name that nobody knows is an error, not a wish."""
    wanted = frozenset(re.findall(r"[^\s,]+", names))
    unknown = wanted - NAMES - {"all"}
    if unknown:
        raise ValueError(f"LAKEWARDEN_REQUIRE names what no test needs: {sorted(unknown)}")
    return NAMES if "all" in wanted else wanted


def _missing(name: str, reason: str) -> NoReturn:
    message = f"needs {name}: {reason}"
    if name in required(os.environ.get("LAKEWARDEN_REQUIRE", "")):
        pytest.fail(f"{message} (LAKEWARDEN_REQUIRE asks for it)", pytrace=False)
    pytest.skip(message)
