"""lakewarden.toml and the environment: what is taken from where, and how mistakes are told."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from lakewarden.errors import LakewardenError
from lakewarden.settings import (
    EnvironmentUnknown,
    LocalStackDown,
    ProjectMissing,
    Settings,
    SettingsInvalid,
    find_project,
    load_settings,
    local_endpoint,
)

PASSWORD = "hunter2-geheim"
TEXT = f"""
project = "flights"

[env.dev]
account = "local"
bucket = "flights-dev"
catalog = {{ type = "sql", uri = "sqlite:///.lakewarden/catalog.db" }}

[env.prod]
account = "123456789012"
region = "ap-northeast-1"
bucket = "flights-prod"
catalog = {{ uri = "postgresql+psycopg://lake:{PASSWORD}@db.invalid/lake" }}

[dataset.flights]
batch = "date"
landing = "raw/flights/{{batch}}/"
tables = {{ flights = "flights*.csv*" }}
due = {{ at = "06:00", zone = "Asia/Tokyo", grace = "90m" }}

[dataset.dpc]
batch = "month"
landing = "raw/yyyymm={{batch}}/{{part}}/"
parts = ["y1", "ef_in"]
tables = {{ y1 = "y1/*" }}
quarantine = {{ max_share = 0.01 }}
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

MISTAKES = [
    ('project = "flights"', 'project = "Flights!"', "project"),
    ('project = "flights"', "", "project"),
    ('project = "flights"', 'project = "flights"\nprojekt = 1', "projekt"),
    ('account = "local"', 'account = "123"', "env.dev.account"),
    ('bucket = "flights-dev"', "", "env.dev.bucket"),
    ('type = "sql"', 'type = "hive"', "env.dev.catalog.type"),
    ('{ uri = "postgres', '{ url = "postgres', "env.prod.catalog.uri"),
    ('{ uri = "postgres', '{ password = "x", uri = "postgres', "env.prod.catalog.password"),
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


def test_secrets_are_not_shown_by_what_holds_them(tmp_path: Path) -> None:
    read = settings(tmp_path)
    assert PASSWORD not in f"{read!r} {read} {read.model_dump()} {read.model_dump_json()}"
    assert PASSWORD in read.catalog_uri(read.env["prod"])


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
    assert read.catalog_uri(read.env["dev"]) == found.format(root=read.root)


def test_a_catalog_lies_in_the_project_whatever_its_name(tmp_path: Path) -> None:
    read = settings(tmp_path / "50%20 of? a#lake", TEXT)
    uri = read.catalog_uri(read.env["dev"])
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
