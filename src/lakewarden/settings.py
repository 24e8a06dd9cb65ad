"""`lakewarden.toml` and the environment, validated. The only reader of `os.environ`.

LAKEWARDEN_PROJECT and LAKEWARDEN_ENV choose the folder and the environment. Any key of the file is
overridden by a variable: LAKEWARDEN__LOAD__MEMORY_LIMIT=512MB is `memory_limit` of `[load]`.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, time, timedelta
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from lakewarden.aws.definitions import KEYS
from lakewarden.aws.secrets import AnyReference
from lakewarden.batch.calendar import Calendar
from lakewarden.batch.delivery.keys import key_of, meet, shapes_of
from lakewarden.errors import TryAgain, WrongUsage

FILE = "lakewarden.toml"

_OPERATIONS = "ops/"  # receipts, leases, quarantine

_WeekDay = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_WEEK: tuple[_WeekDay, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = r"\d{1,6}[smhd]"  # a length of time

_SECRET_KEYS = {"password", "token"}
_PASSWORD_IN_URI = re.compile(
    r"^[\w+]+://[^:/@]*:[^@]+@|^[\w+]+://[^?]*\?(.*&)?(password|sslpassword|token)=", re.IGNORECASE
)

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
LOCAL = "local"


class ProjectMissing(WrongUsage):
    """There is no lakewarden.toml where it was looked for."""


class SettingsInvalid(WrongUsage):
    """lakewarden.toml, or a variable that overrides it, is wrong."""


class SecretInFile(SettingsInvalid):
    """lakewarden.toml holds a password or a token itself."""


class EnvironmentUnknown(WrongUsage):
    """No [env.NAME] of that name."""


class LocalStackDown(TryAgain):
    """The environment runs on the local stack, and that has never been started here."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# A value comes by a variable; in the file a secret is a reference (`_literal_secrets`).
Secret = SecretStr | AnyReference


class SqlCatalogSettings(_Model):
    """The catalog is a database. SQLite and PostgreSQL by the same code."""

    type: Literal["sql"] = "sql"
    uri: Secret  # with a password only by a variable or a reference
    password: Secret | None = None  # in place of one in `uri`
    name: str = Field("main", min_length=1, max_length=255)  # `catalog_name` of main's rows

    @field_validator("type", mode="before")
    @classmethod
    def _known(cls, kind: object) -> object:
        if kind != "sql":
            raise ValueError("sql or nessie")
        return kind


class NessieCatalogSettings(_Model):
    """The catalog is a Nessie; on the local stack it is found by itself."""

    type: Literal["nessie"]
    uri: str | None = None
    token: Secret | None = None
    warehouse: str = Field("lake", min_length=1)  # as Nessie calls it
    main: str = Field("main", min_length=1)  # Nessie's name of main


def _kind_of_catalog(told: object) -> str:
    kind = told.get("type") if isinstance(told, dict) else getattr(told, "type", None)
    return "nessie" if kind == "nessie" else "sql"


CatalogSettings = Annotated[
    Annotated[SqlCatalogSettings, Tag("sql")] | Annotated[NessieCatalogSettings, Tag("nessie")],
    Discriminator(_kind_of_catalog),
]


class EnvSettings(_Model):
    """One environment. Every client checks with STS that `account` is where it is."""

    account: str = Field(pattern=r"^(local|\d{12})$")
    profile: str | None = Field(None, min_length=1)
    role_arn: str | None = Field(None, pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+$")
    region: str = "us-east-1"
    bucket: str
    warehouse: str = "warehouse"  # prefix of the tables within the bucket
    catalog: CatalogSettings

    @model_validator(mode="after")
    def _as_whom(self) -> "EnvSettings":
        if self.account == LOCAL and (self.profile or self.role_arn):
            raise ValueError("the local stack has keys of its own: no profile, no role_arn")
        if self.role_arn and self.role_arn.split(":")[4] != self.account:
            raise ValueError("role_arn belongs to another account than `account`")
        return self

    @model_validator(mode="after")
    def _where(self) -> "EnvSettings":
        catalog = self.catalog
        if catalog.type == "nessie" and catalog.uri is None and self.account != LOCAL:
            raise ValueError("catalog.uri is left out on the local stack only")
        return self

    def references(self) -> Mapping[str, AnyReference]:
        """Every secret that is referred to, by its key."""
        return dict(_references(self))


def _references(model: BaseModel, before: str = "") -> Iterator[tuple[str, AnyReference]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, AnyReference):
            yield f"{before}{name}", value
        elif isinstance(value, BaseModel):
            yield from _references(value, f"{before}{name}.")


def length_of(text: str) -> timedelta:
    """90m, 2h, 1d: a length of time."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    return timedelta(**{units[text[-1]]: int(text[:-1])})


class DueSettings(_Model):
    """When deliveries are expected: `at` on the first day after the batch's day or month, or so
    many days `after` that. Of batches by date: on `weekdays`, without `holidays`."""

    at: str = Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    zone: str = "UTC"
    grace: str = Field("0m", pattern=rf"^{_SPAN}$")
    after: int = Field(0, ge=0, le=366)
    weekdays: tuple[_WeekDay, ...] = Field(_WEEK, min_length=1)
    holidays: tuple[date, ...] = ()
    first: date | None = None  # nothing is expected of before this day

    @field_validator("zone")
    @classmethod
    def _known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("a time zone's name, such as Asia/Tokyo") from error
        return zone

    def calendar(self, form: str) -> Calendar:
        """The same, for batches of this form."""
        return Calendar(
            form=form,
            at=time.fromisoformat(self.at),
            zone=ZoneInfo(self.zone),
            grace=length_of(self.grace),
            after=self.after,
            weekdays=frozenset(_WEEK.index(day) for day in self.weekdays),
            holidays=frozenset(self.holidays),
            first=key_of(self.first, form) if self.first else None,
        )


class QuarantineSettings(_Model):
    """Above this share of records that do not fit, a batch is refused."""

    max_share: float = Field(0.0, ge=0.0, le=1.0)


class DatasetSettings(_Model):
    """One dataset: what is delivered together, and into which tables."""

    batch: Literal["date", "month"]
    landing: str
    parts: tuple[Name, ...] = ()
    complete: str = Field("manifest", pattern=rf"^(manifest|marker:[^/\s]+|settled:{_SPAN})$")
    tables: Mapping[str, str] = Field(min_length=1)  # template = glob within the delivery
    due: DueSettings | None = None
    quarantine: QuarantineSettings = QuarantineSettings()
    max_bytes: int = Field(100 << 30, gt=0)  # of one file, unpacked

    @property
    def marker(self) -> str | None:
        """The file that completes a delivery, where one does."""
        kind, _, name = self.complete.partition(":")
        return name if kind == "marker" else None

    @property
    def settled(self) -> timedelta | None:
        """How long a delivery has to lie still, where that completes it."""
        kind, _, length = self.complete.partition(":")
        return length_of(length) if kind == "settled" else None

    @field_validator("parts")
    @classmethod
    def _once(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(parts)) < len(parts):
            raise ValueError("each part once")
        return parts


class LoadSettings(_Model):
    """How much of this machine loading may use. None: as many threads as there are cores."""

    memory_limit: str = Field("1GB", pattern=r"^\d+(\.\d+)?\s?(MB|GB|MiB|GiB)$")
    threads: int | None = Field(None, ge=1)
    part_mib: int = Field(64, ge=1)


class DagsterSettings(_Model):
    """How the project's own code location, and `dagster_defs.definitions`, are made."""

    key_prefix: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], ...] = ()
    first: Mapping[Name, date] = {}  # by dataset: the day of its oldest partition
    topic: str | None = None  # None: the project's own
    running: bool = False


class ExportSettings(_Model):
    """What is written as Parquet for those who do not read Iceberg (batch/export.py)."""

    prefix: str = Field("processed/", pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*/)+$")
    tables: tuple[str, ...] | None = None  # globs of names; None: what models write
    restricted: bool = False


class Settings(BaseSettings):
    """A project. Relative paths in it are relative to `root`, its folder."""

    model_config = SettingsConfigDict(
        env_prefix="LAKEWARDEN__", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    root: Path
    project: Name
    env: Mapping[Name, EnvSettings] = Field(min_length=1)
    dataset: Mapping[Name, DatasetSettings] = {}  # none where tables are only observed
    load: LoadSettings = LoadSettings()
    dagster: DagsterSettings = DagsterSettings()
    export: ExportSettings = ExportSettings()
    names: Mapping[str, str] = {}

    @field_validator("names")
    @classmethod
    def _named(cls, names: Mapping[str, str]) -> Mapping[str, str]:
        if unknown := sorted(names.keys() - set(KEYS)):
            raise ValueError(f"nothing is called {unknown[0]!r}; there are: {', '.join(KEYS)}")
        return names

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        file = init_settings()["root"] / FILE
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)

    def environment(self, name: str | None = None) -> tuple[str, EnvSettings]:
        """The named environment; else LAKEWARDEN_ENV; else the only one, or `dev`."""
        wanted = name or os.environ.get("LAKEWARDEN_ENV")
        if wanted is None:
            wanted = next(iter(self.env)) if len(self.env) == 1 else "dev"
        if wanted not in self.env:
            raise EnvironmentUnknown(
                f"{self.root / FILE} has no [env.{wanted}]",
                hint=f"Choose one of: {', '.join(sorted(self.env))}",
            )
        return wanted, self.env[wanted]

    def catalog_uri(self, uri: str) -> str:
        """The catalog's URI, with a relative SQLite path made absolute."""
        relative = re.fullmatch(r"sqlite:///(?!/)(.+)", uri)
        if relative is None:
            return uri
        root = str(self.root).replace("%", "%25").replace("?", "%3F")  # it becomes part of a URL
        return f"sqlite:///{root}/{relative[1]}"


class LocalEndpoint(_Model):
    """What `lakewarden local up` tells of the stack that it started."""

    format: Literal[1]
    endpoint: str
    region: str
    bucket: str
    access_key: str
    secret_key: SecretStr
    control: str | None = None  # what stands in for AWS's control plane, where it runs
    nessie: str | None = None  # the catalog's server, where it runs


def cache_folder() -> Path:
    """Where this user keeps what can be fetched again, for all projects."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if given.startswith("/") else Path.home() / ".cache") / "lakewarden"


def java_home() -> Path | None:
    given = os.environ.get("JAVA_HOME")
    return Path(given) if given else None


class TaskSettings(_Model):
    """What a task of the pipeline is started with (stepfunctions/task.py)."""

    order: str | None
    token: SecretStr | None


def task_settings() -> TaskSettings:
    """LAKEWARDEN_TASK and LAKEWARDEN_TASK_TOKEN."""
    told = os.environ
    return TaskSettings.model_validate(
        {"order": told.get("LAKEWARDEN_TASK"), "token": told.get("LAKEWARDEN_TASK_TOKEN")}
    )


def find_project(folder: Path | None = None) -> Path:
    """The folder that holds lakewarden.toml: the given one, LAKEWARDEN_PROJECT, or the nearest
    above the current folder."""
    given = folder or (Path(named) if (named := os.environ.get("LAKEWARDEN_PROJECT")) else None)
    candidates = [given] if given else [Path.cwd(), *Path.cwd().parents]
    for candidate in candidates:
        if (candidate / FILE).is_file():
            return candidate.resolve()
    raise ProjectMissing(
        f"no {FILE} in {given or 'this folder or any above it'}",
        hint="Go to a project, name one with --project DIR, or make one: lakewarden init DIR",
    )


def load_settings(folder: Path) -> Settings:
    """Read and check a project's settings; raises SettingsInvalid, naming each mistake."""
    try:
        # The other fields come from the file and the environment.
        read = Settings(root=folder)
    except ValidationError as error:
        raise _invalid(folder, _mistakes(error)) from None
    except SettingsError:  # its text, or its cause's, may quote a value
        raise _invalid(folder, _whole_tables()) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid(
            f"{folder / FILE} is not TOML: {error}", hint="Mend the line that it names."
        ) from None
    if literal := list(_literal_secrets(_file_of(folder))):
        raise SecretInFile(
            f"{folder / FILE} holds a secret, which ends in version control:\n"
            + "\n".join(literal),
            hint='Write where it is kept: { env = "NAME" }, { secretsmanager = "name", key = "k" }'
            ' or { ssm = "/path" } (docs/environments.md). If it was committed, change it.',
        )
    if mistakes := list(_meeting(read)):
        raise _invalid(folder, mistakes)
    return read


def variables() -> Mapping[str, str]:
    """All of the process's environment: for references to secrets, and for who picks out of it
    what another program needs."""
    return os.environ


def local_endpoint(root: Path) -> LocalEndpoint:
    """The local stack's address and keys; raises LocalStackDown where none was started."""
    file = root / ".lakewarden" / "local" / "endpoint.json"
    try:
        return LocalEndpoint.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise LocalStackDown(
            "the local stack of this project is not running", hint="lakewarden local up"
        ) from None
    except ValidationError:  # its text may quote a key
        raise LocalStackDown(
            f"{file} is not as it was written", hint="lakewarden local up"
        ) from None


def _invalid(folder: Path, mistakes: Iterable[str]) -> SettingsInvalid:
    return SettingsInvalid(
        f"{folder / FILE} is not valid:\n" + "\n".join(mistakes),
        hint="Every key is described in docs/settings.md.",
    )


def _file_of(folder: Path) -> Mapping[str, object]:
    with (folder / FILE).open("rb") as file:
        return tomllib.load(file)


def _literal_secrets(told: object, where: str = "") -> Iterator[str]:
    """Where a part of the file holds what should be a reference: a password or token as text, or
    an address with one in it."""
    if not isinstance(told, dict):
        if isinstance(told, str) and _PASSWORD_IN_URI.search(told):
            yield f"  {where}: a password stands in it"
        return
    for key, value in told.items():
        below = f"{where}.{key}".lstrip(".")
        if key in _SECRET_KEYS and isinstance(value, str):
            yield f"  {below}: a reference, not the {key} itself"
        else:
            yield from _literal_secrets(value, below)


def _whole_tables() -> Iterator[str]:
    """Variables that would override a table as a whole, with what is no table."""
    for name, field in Settings.model_fields.items():
        for variable in os.environ:
            if variable.upper() == f"LAKEWARDEN__{name}".upper() and field.annotation is not str:
                yield f"  {variable}: stands for a table; a variable overrides one value"


def _meeting(settings: Settings) -> Iterator[str]:
    """Landings that can hold, or lie in, another's or what is not delivered at all: a delivery
    replaces all that lies in its prefix."""
    taken: dict[str, tuple[str, ...]] = {
        _OPERATIONS: (_OPERATIONS,),
        "export.prefix": (settings.export.prefix,),
    }
    for name, env in settings.env.items():
        taken[f"env.{name}.warehouse"] = (f"{env.warehouse.strip('/')}/".lstrip("/"),)
    for name, dataset in settings.dataset.items():
        where = f"dataset.{name}.landing"
        shapes = shapes_of(dataset.landing, dataset.batch, dataset.parts)
        for other, theirs in taken.items():
            if any(meet(one, two) for one in shapes for two in theirs):
                yield f"  {where}: could hold, or lie in, {other}"
        taken[where] = shapes


def _mistakes(error: ValidationError) -> Iterator[str]:
    """Where and what, and never the value: it may be a secret."""
    for mistake in error.errors(include_input=False, include_url=False):
        told = [str(part) for part in mistake["loc"]]
        if "catalog" in told[:-1]:
            del told[told.index("catalog") + 1]  # the kind, which is no key of the file
        where = ".".join(told)
        yield f"  {where}: {mistake['msg']}"
