"""The wheel, as a stranger gets it: plain pip, an empty environment, an empty folder."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import psutil
import pytest

from tests import needs

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "src" / "lakewarden" / "examples"

pytestmark = pytest.mark.slow

# Nothing of this checkout may help: not its packages, not its settings.
STRANGER = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("LAKEWARDEN_", "PYTHON", "VIRTUAL_ENV"))
}


def run(*argv: str | Path, cwd: Path, timeout: float = 600) -> str:
    """The standard output; where it fails, the test fails with all that it said."""
    command = [str(each) for each in argv]
    done = subprocess.run(
        command, cwd=cwd, env=STRANGER, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("lakewarden-*-py3-none-any.whl")
    return built


def test_the_wheel_holds_the_examples_the_types_and_nothing_of_the_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    examples = {
        f"lakewarden/examples/{path.relative_to(EXAMPLES).as_posix()}"
        for path in EXAMPLES.rglob("*")
        if path.is_file() and not {"__pycache__", "target", "logs", ".lakewarden"} & set(path.parts)
    }
    assert examples, "there is an example"
    assert examples <= names
    assert "lakewarden/py.typed" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"lakewarden"}
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel and its demo, by plain pip."""
    needs.venv()
    folder = tmp_path_factory.mktemp("stranger") / "environment"
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", f"{wheel}[demo]", cwd=folder)
    return programs


def still_running(environment: Path) -> list[list[str]]:
    """The command lines of what runs by a program of this environment."""
    command_lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [argv for argv in command_lines if any(str(environment) in each for each in argv)]


@pytest.mark.timeout(900)
def test_the_command_answers(installed: Path, tmp_path: Path) -> None:
    assert "lakewarden" in run(installed / "lakewarden", "--help", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == [], "asking for help leaves nothing behind"


@pytest.mark.timeout(900)
def test_the_demonstration_runs_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    run(installed / "lakewarden", "demo", cwd=tmp_path, timeout=300)
    assert still_running(installed.parent) == []
