"""lakewarden.toml and the environment: what is taken from where, and how mistakes are told."""

import json
import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from lakewarden.aws.secrets import (
    ManagedSecret,
    Parameter,
    Reference,
    SecretUnusable,
    Variable,
    bearer,
)
from lakewarden.environment import Environment, LocalNessieMissing
from lakewarden.errors import LakewardenError, WrongUsage
from lakewarden.lake.nessie import NessieLake
from lakewarden.settings import (
    EnvironmentUnknown,
    LocalStackDown,
    NessieCatalogSettings,
    ProjectMissing,
    SecretInFile,
    Settings,
    SettingsInvalid,
    SqlCatalogSettings,
    find_project,
    load_settings,
    local_endpoint,
)

PASSWORD = "hunter2-geheim"
TEXT = """
project = "flights"

[env.dev]
account = "local"
bucket = "flights-dev"
catalog = { type = "sql", uri = "sqlite:///.lakewarden/catalog.db" }

[env.prod]
account = "123456789012"
region = "ap-northeast-1"
bucket = "flights-prod"
catalog = { uri = "postgresql+psycopg://lake@db.invalid/lake" }

[dataset.flights]
batch = "date"
landing = "raw/flights/{batch}/"
tables = { flights = "flights*.csv*" }
due = { at = "06:00", zone = "Asia/Tokyo", grace = "90m" }

[dataset.dpc]
batch = "month"
landing = "raw/yyyymm={batch}/{part}/"
parts = ["y1", "ef_in"]
tables = { y1 = "y1/*" }
quarantine = { max_share = 0.01 }
"""


@pytest.fixture(autouse=True)
def _untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LAKEWARDEN_PROJECT", "LAKEWARDEN_ENV"):
        monkeypatch.delenv(name, raising=False)


def project(folder: Path, text: str = TEXT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lakewarden.toml").write_text(text)
    return folder.resolve()


def settings(folder: Path, text: str = TEXT) -> Settings:
    return load_settings(project(folder, text))


def test_a_file_is_read_with_what_it_leaves_out(tmp_path: Path) -> None:
    read = settings(tmp_path)
    flights, dpc = read.dataset["flights"], read.dataset["dpc"]
    assert (flights.parts, dpc.parts) == ((), ("y1", "ef_in"))
    assert (flights.quarantine.max_share, dpc.quarantine.max_share) == (0.0, 0.01)
    assert flights.due and flights.due.zone == "Asia/Tokyo"
    assert (read.env["dev"].region, read.env["prod"].region) == ("us-east-1", "ap-northeast-1")
    assert read.load.memory_limit == "1GB"


# ── mistakes ────────────────────────────────────────────────────────────────────────────────────

ELSEWHERE = "arn:aws:iam::999999999999:role/writer"
MISTAKES = [
    ('project = "flights"', 'project = "Flights!"', "project"),
    ('project = "flights"', "", "project"),
    ('project = "flights"', 'project = "flights"\nprojekt = 1', "projekt"),
    ('account = "local"', 'account = "123"', "env.dev.account"),
    ('bucket = "flights-dev"', "", "env.dev.bucket"),
    ('type = "sql"', 'type = "hive"', "env.dev.catalog.type"),
    ('{ uri = "postgres', '{ url = "postgres', "env.prod.catalog.uri"),
    ('{ uri = "postgres', '{ secret = "x", uri = "postgres', "env.prod.catalog.secret"),
    ('region = "ap-northeast-1"', 'role_arn = "admin"', "env.prod.role_arn"),
    ('region = "ap-northeast-1"', 'profile = ""', "env.prod.profile"),
    ('account = "local"', 'account = "local"\nprofile = "mine"', "env.dev"),
    ('region = "ap-northeast-1"', f'role_arn = "{ELSEWHERE}"', "env.prod"),
    ('batch = "date"', 'batch = "week"', "dataset.flights.batch"),
    ('tables = { y1 = "y1/*" }', "tables = {}", "dataset.dpc.tables"),
    ('"y1", "ef_in"', '"y1", "y1"', "dataset.dpc.parts"),
    ('"y1", "ef_in"', '"y1", "../y1"', "dataset.dpc.parts.1"),
    ('"y1", "ef_in"', '"y1", "a/b"', "dataset.dpc.parts.1"),
    ("max_share = 0.01", "max_share = 2", "dataset.dpc.quarantine.max_share"),
    ('at = "06:00"', 'at = "6"', "dataset.flights.due.at"),
    ("[dataset.dpc]", "[load]\nthreads = 0\n[dataset.dpc]", "load.threads"),
    ("[dataset.dpc]", '[load]\nmemory_limit = "lots"\n[dataset.dpc]', "load.memory_limit"),
    ('"raw/flights/{batch}/"', '"ops/flights/{batch}/"', "dataset.flights.landing"),
    ('"raw/flights/{batch}/"', '"warehouse/raw/{batch}/"', "dataset.flights.landing"),
    ('region = "ap-northeast-1"', 'warehouse = "raw/flights/"', "dataset.flights.landing"),
    ('region = "ap-northeast-1"', 'warehouse = ""', "dataset.dpc.landing"),
    ('"raw/yyyymm={batch}/{part}/"', '"raw/flights/{batch}-01/{part}/"', "dataset.dpc.landing"),
]


@pytest.mark.parametrize(("right", "wrong", "key"), MISTAKES, ids=[m[2] for m in MISTAKES])
def test_a_mistake_is_named_by_its_key(tmp_path: Path, right: str, wrong: str, key: str) -> None:
    assert right in TEXT
    with pytest.raises(SettingsInvalid) as caught:
        settings(tmp_path, TEXT.replace(right, wrong, 1))
    assert f"\n  {key}: " in caught.value.message
    assert str(tmp_path / "lakewarden.toml") in caught.value.message
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert PASSWORD not in everything_told(caught.value)


def everything_told(error: LakewardenError) -> str:
    causes = [
        error,
        error.__cause__,
        *([error.__context__] if not error.__suppress_context__ else []),
    ]
    return " ".join(f"{each} {each!r}" for each in causes) + f"{error.hint}"


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        settings(tmp_path, TEXT.replace('"date"', '"week"').replace('"06:00"', '"6"'))
    assert "dataset.flights.batch" in caught.value.message
    assert "dataset.flights.due.at" in caught.value.message


@pytest.mark.parametrize("text", ["project = ", "\x00", 'a = "é"'.encode("latin-1")])
def test_what_is_no_toml_is_told_with_its_file(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "lakewarden.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsInvalid, match=r"lakewarden\.toml"):
        load_settings(tmp_path)


def test_a_secret_in_the_wrong_place_is_not_told(tmp_path: Path) -> None:
    wrong = TEXT.replace('account = "123456789012"', f'account = "{PASSWORD}"')
    with pytest.raises(SettingsInvalid) as caught:
        settings(tmp_path, wrong)
    assert "env.prod.account" in caught.value.message
    assert PASSWORD not in everything_told(caught.value)


def test_secrets_are_not_shown_by_what_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEWARDEN__ENV__PROD__CATALOG__URI", WITH_PASSWORD)
    monkeypatch.setenv("LAKEWARDEN__ENV__DEV__CATALOG__PASSWORD", PASSWORD)
    read = settings(tmp_path)
    opened = [Environment(read, name, env) for name, env in read.env.items()]
    shown = f"{read!r} {read} {read.model_dump()} {read.model_dump_json()} {opened}"
    assert PASSWORD not in shown
    uri, catalog = read.env["prod"].catalog.uri, read.env["dev"].catalog
    assert isinstance(catalog, SqlCatalogSettings)
    password = catalog.password
    assert isinstance(uri, SecretStr)
    assert uri.get_secret_value() == WITH_PASSWORD
    assert isinstance(password, SecretStr)
    assert password.get_secret_value() == PASSWORD


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────

PROD = 'catalog = { uri = "postgresql+psycopg://lake@db.invalid/lake" }'
WITH_PASSWORD = f"postgresql+psycopg://lake:{PASSWORD}@db.invalid/lake"


@pytest.mark.parametrize(
    "catalog",
    [
        f'{{ uri = "{WITH_PASSWORD}" }}',
        f'{{ uri = "postgresql://:{PASSWORD}@db.invalid/lake" }}',
        f'{{ uri = "postgresql://lake:{PASSWORD}/{PASSWORD}@db.invalid/lake" }}',
        f'{{ uri = "postgresql://db.invalid/lake?user=lake&password={PASSWORD}" }}',
        f'{{ uri = "postgresql://db.invalid/lake?sslPassword={PASSWORD}" }}',
        f'{{ uri = "postgresql://lake@db.invalid/lake", password = "{PASSWORD}" }}',
        f'{{ type = "nessie", uri = "http://lake.invalid:19120", token = "{PASSWORD}" }}',
        f'{{ type = "nessie", uri = "http://lake:{PASSWORD}@lake.invalid:19120" }}',
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalog: str
) -> None:
    text = TEXT.replace(PROD, f"catalog = {catalog}")
    with pytest.raises(SecretInFile, match=r"env\.prod\.catalog") as caught:
        settings(tmp_path, text)
    assert PASSWORD not in everything_told(caught.value)
    assert "secretsmanager" in (caught.value.hint or "")
    # That a variable overrides it does not take it out of the file.
    monkeypatch.setenv("LAKEWARDEN__ENV__PROD__CATALOG__URI", "sqlite:///x.db")
    with pytest.raises(SecretInFile):
        settings(tmp_path, text)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://lake@db.invalid/lake?options=-c%20a=b",
        "postgresql://db.invalid:5432/lake",
        "sqlite:////var/a:b@c/catalog.db",
        "sqlite:///.lakewarden/catalog.db?timeout=5",
    ],
)
def test_an_address_without_a_password_stands_in_the_file(tmp_path: Path, uri: str) -> None:
    read = settings(tmp_path, TEXT.replace(PROD, f'catalog = {{ uri = "{uri}" }}'))
    found = read.env["prod"].catalog.uri
    assert isinstance(found, SecretStr)
    assert found.get_secret_value() == uri


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('{ env = "LAKE_URI" }', Variable(env="LAKE_URI")),
        ('{ secretsmanager = "lake" }', ManagedSecret(secretsmanager="lake")),
        (
            '{ secretsmanager = "lake", key = "uri" }',
            ManagedSecret(secretsmanager="lake", key="uri"),
        ),
        ('{ ssm = "/lake/uri" }', Parameter(ssm="/lake/uri")),
    ],
)
def test_a_secret_is_referred_to(tmp_path: Path, written: str, read: Reference) -> None:
    found = settings(tmp_path, TEXT.replace(PROD, f"catalog = {{ uri = {written} }}"))
    assert found.env["prod"].catalog.uri == read


@pytest.mark.parametrize(
    "written",
    ['{ env = "" }', '{ env = "A", ssm = "/a" }', '{ vault = "a" }', "{ }", '{ key = "a" }', "7"],
)
def test_a_reference_that_cannot_be_read_is_named(tmp_path: Path, written: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"env\.prod\.catalog\.uri"):
        settings(tmp_path, TEXT.replace(PROD, f"catalog = {{ uri = {written} }}"))


def test_a_variable_may_hold_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEWARDEN__ENV__PROD__CATALOG__PASSWORD__SSM", "/lake/password")
    read = settings(tmp_path)
    catalog = read.env["prod"].catalog
    assert isinstance(catalog, SqlCatalogSettings)
    assert catalog.password == Parameter(ssm="/lake/password")


def test_a_password_is_put_into_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = f"{PASSWORD}@/:%?"
    monkeypatch.setenv("LAKE_PASSWORD", odd)
    where = f'{PROD[:-2]}, password = {{ env = "LAKE_PASSWORD" }} }}'
    read = settings(tmp_path, TEXT.replace(PROD, where))
    url = make_url(Environment(read, "prod", read.env["prod"]).catalog_uri())
    assert (url.username, url.password, url.host) == ("lake", odd, "db.invalid")


# ── the environment ─────────────────────────────────────────────────────────────────────────────


def test_a_variable_overrides_one_key_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEWARDEN__LOAD__MEMORY_LIMIT", "512MB")
    monkeypatch.setenv("LAKEWARDEN__ENV__PROD__BUCKET", "elsewhere")
    monkeypatch.setenv("LAKEWARDEN__DATASET__DPC__QUARANTINE__MAX_SHARE", "0.5")
    read = settings(tmp_path)
    assert read.load.memory_limit == "512MB"
    assert read.load.part_mib == 64
    assert (read.env["prod"].bucket, read.env["prod"].region) == ("elsewhere", "ap-northeast-1")
    assert read.dataset["dpc"].quarantine.max_share == 0.5
    assert read.dataset["dpc"].parts == ("y1", "ef_in")


def test_a_mistake_in_a_variable_is_named_by_the_key_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKEWARDEN__ENV__PROD__ACCOUNT", PASSWORD)
    with pytest.raises(SettingsInvalid) as caught:
        settings(tmp_path)
    assert "env.prod.account" in caught.value.message
    assert PASSWORD not in everything_told(caught.value)


@pytest.mark.parametrize("name", ["LOAD", "ENV", "DATASET", "dataset"])
def test_a_variable_for_a_whole_table_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"LAKEWARDEN__{name}", PASSWORD)
    with pytest.raises(SettingsInvalid, match=f"LAKEWARDEN__{name}") as caught:
        settings(tmp_path)
    assert PASSWORD not in everything_told(caught.value)


def test_an_unknown_variable_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEWARDEN__LOAD__MEMROY_LIMIT", "512MB")
    with pytest.raises(SettingsInvalid, match="memroy_limit"):
        settings(tmp_path)


def test_the_environment_is_named_or_the_only_one_or_dev(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = settings(tmp_path)
    assert read.environment()[0] == "dev"
    assert read.environment("prod")[0] == "prod"
    monkeypatch.setenv("LAKEWARDEN_ENV", "prod")
    assert read.environment()[0] == "prod"
    assert read.environment("dev")[0] == "dev"
    monkeypatch.setenv("LAKEWARDEN_ENV", "nope")
    with pytest.raises(EnvironmentUnknown) as caught:
        read.environment()
    assert "dev, prod" in (caught.value.hint or "")
    monkeypatch.delenv("LAKEWARDEN_ENV")
    start, end = TEXT.index("[env.dev]"), TEXT.index("[env.prod]")
    only = settings(tmp_path / "only", TEXT[:start] + TEXT[end:])
    assert only.environment()[0] == "prod"


# ── the project ─────────────────────────────────────────────────────────────────────────────────


def test_a_project_is_the_named_folder_or_the_nearest_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = project(tmp_path / "outer lake")
    inner = project(outer / "inner")
    (inner / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(inner / "deep" / "down")
    assert find_project() == inner
    assert find_project(outer) == outer
    assert find_project(Path("../..")) == inner
    monkeypatch.setenv("LAKEWARDEN_PROJECT", str(outer))
    assert find_project() == outer
    assert find_project(inner) == inner


@pytest.mark.parametrize("how", ["above", "given", "variable"])
def test_a_project_that_is_not_there_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if how == "variable":
        monkeypatch.setenv("LAKEWARDEN_PROJECT", str(tmp_path / "nowhere"))
    with pytest.raises(ProjectMissing) as caught:
        find_project(tmp_path / "nowhere" if how == "given" else None)
    assert caught.value.exit_code == 2
    assert "lakewarden init" in (caught.value.hint or "")
    assert ("nowhere" in caught.value.message) == (how != "above")


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("sqlite:///.lakewarden/catalog.db", "sqlite:///{root}/.lakewarden/catalog.db"),
        ("sqlite:///catalog.db?timeout=5", "sqlite:///{root}/catalog.db?timeout=5"),
        ("sqlite:////var/lake/catalog.db", "sqlite:////var/lake/catalog.db"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
    ],
)
def test_a_relative_catalog_lies_in_the_project(tmp_path: Path, uri: str, found: str) -> None:
    text = TEXT.replace("sqlite:///.lakewarden/catalog.db", uri)
    read = settings(tmp_path / "a lake", text)
    opened = Environment(read, "dev", read.env["dev"])
    assert opened.catalog_uri() == found.format(root=read.root)


def test_a_catalog_lies_in_the_project_whatever_its_name(tmp_path: Path) -> None:
    read = settings(tmp_path / "50%20 of? a#lake", TEXT)
    uri = Environment(read, "dev", read.env["dev"]).catalog_uri()
    assert make_url(uri).database == str(read.root / ".lakewarden" / "catalog.db")


# ── the local stack ─────────────────────────────────────────────────────────────────────────────


def test_a_stack_that_was_never_started_is_told_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(LocalStackDown) as caught:
        local_endpoint(tmp_path)
    assert (caught.value.exit_code, caught.value.hint) == (75, "lakewarden local up")


def test_the_stacks_keys_are_read_and_not_shown(tmp_path: Path) -> None:
    folder = tmp_path / ".lakewarden" / "local"
    folder.mkdir(parents=True)
    (folder / "endpoint.json").write_text(
        '{"format": 1, "endpoint": "http://127.0.0.1:1", "region": "us-east-1", "bucket": "b",'
        f' "access_key": "a", "secret_key": "{PASSWORD}"}}'
    )
    found = local_endpoint(tmp_path)
    assert found.secret_key.get_secret_value() == PASSWORD
    assert PASSWORD not in f"{found!r} {found}"
    (folder / "endpoint.json").write_text('{"format": 2}')
    with pytest.raises(LakewardenError) as caught:
        local_endpoint(tmp_path)
    assert "endpoint.json" in caught.value.message


# ── Nessie ──────────────────────────────────────────────────────────────────────────────────────

DEV = 'catalog = { type = "sql", uri = "sqlite:///.lakewarden/catalog.db" }'


def endpoint(folder: Path, **more: str) -> None:
    file = folder / ".lakewarden" / "local" / "endpoint.json"
    file.parent.mkdir(parents=True)
    told = {"format": 1, "endpoint": "http://127.0.0.1:1", "region": "us-east-1", "bucket": "b"}
    file.write_text(json.dumps({**told, "access_key": "k", "secret_key": "s", **more}))


def test_a_nessie_of_the_local_stack_is_found(tmp_path: Path) -> None:
    read = settings(tmp_path, TEXT.replace(DEV, 'catalog = { type = "nessie" }'))
    catalog = read.env["dev"].catalog
    assert isinstance(catalog, NessieCatalogSettings)
    assert (catalog.warehouse, catalog.main) == ("lake", "main")
    opened = Environment(read, "dev", read.env["dev"])
    with pytest.raises(LocalStackDown):
        opened.catalog_uri()
    endpoint(tmp_path, nessie="http://127.0.0.1:2")
    assert opened.catalog_uri() == "http://127.0.0.1:2"
    assert isinstance(opened.lake, NessieLake)


def test_a_local_stack_without_nessie_says_how_to_get_one(tmp_path: Path) -> None:
    read = settings(tmp_path, TEXT.replace(DEV, 'catalog = { type = "nessie" }'))
    endpoint(tmp_path)
    with pytest.raises(LocalNessieMissing) as caught:
        _ = Environment(read, "dev", read.env["dev"]).lake
    assert caught.value.hint == "lakewarden local up --catalog nessie"


def test_elsewhere_a_nessie_has_an_address(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"env\.prod: .*catalog\.uri"):
        settings(tmp_path, TEXT.replace(PROD, 'catalog = { type = "nessie" }'))


def test_a_token_is_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_TOKEN", PASSWORD)
    token = 'token = { env = "LAKE_TOKEN" }'
    nessie = f'catalog = {{ type = "nessie", uri = "http://127.0.0.1:2", {token} }}'
    read = settings(tmp_path, TEXT.replace(DEV, nessie))
    endpoint(tmp_path)
    opened = Environment(read, "dev", read.env["dev"])
    shown = f"{opened.lake!r} {opened!r} {read.model_dump_json()}"
    assert PASSWORD not in shown
    assert "http://127.0.0.1:2" in shown


@pytest.mark.parametrize("end", ["", "\n", "\r\n", " "])
def test_a_token_may_be_kept_with_a_line_end(end: str) -> None:
    assert bearer(f"{PASSWORD}{end}") == PASSWORD


@pytest.mark.parametrize("wrong", ["\n", f"{PASSWORD}\nX: y", f"Bearer {PASSWORD}", f"{PASSWORD}é"])
def test_what_is_no_token_is_told_without_it(wrong: str) -> None:
    with pytest.raises(SecretUnusable) as caught:
        bearer(wrong)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_address_of_a_nessie_is_refused_without_telling_it(tmp_path: Path) -> None:
    nessie = 'catalog = { type = "nessie", uri = "lake.invalid:19120" }'
    read = settings(tmp_path, TEXT.replace(DEV, nessie))
    endpoint(tmp_path)
    with pytest.raises(WrongUsage, match="not that of a Nessie"):
        _ = Environment(read, "dev", read.env["dev"]).lake
