"""boto3 clients, made in one place, and the check that they talk to the pinned account."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lakewarden.errors import TryAgain, WrongUsage

if TYPE_CHECKING:
    from botocore.config import Config
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sts import STSClient
    from mypy_boto3_sts.type_defs import GetCallerIdentityResponseTypeDef

LOCAL_ACCOUNT = "local"
_LOCAL_ACCOUNT_ID = "000000000000"  # what a stack on this machine answers


class WrongAccount(WrongUsage):
    """The credentials or the endpoint belong to another account than the project pins."""


class AccountUnknown(TryAgain):
    """Nobody answered who we are."""


class ProfileUnknown(WrongUsage):
    """The AWS profile that the environment names is not configured on this machine."""


class ControlPlaneMissing(WrongUsage):
    """The local stack runs without what stands in for AWS's control plane."""


_QUOTING = {"SignatureDoesNotMatch", "IncompleteSignature"}
# http(s)://host or host:port, and a path; no user, no other signs.
_PLAIN_URL = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[^\s\\@]*)?")


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
    profile: str | None = None  # of the AWS configuration on this machine
    role_arn: str | None = None  # a role that is taken with what was found so far


def is_loopback(endpoint: str) -> bool:
    """Whether a URL's host is this machine; names other than localhost are not looked up. A URL
    that clients may read otherwise than we do is not."""
    if not _PLAIN_URL.fullmatch(endpoint):
        return False
    host = urlsplit(endpoint).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def s3_client(connection: Connection, *, attempts: int = 1, connections: int = 16) -> "S3Client":
    """An S3 client. One attempt a call: S3Objects retries, because it knows what it wrote.
    Raises as `check_account` does."""
    _check(connection)
    config = _config(connection, attempts=attempts, connections=connections)
    where = _where(connection, connection.endpoint)
    client: S3Client = _acting(connection).client("s3", config=config, **where)
    return client


def sts_client(connection: Connection, *, attempts: int = 4) -> "STSClient":
    """Of the control plane, and on a local stack without one of S3's port, which answers too."""
    config = _config(connection, attempts=attempts)
    where = _where(connection, connection.control or connection.endpoint)
    client: STSClient = _acting(connection).client("sts", config=config, **where)
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
    where = _where(connection, connection.control)
    return _acting(connection).client(service, config=config, **where)


def credentials(connection: Connection) -> tuple[str | None, str | None, str | None]:
    """Access key, secret key and session token, for libraries that cannot ask boto3 for them;
    all None where there are none. A role's keys end within hours: take them anew for each run.
    Raises as `check_account` does."""
    _check(connection)
    if connection.access_key is not None:
        return connection.access_key, connection.secret_key, None
    found = _acting(connection).get_credentials()
    if found is None:
        return None, None, None
    frozen = found.get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


def pyiceberg_properties(connection: Connection) -> Mapping[str, str]:
    """The same store, and the same keys, in PyIceberg's words."""
    access_key, secret_key, token = credentials(connection)
    told = {
        "s3.endpoint": connection.endpoint,
        "s3.region": connection.region,
        "s3.access-key-id": access_key,
        "s3.secret-access-key": secret_key,
        "s3.session-token": token,
    }
    return {key: value for key, value in told.items() if value}


def check_account(connection: Connection) -> str:
    """Ask STS who we are, once a process; returns the account's id.

    Raises WrongAccount when it is not the pinned one, when "local" is not on this machine,
    and when the credentials are refused; AccountUnknown when STS does not answer."""
    return _caller(connection)[1]


def arn_of(connection: Connection, service: str, resource: str) -> str:
    """The ARN of something in the connection's account and region, which may be in a partition of
    its own (aws-cn, aws-us-gov). Raises as `check_account` does."""
    partition, account = _caller(connection)
    return f"arn:{partition}:{service}:{connection.region}:{account}:{resource}"


@cache
def _caller(connection: Connection) -> tuple[str, str]:
    """Partition and account."""
    _check_pin(connection)
    found = identity(connection)
    expected = _LOCAL_ACCOUNT_ID if connection.account == LOCAL_ACCOUNT else connection.account
    if found["Account"] != expected:
        raise WrongAccount(
            f"the project pins account {connection.account}, but the credentials are of"
            f" {found['Account']}",
            hint="Choose the right credentials, or another --env.",
        )
    return found["Arn"].split(":")[1], found["Account"]


def _check(connection: Connection) -> None:
    """What is local has keys of its own, for endpoints on this machine; all else asks STS."""
    if connection.account == LOCAL_ACCOUNT:
        _check_pin(connection)
    else:
        check_account(connection)


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


def identity(connection: Connection) -> "GetCallerIdentityResponseTypeDef":
    """Who STS says we are, whatever is pinned. Raises as `check_account` does."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        CredentialRetrievalError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
        SSOError,
        TokenRetrievalError,
    )

    try:
        return sts_client(connection).get_caller_identity()
    except ProfileNotFound as error:
        raise ProfileUnknown(
            f"this machine has no AWS profile {connection.profile!r}",
            hint="aws configure list-profiles; `profile` in lakewarden.toml, or leave it out.",
        ) from error
    except NoCredentialsError as error:
        raise WrongAccount(
            f"no credentials for account {connection.account}",
            hint="Log in, set a profile, or start the local stack with `lakewarden local up`.",
        ) from error
    except (
        CredentialRetrievalError,
        PartialCredentialsError,
        SSOError,
        TokenRetrievalError,
    ) as error:
        raise WrongAccount(
            f"the credentials for account {connection.account} cannot be used: {error}",
            hint="Log in again (aws sso login), or choose another profile.",
        ) from error
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            raise AccountUnknown(f"STS did not answer: {said_by(error)}") from error
        raise WrongAccount(
            f"STS refused the credentials for account {connection.account}: {said_by(error)}",
            hint="Renew the credentials.",
        ) from error
    except BotoCoreError as error:
        raise AccountUnknown(
            f"STS could not be reached: {error}",
            hint="Is the local stack up (`lakewarden local up`)?"
            if connection.account == LOCAL_ACCOUNT
            else "Check the network, then try again.",
        ) from error


def said_by(error: "ClientError") -> str:
    """What a service said; where that may quote the request, with its session token, the code."""
    code = error.response.get("Error", {}).get("Code")  # not every store says one
    return code if code in _QUOTING else str(error)


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
        # What is on this machine is not asked for through somebody's proxy.
        proxies={} if connection.endpoint else None,
        user_agent="lakewarden",  # boto3 would put one together anew for each call
    )


def _acting(connection: Connection) -> Any:
    """The boto3.Session whose keys are used: a profile's, or those of a role that it takes."""
    if connection.role_arn is None:
        return _session(connection.profile)
    return _in_role(
        connection.profile,
        connection.role_arn,
        connection.region,
        connection.control or connection.endpoint,
    )


@cache
def _in_role(profile: str | None, role_arn: str, region: str, endpoint: str | None) -> Any:
    """A session in a role; its keys are taken when they are needed, and anew before they end."""
    from botocore.credentials import (
        AssumeRoleCredentialFetcher,
        CredentialProvider,
        CredentialResolver,
        DeferredRefreshableCredentials,
    )
    from botocore.exceptions import NoCredentialsError

    own = _session(profile)

    class _Role(CredentialProvider):
        METHOD = "assume-role"

        def load(self) -> DeferredRefreshableCredentials:
            source = own.get_credentials()
            if source is None:
                raise NoCredentialsError
            fetcher = AssumeRoleCredentialFetcher(
                partial(own.client, region_name=region, endpoint_url=endpoint),
                source,
                role_arn,
                extra_args={"RoleSessionName": "lakewarden"},
            )
            return DeferredRefreshableCredentials(fetcher.fetch_credentials, self.METHOD)

    return _new_session(None, CredentialResolver([_Role()]))


@cache
def _session(profile: str | None) -> Any:
    return _new_session(profile, None)


def _new_session(profile: str | None, resolver: Any) -> Any:
    """boto3.Session; it is imported here to keep start-up short. resolver: of credentials, in
    place of botocore's own."""
    import boto3
    import botocore.session

    session = botocore.session.Session(profile=profile)
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    if resolver is not None:
        session.register_component("credential_provider", resolver)
    return boto3.Session(botocore_session=session)


def _moment(told: Any) -> datetime:
    """As botocore reads a time, but without the 0.2 ms that dateutil takes for an HTTP date."""
    from botocore.utils import parse_timestamp

    try:
        found = parsedate_to_datetime(told)
    except (TypeError, ValueError, AttributeError):
        found = None
    return found if found and found.tzinfo else parse_timestamp(told)
