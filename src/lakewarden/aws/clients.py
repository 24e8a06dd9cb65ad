"""boto3 clients, made in one place, and the check that they talk to the pinned account."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lakewarden.errors import TryAgain, WrongUsage

if TYPE_CHECKING:
    from botocore.config import Config
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sts import STSClient

LOCAL_ACCOUNT = "local"
_LOCAL_ACCOUNT_ID = "000000000000"  # what a stack on this machine answers


class WrongAccount(WrongUsage):
    """The credentials or the endpoint belong to another account than the project pins."""


class AccountUnknown(TryAgain):
    """Nobody answered who we are."""


class ControlPlaneMissing(WrongUsage):
    """The local stack runs without what stands in for AWS's control plane."""


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds. A call is given up `total` after it began (or, while bytes
    arrive, after the last of them), plus the one attempt that is still under way."""

    total: float = 45.0
    connect: float = 5.0
    read: float = 15.0
    refused: float = 5.0  # nobody listens: a restart takes a second, more means that it is down


@dataclass(frozen=True)
class Connection:
    """Where and as whom. Without keys, boto3's own chain finds them (a profile, a role)."""

    account: str  # "local", or 12 digits
    region: str
    endpoint: str | None = None  # of S3; None: AWS itself
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    control: str | None = None  # of all other services, where S3 has an endpoint of its own
    patience: Patience = Patience()


def is_loopback(endpoint: str) -> bool:
    """Whether a URL's host is this machine; names other than localhost are not looked up."""
    host = urlsplit(endpoint).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def s3_client(connection: Connection, *, attempts: int = 1, connections: int = 16) -> "S3Client":
    """An S3 client. One attempt a call: S3Objects retries, because it knows what it wrote."""
    config = _config(connection, attempts=attempts, connections=connections)
    where = _where(connection, connection.endpoint)
    client: S3Client = _session().client("s3", config=config, **where)
    return client


def sts_client(connection: Connection) -> "STSClient":
    """Of the control plane, and on a local stack without one of S3's port, which answers too."""
    config = _config(connection, attempts=4)
    where = _where(connection, connection.control or connection.endpoint)
    client: STSClient = _session().client("sts", config=config, **where)
    return client


def control_client(connection: Connection, service: str, *, attempts: int = 4) -> Any:
    """A client of any service but S3, by boto3's name ("stepfunctions", "sns", …); give the answer
    its stub's type. Who we are is checked first. Raises ControlPlaneMissing, and as
    `check_account` does."""
    if connection.endpoint is not None and connection.control is None:
        raise ControlPlaneMissing(
            f"{service} is asked for, and this local stack has S3 only",
            hint="lakewarden local up --cloud",
        )
    check_account(connection)
    config = _config(connection, attempts=attempts)
    return _session().client(service, config=config, **_where(connection, connection.control))


def credentials(connection: Connection) -> tuple[str | None, str | None, str | None]:
    """Access key, secret key and session token, for libraries that cannot ask boto3 for them;
    all None where there are none. A role's keys end within hours: take them anew for each run."""
    if connection.access_key is not None:
        return connection.access_key, connection.secret_key, None
    found = _session().get_credentials()
    if found is None:
        return None, None, None
    frozen = found.get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


@cache
def check_account(connection: Connection) -> str:
    """Ask STS who we are, once a process; returns the account's id.

    Raises WrongAccount when it is not the pinned one, when "local" is not on this machine,
    and when the credentials are refused; AccountUnknown when STS does not answer."""
    _check_pin(connection)
    found = _caller_account(connection)
    expected = _LOCAL_ACCOUNT_ID if connection.account == LOCAL_ACCOUNT else connection.account
    if found != expected:
        raise WrongAccount(
            f"the project pins account {connection.account}, but the credentials are of {found}",
            hint="Choose the right credentials, or another --env.",
        )
    return found


def _check_pin(connection: Connection) -> None:
    if connection.account == LOCAL_ACCOUNT:
        endpoints = [connection.endpoint, connection.control or connection.endpoint]
        if not all(endpoint and is_loopback(endpoint) for endpoint in endpoints):
            raise WrongAccount(
                f'account "local" needs endpoints on this machine, not {endpoints}',
                hint="Start the local stack with `lakewarden local up`, or pin the account's 12 "
                "digits.",
            )
    elif not re.fullmatch(r"\d{12}", connection.account):
        raise WrongAccount(
            f'account {connection.account!r} is neither "local" nor 12 digits',
            hint="Correct `account` in lakewarden.toml.",
        )


def _caller_account(connection: Connection) -> str:
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        return sts_client(connection).get_caller_identity()["Account"]
    except NoCredentialsError as error:
        raise WrongAccount(
            f"no credentials for account {connection.account}",
            hint="Log in, set a profile, or start the local stack with `lakewarden local up`.",
        ) from error
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            raise AccountUnknown(f"STS did not answer: {error}") from error
        raise WrongAccount(
            f"STS refused the credentials for account {connection.account}: {error}",
            hint="Renew the credentials.",
        ) from error
    except BotoCoreError as error:
        raise AccountUnknown(
            f"STS could not be reached: {error}",
            hint="Is the local stack up (`lakewarden local up`)?"
            if connection.account == LOCAL_ACCOUNT
            else "Check the network, then try again.",
        ) from error


def _where(connection: Connection, endpoint: str | None) -> dict[str, Any]:
    """boto3's own keyword arguments."""
    return {
        "region_name": connection.region,
        "endpoint_url": endpoint,
        "aws_access_key_id": connection.access_key,
        "aws_secret_access_key": connection.secret_key,
    }


def _config(connection: Connection, *, attempts: int, connections: int = 10) -> "Config":
    from botocore.config import Config

    return Config(
        connect_timeout=connection.patience.connect,
        read_timeout=connection.patience.read,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
        s3={"addressing_style": "path" if connection.endpoint else "auto"},
        user_agent="lakewarden",  # boto3 would put one together anew for each call
    )


@cache
def _session() -> Any:  # boto3.Session; it is imported here to keep start-up short
    import boto3
    import botocore.session

    session = botocore.session.get_session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    return boto3.Session(botocore_session=session)


def _moment(told: Any) -> datetime:
    """As botocore reads a time, but without the 0.2 ms that dateutil takes for an HTTP date."""
    from botocore.utils import parse_timestamp

    try:
        found = parsedate_to_datetime(told)
    except (TypeError, ValueError, AttributeError):
        found = None
    return found if found and found.tzinfo else parse_timestamp(told)
