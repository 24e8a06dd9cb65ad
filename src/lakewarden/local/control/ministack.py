"""ministack: how it is called. It listens on a private Unix socket only."""

from pathlib import Path

from lakewarden.local.control import emulator
from lakewarden.local.identity import Keys
from lakewarden.local.layout import Layout
from lakewarden.local.overlay import ACCOUNT_KEY, ALARM_HASTE, HOST
from lakewarden.local.process import Daemon

_EMULATOR = Path(emulator.__file__).parent


def daemon(layout: Layout) -> Daemon:
    return Daemon(
        layout.control,
        layout.folder / "ministack.json",
        layout.folder / "ministack.log",
        (str(_EMULATOR),),
    )


def command(python: Path, layout: Layout) -> list[str]:
    """The command line; `python`: of its own environment."""
    return [str(python), "-s", str(_EMULATOR), str(layout.control_socket), str(ALARM_HASTE)]


def environment(layout: Layout, keys: Keys, *, port: int, region: str) -> dict[str, str]:
    """All that it and its Lambda functions see. `port`: of the front, which is where clients,
    and the functions, find it; `keys`: what the functions sign with."""
    state = layout.control.resolve()
    return {
        "HOME": str(state),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TMPDIR": str(state / "tmp"),
        "BIND_HOST": HOST,
        "MINISTACK_HOST": HOST,
        "MINISTACK_REGION": region,
        "MINISTACK_ACCOUNT_ID": ACCOUNT_KEY,
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "CLOUDTRAIL_RECORDING": "1",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(state / "state"),
        "S3_DATA_DIR": str(state / "s3"),
        "DOCKER_HOST": f"unix://{layout.containers_socket}",
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
