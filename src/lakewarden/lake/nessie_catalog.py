"""PyIceberg's RestCatalog on one Nessie branch, as one run writes to it."""

from typing import Any
from urllib.parse import quote

from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.io import FileIO, load_file_io
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import AddSnapshotUpdate, TableRequirement, TableUpdate
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties
from requests import PreparedRequest, Response, Session
from requests.auth import AuthBase
from requests.exceptions import ConnectionError as NotConnected
from requests.exceptions import RequestException, Timeout

from lakewarden.errors import TryAgain, WrongUsage
from lakewarden.lake.model import BranchUnknown
from lakewarden.lake.nessie_api import CONNECT_SECONDS, READ_SECONDS, away, denied, said_by_nessie
from lakewarden.lake.refusals import no_branch


class BranchWritten(TryAgain):
    """Somebody else wrote to a table of the branch; a branch has one writer."""


class BranchCatalog(RestCatalog):
    """The public API of a RestCatalog, with our files, time-outs and errors.

    A branch has one writer, so a commit that is refused is not tried again: of a table on Nessie
    only the current snapshot can be seen, and PyIceberg's own retry fails on what it misses."""

    def __init__(
        self,
        branch: str,
        uri: str,
        token: str | None,
        warehouse: str,
        file_io: Properties,
    ) -> None:
        self._files = file_io
        self._token = token
        self._branch = branch
        self._server = uri
        at = f"{uri}/iceberg/{quote(branch, safe='')}"
        super().__init__(branch, **{"uri": at, "warehouse": warehouse})
        # The server tells where it believes to be; only what the settings say is asked, and told
        # the token.
        self.uri = f"{uri}/iceberg"

    def purge_table(self, identifier: str | Identifier) -> None:
        raise WrongUsage(
            "a table is never purged: main and older pins may still read its files",
            hint="Drop it; maintenance removes files that nothing refers to.",
        )

    def load_table(self, identifier: str | Identifier) -> Table:
        try:
            found: Table = super().load_table(identifier)
        except BranchUnknown as error:  # nothing is on a branch that is gone
            raise NoSuchTableError(f"no table {identifier}: {error.message}") from error
        return found

    def commit_table(
        self,
        table: Table,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> CommitTableResponse:
        try:
            answer: CommitTableResponse = super().commit_table(table, requirements, updates)
        except CommitFailedException as error:
            if not any(isinstance(one, AddSnapshotUpdate) for one in updates):
                raise
            name = ".".join(table.name())
            raise BranchWritten(
                f"{name} was written on branch {self._branch} by somebody else",
                hint="Stage the batch again, on a branch of its own.",
            ) from error
        return answer

    def _load_file_io(
        self, properties: Properties = EMPTY_DICT, location: str | None = None
    ) -> FileIO:
        """Ours, whatever the server would have: it names one that need not be installed."""
        return load_file_io({**properties, **self._files}, location)

    def _create_session(self) -> Session:
        session = _Session(self._server, self._branch, self._token)
        self._config_headers(session)
        # Never the server's keys for the files: we have our own.
        session.headers.pop("X-Iceberg-Access-Delegation", None)
        return session


class _Bearer(AuthBase):
    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Session(Session):
    """With a time-out, without redirects or proxies' secrets of the environment, and with errors
    in our words."""

    def __init__(self, server: str, branch: str, token: str | None) -> None:
        super().__init__()
        self._branch = branch
        self.auth = _Bearer(token)
        self.trust_env = False
        self._server = server
        self._given = token is not None

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Response:  # type: ignore[override]  # they take bytes too
        kwargs.setdefault("timeout", (CONNECT_SECONDS, READ_SECONDS))
        kwargs["allow_redirects"] = False
        try:
            answer = super().request(method, url, *args, **kwargs)
        except (NotConnected, Timeout) as error:
            raise away(self._server, type(error).__name__) from error
        except RequestException as error:
            raise away(self._server, " ".join(str(error).split())) from error
        if answer.status_code in (401, 403):
            raise denied(self._server, answer.status_code, given=self._given)
        if answer.status_code >= 500:
            said = said_by_nessie(answer.content) or f"HTTP {answer.status_code}"
            raise away(self._server, said)
        if answer.status_code == 400 and "NoSuchReferenceException" in answer.text:
            raise no_branch(self._branch)
        return answer
