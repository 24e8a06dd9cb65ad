"""The zip of the Lambda functions: light, complete, and equal bytes from equal files."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lakewarden.aws.definitions import functions
from lakewarden.stepfunctions.bundle import PackagesMissing, bundle
from tests.unit.test_house import HEAVY

EXAMPLE = Path(__file__).parents[2] / "src" / "lakewarden" / "examples" / "dpc"
# Lambda's runtime has boto3; nothing else of these is there.
NEVER = HEAVY - {"boto3", "botocore", "pydantic_settings"} | {"yaml", "psutil", "typer", "rich"}


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "lambda.zip"
    bundle(EXAMPLE, out)
    return out


def test_it_is_small_and_holds_the_project(zipped: Path) -> None:
    names = zipfile.ZipFile(zipped).namelist()
    assert zipped.stat().st_size < 20 << 20
    assert "lakewarden.toml" in names
    assert "lakewarden/definitions/names.json" in names
    assert [name for name in names if "/examples/" in name or "__pycache__" in name] == []
    tops = {name.partition("/")[0] for name in names}
    assert tops & NEVER == set()


def test_equal_files_make_equal_bytes(zipped: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    bundle(EXAMPLE, again)
    assert again.read_bytes() == zipped.read_bytes()


def test_its_handlers_are_imported_from_it_alone_and_without_what_is_heavy(
    zipped: Path, tmp_path: Path
) -> None:
    """As Lambda would, but for boto3: in a Python that has nothing but the zip's own packages."""
    code = tmp_path / "code"
    zipfile.ZipFile(zipped).extractall(code)
    modules = sorted({function.handler.rpartition(".")[0] for function in functions()})
    program = f"""
import importlib, json, sys
sys.path.insert(0, {str(code)!r})
for module in {modules!r}:
    importlib.import_module(module)
import lakewarden, lakewarden.settings
assert lakewarden.__file__.startswith({str(code)!r})
lakewarden.settings.load_settings(lakewarden.settings.find_project())
print(json.dumps(sorted(sys.modules)))
"""
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=code,
    )
    loaded = {name.partition(".")[0] for name in json.loads(answer.stdout)}
    assert loaded & (NEVER | {"boto3", "botocore"}) == set()


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackagesMissing, match="pydantic_core"):
        bundle(EXAMPLE, tmp_path / "x.zip", tmp_path)
