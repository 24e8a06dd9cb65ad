"""Rules of the house that neither ruff nor import-linter can see."""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import needs

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "lakewarden"
REQUIREMENTS = ROOT / "requirements"

VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "manager", "core", "misc"}
DATA_FOLDERS = ("examples", "definitions")
CODE = {".py", ".pyi", ".pyx", ".so", ".ipynb"}

# Written in halves, since this file is looked at as well.
REGISTRIES = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "pypi" + ".python.org",
    "artifact" + "registry",
    "piwheels" + ".org",
    "anaconda" + ".org",
    "npmjs" + ".org",
    "npmjs" + ".com",
    "ghcr" + ".io",
    "quay" + ".io",
    "docker" + ".io",
    "deb" + ".debian.org",
]
HOMES = re.compile(rb"(?<![\w.$}~-])/(?:home|Users|root|work|workspace)/[\w.-]+")

# What takes long to import is imported by the command that uses it.
HEAVY = {
    "boto3",
    "botocore",
    "dbt",
    "duckdb",
    "numpy",
    "pandas",
    "pyarrow",
    "pyiceberg",
    "pydantic_settings",
    "sqlalchemy",
}


@cache
def tracked() -> tuple[Path, ...]:
    """What git has, or would take; not what a build or a user left here."""
    # A checkout that is somebody else's is fine: it is only listed.
    git = [str(needs.git()), "-c", "safe.directory=*"]
    listing = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file())


def python_files() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py"]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def project() -> dict[str, dict[str, object]]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def test_every_name_says_what_it_is_about() -> None:
    vague = [
        shown(path)
        for path in python_files()
        if VAGUE & {part.removeprefix("_") for part in path.relative_to(ROOT).with_suffix("").parts}
    ]
    assert vague == []


@pytest.mark.parametrize("folder", DATA_FOLDERS)
def test_data_folders_hold_no_code(folder: str) -> None:
    code = [
        shown(path)
        for path in tracked()
        if path.is_relative_to(PACKAGE / folder)
        and path.suffix in CODE
        and path.name != "generate.py"  # a script of the project that `init` writes
    ]
    assert code == []


def test_nothing_tracked_names_a_package_registry_or_somebodys_home() -> None:
    found = []
    for path in tracked():
        content = path.read_bytes()
        hosts = [host for host in REGISTRIES if host.encode() in content]
        homes = [match.decode() for match in HOMES.findall(content)]
        found += [f"{shown(path)}: {hit}" for hit in hosts + homes]
    assert found == []


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        shown(path)
        for path in python_files()
        if path.is_relative_to(PACKAGE)
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("os", "environ"), ("os", "environb"), ("os", "getenv")}
    }
    assert readers <= {"src/lakewarden/settings.py"}


def exceptions_from_the_rules(path: Path) -> Iterator[tuple[int, str, str]]:
    """Each `noqa` and `type: ignore`: its line, itself, and the reason beside it."""
    pattern = re.compile(
        r"(?P<rule>#\s*(?:noqa(?::\s*[A-Z]+\d+(?:\s*,\s*[A-Z]+\d+)*)?|type:\s*ignore(?:\[[^]]*\])?))"
        r"(?P<rest>.*)"
    )
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        match = pattern.search(token.string) if token.type == tokenize.COMMENT else None
        if match:
            yield token.start[0], match["rule"], match["rest"].strip(" #-:")


def test_every_exception_from_a_rule_has_its_reason_beside_it() -> None:
    bare = [
        f"{shown(path)}:{line}: {rule}"
        for path in python_files()
        for line, rule, reason in exceptions_from_the_rules(path)
        if not reason
    ]
    assert bare == []


@pytest.mark.parametrize("module", ["lakewarden", "lakewarden.cli"])
def test_the_door_opens_without_the_heavy_libraries(module: str) -> None:
    """`lakewarden --help` answers at once because of this."""
    program = f"import json, sys; import {module}; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    loaded = {name.partition(".")[0] for name in json.loads(answer)}
    assert loaded & HEAVY == set()


def test_the_version_is_the_packages_own() -> None:
    assert version("lakewarden") == project()["project"]["version"]


def pins(name: str) -> dict[str, list[tuple[str, Marker | None]]]:
    """Each package of a requirement file with its versions, by the markers they hold for."""
    found: dict[str, list[tuple[str, Marker | None]]] = {}
    for line in (REQUIREMENTS / name).read_text("utf-8").splitlines():
        if line and not line.startswith(("#", " ")):
            pin = Requirement(line.removesuffix("\\").strip())
            (only,) = pin.specifier
            assert only.operator == "==", line
            found.setdefault(canonicalize_name(pin.name), []).append((only.version, pin.marker))
    return found


def asked_for() -> Iterator[tuple[str, Requirement]]:
    """Every requirement in pyproject.toml and the file that has to pin it."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = document["project"]["optional-dependencies"]
    groups = document["dependency-groups"]
    runtime = document["project"]["dependencies"] + extras["postgres"]
    everything = runtime + [each for extra in extras.values() for each in extra] + groups["dev"]
    for file, requirements in {
        "runtime.txt": runtime,
        "dev.txt": everything + groups["build"],
        "build.txt": groups["build"],
        "uv.txt": groups["installer"],
    }.items():
        yield from ((file, Requirement(each)) for each in requirements if isinstance(each, str))


def test_the_requirement_files_pin_what_pyproject_asks_for() -> None:
    """`make lock` mends it."""
    wrong = []
    for file, requirement in asked_for():
        versions = [pinned for pinned, _ in pins(file).get(canonicalize_name(requirement.name), [])]
        if not versions or not all(requirement.specifier.contains(each) for each in versions):
            wrong.append(f"{file} has {versions}, pyproject.toml asks for {requirement}")
    assert wrong == []


def test_the_requirement_files_agree_with_each_other() -> None:
    everything = pins("dev.txt")
    for file in ("runtime.txt", "build.txt"):
        for name, versions in pins(file).items():
            assert {each for each, _ in versions} <= {each for each, _ in everything[name]}, name


@pytest.mark.parametrize("file", sorted(path.name for path in REQUIREMENTS.glob("*.txt")))
def test_every_pin_has_its_hashes(file: str) -> None:
    text = (REQUIREMENTS / file).read_text("utf-8")
    entries = re.split(r"\n(?=[a-zA-Z0-9])", text)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_make_takes_the_pythons_that_the_package_takes() -> None:
    script = (REQUIREMENTS / "install.sh").read_text("utf-8")
    bounds = re.search(r"\(3, (\d+)\) <= sys\.version_info\[:2\] < \(3, (\d+)\)", script)
    assert bounds is not None
    assert project()["project"]["requires-python"] == ">=3.{},<3.{}".format(*bounds.groups())
