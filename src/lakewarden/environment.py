"""One environment's parts: its connection, bucket, catalog, templates, models and DuckDB.

Here it is chosen what an environment is made of; `wiring.Project` adds what is done with it.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from lakewarden.errors import TryAgain
from lakewarden.settings import (
    LOCAL,
    EnvSettings,
    NessieCatalogSettings,
    Secret,
    Settings,
    SqlCatalogSettings,
    local_endpoint,
    variables,
)

if TYPE_CHECKING:
    from lakewarden.aws.clients import Connection
    from lakewarden.aws.definitions import Names
    from lakewarden.aws.objects import Objects
    from lakewarden.aws.secrets import Secrets
    from lakewarden.batch.duck import DuckConfig
    from lakewarden.batch.models.project import DbtProject
    from lakewarden.lake.model import Lake
    from lakewarden.tables.template import Template


class LocalNessieMissing(TryAgain):
    """The catalog is the local stack's Nessie, and that stack has none."""


@dataclass(frozen=True)
class Environment:
    """One project in one environment. Its parts are made when they are first used."""

    settings: Settings
    env_name: str
    env: EnvSettings
    moved: Callable[[int], None] | None = None  # told of bytes that come and go

    @property
    def root(self) -> Path:
        return self.settings.root

    @cached_property
    def connection(self) -> "Connection":
        """How AWS (or the local stack) is reached, with the account that it has to be."""
        from lakewarden.aws.clients import Connection

        if self.env.account != LOCAL:
            return Connection(
                account=self.env.account,
                region=self.env.region,
                profile=self.env.profile,
                role_arn=self.env.role_arn,
            )
        local = local_endpoint(self.root)
        return Connection(
            account=LOCAL,
            region=local.region,
            endpoint=local.endpoint,
            control=local.control,
            access_key=local.access_key,
            secret_key=local.secret_key.get_secret_value(),
        )

    @cached_property
    def secrets(self) -> "Secrets":
        """What the settings' references lead to."""
        from lakewarden.aws.secrets import Secrets

        return Secrets(lambda: self.connection, variables())

    def reveal(self, secret: Secret) -> str:
        """A secret's value, wherever it is kept; raises as `Secrets.value` does."""
        if isinstance(secret, SecretStr):
            return secret.get_secret_value()
        return self.secrets.value(secret)

    def catalog_uri(self) -> str:
        """Where the catalog is: of a database with its password, for its engine and nobody else.

        Raises LocalNessieMissing where it is left to the local stack, and that has none."""
        catalog = self.env.catalog
        if isinstance(catalog, SqlCatalogSettings):
            return self._database(catalog)
        uri = catalog.uri or local_endpoint(self.root).nessie
        if uri is None:
            raise LocalNessieMissing(
                "the local stack runs without Nessie", hint="lakewarden local up --catalog nessie"
            )
        return uri

    def catalog_token(self) -> str | None:
        """The bearer token, where the catalog asks for one; raises SecretUnusable."""
        from lakewarden.aws.secrets import bearer

        catalog = self.env.catalog
        if isinstance(catalog, SqlCatalogSettings) or catalog.token is None:
            return None
        return bearer(self.reveal(catalog.token))

    @cached_property
    def objects(self) -> "Objects":
        """The bucket; who we are is checked first."""
        from lakewarden.aws.clients import check_account
        from lakewarden.aws.s3 import S3Objects

        check_account(self.connection)
        found = S3Objects(self.connection, self.env.bucket)
        if self.moved is None:
            return found
        from lakewarden.aws.watched import Watched

        return Watched(found, self.moved)

    @cached_property
    def names(self) -> "Names":
        """What the parts of this project are called at AWS."""
        from lakewarden.aws.definitions import names

        return names(self.settings.project, self.env_name, self.settings.names)

    def client(self, service: str) -> Any:
        """A client of the control plane, by boto3's name (aws/clients.py)."""
        from lakewarden.aws.clients import control_client

        return control_client(self.connection, service)

    def arn(self, service: str, resource: str) -> str:
        """Of something of this project's account and region."""
        from lakewarden.aws.clients import arn_of

        return arn_of(self.connection, service, resource)

    @cached_property
    def lake(self) -> "Lake":
        """The catalog."""
        catalog = self.env.catalog
        if isinstance(catalog, NessieCatalogSettings):
            return self._nessie(catalog)
        from lakewarden.lake.sql import SqlLake

        warehouse = f"s3://{self.env.bucket}/{self.env.warehouse}"
        return SqlLake(
            self.catalog_uri(),
            warehouse,
            self._file_io(),
            objects=lambda: self.objects,
            main=catalog.name,
        )

    @cached_property
    def templates(self) -> "Mapping[str, Template]":
        """Every table's template, by namespace.name."""
        from lakewarden.tables.template_file import read_templates

        return read_templates(self.root / "tables")

    @cached_property
    def duck(self) -> "DuckConfig":
        """How DuckDB may use this machine."""
        from lakewarden.batch.duck import DuckConfig

        access_key, secret_key, token = self._keys()
        # Every way to scratch leads through here. Rows lie there: they are nobody else's.
        self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        return DuckConfig(
            temp=self.scratch / "duckdb",
            memory_limit=self.settings.load.memory_limit,
            threads=self.settings.load.threads or os.cpu_count() or 1,
            endpoint=self.connection.endpoint,
            region=self.connection.region,
            access_key=access_key,
            secret_key=secret_key,
            session_token=token,
        )

    @property
    def scratch(self) -> Path:
        return self.root / ".lakewarden" / "scratch"

    @property
    def dbt(self) -> "DbtProject | None":
        """The models, where the project has any."""
        from lakewarden.batch.models.project import DbtProject

        folder = self.root / "transform"
        if not (folder / "dbt_project.yml").is_file():
            return None
        return DbtProject(folder, self.root / ".lakewarden" / "cache" / "dbt")

    def _database(self, catalog: SqlCatalogSettings) -> str:
        from lakewarden.lake.sql_engine import database_url

        uri = self.settings.catalog_uri(self.reveal(catalog.uri))
        if catalog.password is None:
            return uri
        whole = database_url(uri).set(password=self.reveal(catalog.password))
        return whole.render_as_string(hide_password=False)

    def _nessie(self, catalog: NessieCatalogSettings) -> "Lake":
        from lakewarden.lake.nessie import NessieConfig, NessieLake

        config = NessieConfig(self.catalog_uri(), catalog.warehouse, catalog.main)
        return NessieLake(
            config, self._file_io(), token=self.catalog_token(), objects=lambda: self.objects
        )

    def _file_io(self) -> Mapping[str, str]:
        """PyIceberg's own words for the same store."""
        from lakewarden.aws.clients import pyiceberg_properties

        return pyiceberg_properties(self.connection)

    def _keys(self) -> tuple[str | None, str | None, str | None]:
        """Keys for those that do not know boto3's ways of finding them."""
        from lakewarden.aws.clients import credentials

        return credentials(self.connection)
