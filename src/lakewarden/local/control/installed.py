"""ministack's own virtual environment: made once for each user, of pinned and hashed packages.

It is apart from ours because ministack pins its botocore, and because Lambda functions run by its
Python see what it sees.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from lakewarden.errors import TryAgain
from lakewarden.local.lock import locked

_SECONDS = 600
_DONE = "lakewarden-done"
# What says from where packages come is the user's; nothing else of their environment matters.
_KEPT = ("HOME", "PATH", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "TMPDIR")
_KEPT_BEGINNINGS = ("PIP_", "UV_", "http", "https", "no_proxy", "HTTP", "NO_PROXY", "ALL_PROXY")


class ControlPlaneNotInstalled(TryAgain):
    """ministack could not be installed."""


def requirements() -> bytes:
    """Every package with its hashes."""
    return files("lakewarden.local.control").joinpath("ministack.txt").read_bytes()


def folder_of(cache: Path) -> Path:
    """Where the environment lies; its name changes with what is in it, and with the Python."""
    made_of = hashlib.sha256(requirements() + sys.version.encode() + sys.base_prefix.encode())
    return cache / f"ministack-{made_of.hexdigest()[:16]}"


def installed(cache: Path, environment: "dict[str, str]") -> Path:
    """The environment's Python, which is installed first where it is missing: whole, or not at
    all. `cache` is the user's; `environment`: what pip or uv may need to find packages.
    Raises ControlPlaneNotInstalled."""
    folder = folder_of(cache)
    if not _is_whole(folder):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(cache / "ministack.lock", seconds=_SECONDS):
            if not _is_whole(folder):  # nobody else was faster
                _install(folder, _kept(environment))
    return _python(folder)


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _is_whole(folder: Path) -> bool:
    return (folder / _DONE).is_file() and _python(folder).exists()


def _kept(environment: dict[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name in _KEPT or name.startswith(_KEPT_BEGINNINGS)
    }


def _install(folder: Path, environment: dict[str, str]) -> None:
    """A virtual environment cannot be moved, as its scripts name their Python; we call only the
    Python itself, which finds its packages from wherever it lies."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="install-") as aside:
        draft = Path(aside) / "venv"
        listed = Path(aside) / "requirements.txt"
        listed.write_bytes(requirements())
        for argv in _commands(draft, listed, environment.get("PATH")):
            _run(argv, environment)
        (draft / _DONE).touch()
        if folder.exists():  # half of one, from before
            shutil.rmtree(folder)
        os.replace(draft, folder)  # noqa: PTH105 - a folder, to a name that does not exist


def _commands(draft: Path, listed: Path, path: str | None) -> list[list[str]]:
    python = str(_python(draft))
    wheels = ["--require-hashes", "--only-binary", ":all:", "-r", str(listed)]
    if uv := shutil.which("uv", path=path):
        made = [uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(draft)]
        return [made, [uv, "pip", "install", "--quiet", "--python", python, *wheels]]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [[sys.executable, "-m", "venv", str(draft)], [*pip, *wheels]]


def _run(argv: list[str], environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=_SECONDS,
        )
        why = (done.stderr or done.stdout).strip()[-500:] if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    if why is not None:
        raise ControlPlaneNotInstalled(
            f"what stands in for AWS's control plane (ministack) could not be installed: {why}",
            hint="It comes from the index that pip or uv use; `lakewarden local up` without"
            " --cloud does not need it.",
        )
