"""The command line as a user meets it: each command on a real project, for people and programs."""

import base64
import io
import json
import os
import pty
import re
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from duckdb import DuckDBPyConnection
from typer.main import get_command

from lakewarden.batch.query import ask, read_only
from lakewarden.cli import app, main
from lakewarden.cli.output import console
from lakewarden.errors import LakewardenError
from lakewarden.wiring import open_project

LAKEWARDEN = Path(sys.executable).with_name("lakewarden")
SETTINGS = """
project = "shop"

[env.dev]
account = "local"
region = "us-east-1"
bucket = "shop-dev"
catalog = { type = "sql", uri = "sqlite:///.lakewarden/catalog.db" }

[env.prod]
account = "123456789012"
region = "eu-central-1"
bucket = "shop-prod"
catalog = { type = "sql", uri = "postgresql+psycopg://shop@db.invalid/shop" }

[dataset.orders]
batch = "date"
landing = "raw/orders/{batch}/"
tables = { orders = "orders*.csv" }

[dataset.cases]
batch = "month"
landing = "raw/yyyymm={batch}/{part}/"
parts = ["y1", "d"]
tables = { y1 = "y1/*", d = "d/*" }
"""
ORDERS = """
name: orders
namespace: raw
description: "What was ordered in the shop, as delivered, and what it cost in the end, in words"
load: {dataset: orders}
source: {format: csv}
columns:
  - {name: id, type: int, required: true, description: "A number that the shop gives, once"}
  - {name: item, type: string, pii: true, access_level: restricted}
  - {name: price, type: "decimal(9,2)"}
  - {name: day, type: date}
  - {name: at, type: timestamptz}
"""
PART = """
name: {name}
namespace: raw
load: {{dataset: cases}}
source: {{format: csv, csv_options: {{header: false, encoding: cp932}}}}
columns:
  - {{name: id, type: string, required: true}}
  - {{name: count, type: int}}
"""
HEADER = "id,item,price,day,at\n"
GOOD = f"{HEADER}1,寿司　上,12.50,2024-01-01,2024-01-01T10:00:00Z\n2,,,,\n"
SECRET = "Frau Geheim\x1b[31m"  # a row's value, with what turns a terminal red
DAMAGED = f"{HEADER}1,茶,1.00,2024-01-02,2024-01-02T10:00:00Z\nx,{SECRET},1.00,,\n3,y,z,,\n"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def lakewarden(*args: object, at: Path | None = None, stdin: str = "") -> Answer:
    """The real command in this process; `at` is the folder that it is called in."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    before, handler = Path.cwd(), signal.getsignal(signal.SIGTERM)
    argv = ["lakewarden", *map(str, args)]
    os.chdir(at or before)
    try:
        with (
            redirect_stdout(out),
            redirect_stderr(err),
            patch.object(sys, "argv", argv),
            patch.object(sys, "stdin", io.StringIO(stdin)),
            pytest.raises(SystemExit) as ended,
        ):
            main()
    finally:
        os.chdir(before)
        signal.signal(signal.SIGTERM, handler)
    return Answer(int(ended.value.code or 0), _text(out), _text(err))


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


@dataclass(frozen=True)
class Shop:
    """A project in a path with spaces, with something of everything."""

    root: Path
    refused_run: str
    branch: str

    def run(self, *args: object, stdin: str = "") -> Answer:
        return lakewarden(*args, at=self.root, stdin=stdin)

    def json(self, *args: object) -> Any:
        answer = self.run(*args, "--json")
        assert answer.code == 0, answer
        return answer.json


def folder_with(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body if isinstance(body, bytes) else body.encode())
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One batch published, one refused with misfits, one left on its branch."""
    root = tmp_path_factory.mktemp("cli") / "a shop's lake"
    folder_with(
        root,
        {
            "lakewarden.toml": SETTINGS,
            "tables/orders.yaml": ORDERS,
            "tables/y1.yaml": PART.format(name="y1"),
            "tables/d.yaml": PART.format(name="d"),
            "deep/down/x": "",
        },
    )
    assert lakewarden("local", "up", at=root).code == 0
    try:
        for batch, text in (("01", GOOD), ("02", DAMAGED), ("03", GOOD)):
            delivery = folder_with(root / "deliveries" / batch, {"orders.csv": text})
            answer = lakewarden("batch", "deliver", "orders", f"2024-01-{batch}", delivery, at=root)
            assert answer.code == 0, answer
        published = lakewarden("batch", "run", "orders", "2024-01-01", "--json", at=root)
        assert (published.code, published.json["status"]) == (0, "published"), published
        assert lakewarden("batch", "run", "orders", "2024-01-02", at=root).code == 3
        left = lakewarden("batch", "run", "orders", "2024-01-03", "--no-publish", "--json", at=root)
        listed = lakewarden("batch", "list", "--json", at=root).json
        refused = next(one["run"] for one in listed if one["outcome"] == "refused")
        yield Shop(root, refused, left.json["branch"])
    finally:
        assert lakewarden("local", "down", at=root).code == 0


# ── help, start-up, completion ──────────────────────────────────────────────────────────────────


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the tree, as it is typed."""

    def walk(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        children = getattr(command, "commands", {})
        if not children:
            yield path, command
        for name, child in children.items():
            yield from walk((*path, name), child)

    return walk((), get_command(app))


COMMANDS = dict(commands())


def test_the_commands_are_those_that_are_promised() -> None:
    assert {" ".join(path) for path in COMMANDS} == {
        "init",
        "adopt",
        "demo",
        "doctor",
        "dagster dev",
        "export",
        "query",
        "status",
        *(f"local {name}" for name in ("up", "down", "status", "logs", "env")),
        *(f"table {name}" for name in ("list", "show", "plan", "apply", "drift")),
        *(f"batch {name}" for name in ("manifest", "deliver", "run", "list", "show")),
        *(f"batch {name}" for name in ("diff", "unpublish")),
        *(f"quarantine {name}" for name in ("list", "show", "mend", "replay")),
        *(f"lake {name}" for name in ("log", "branches", "show", "discard")),
    }


def test_a_shell_is_led_to_the_stack_whatever_it_had_before(tmp_path: Path) -> None:
    (tmp_path / "lakewarden.toml").write_text(
        'project = "p"\n[env.dev]\naccount = "local"\nbucket = "p-dev"\n'
        'catalog = { type = "sql", uri = "sqlite:///c.db" }\n'
    )
    endpoint = tmp_path / ".lakewarden" / "local" / "endpoint.json"
    endpoint.parent.mkdir(parents=True)
    told = {"endpoint": "http://127.0.0.1:1", "control": "http://127.0.0.1:2", "format": 1}
    keys = {"access_key": "key", "secret_key": "it's $(secret)"}
    endpoint.write_text(json.dumps({**told, **keys, "region": "eu-west-1", "bucket": "p-dev"}))
    lines = lakewarden("local", "env", at=tmp_path)
    assert lines.code == 0
    before = {"AWS_PROFILE": "mine", "AWS_SESSION_TOKEN": "mine", "AWS_REGION": "us-west-2"}
    shell = subprocess.run(
        ["sh", "-c", 'eval "$1"; env', "sh", lines.out],
        check=True,
        capture_output=True,
        text=True,
        env=before,
    )
    found = dict(line.split("=", 1) for line in shell.stdout.splitlines())
    assert {name: value for name, value in found.items() if name.startswith("AWS_")} == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:2",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "it's $(secret)",
    }
    endpoint.unlink()
    down = lakewarden("local", "env", at=tmp_path)
    assert (down.code, down.out) == (75, "")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example(path: tuple[str, ...]) -> None:
    answer = lakewarden(*path, "--help")
    assert answer.code == 0
    assert f"lakewarden {' '.join(path)} " in f"{' '.join(answer.out.split())} "
    assert "Example: lakewarden " in " ".join(answer.out.split())
    options = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    of_a_project = set() if path[0] in ("init", "demo") else {"--project", "--env"}
    assert options >= {"--json"} | of_a_project


@pytest.mark.parametrize(
    "path", [(), ("local",), ("table",), ("batch",), ("quarantine",), ("lake",)]
)
def test_a_list_of_commands_says_what_each_does_in_a_whole_sentence(path: tuple[str, ...]) -> None:
    answer = lakewarden(*path, "--help")
    assert answer.code == 0
    assert "..." not in answer.out.replace("[ARGS]...", "")
    assert max(map(len, answer.out.splitlines())) <= 80


def test_help_comes_at_once() -> None:
    """0.3 s of a processor's time, with compiled bytecode; waiting for a busy one is not ours."""

    def seconds() -> float:
        before = os.times()
        subprocess.run([LAKEWARDEN, "--help"], check=True, capture_output=True, env=_compiled())
        after = os.times()
        return (
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )

    assert min(seconds() for _ in range(4)) < 0.3


def _compiled() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    heavy = ("boto3", "duckdb", "pyarrow", "pyiceberg", "pydantic", "dbt", "rich.progress")
    code = f"import sys, lakewarden.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_told_by_the_command_and_by_the_module() -> None:
    told = {
        subprocess.run([*argv, "--version"], check=True, capture_output=True, text=True).stdout
        for argv in ([str(LAKEWARDEN)], [sys.executable, "-m", "lakewarden"])
    }
    assert len(told) == 1
    assert re.fullmatch(r"lakewarden \d+\.\d+\.\d+\S*\n", told.pop())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("lakewarden ba", "batch"),
        ("lakewarden batch r", "run"),
        ("lakewarden query --br", "--branch"),
    ],
)
def test_the_shell_completes_commands_and_options(words: str, offered: str) -> None:
    told = {"_LAKEWARDEN_COMPLETE": "complete_bash", "COMP_WORDS": words}
    env = {**os.environ, **told, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run([LAKEWARDEN], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.split() == [offered]


def test_completion_can_be_shown_for_the_shell() -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{LAKEWARDEN}' --show-completion; exit $?"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "_LAKEWARDEN_COMPLETE" in done.stdout


# ── for programs ────────────────────────────────────────────────────────────────────────────────


def test_every_command_that_shows_something_shows_it_as_one_json_document(shop: Shop) -> None:
    manifest = shop.json("batch", "manifest", "s3://shop-dev/raw/orders/2024-01-03/")
    assert [entry["url"] for entry in manifest["entries"]] == ["orders.csv"]
    assert {one["table"] for one in shop.json("table", "list")} == {"raw.orders", "raw.y1", "raw.d"}
    columns = shop.json("table", "show", "orders")["columns"]
    assert columns[1]["pii"] and columns[1]["access_level"] == "restricted"
    status = shop.json("local", "status")
    assert status["up"] and {part["name"] for part in status["parts"]} >= {"s3"}
    assert shop.json("local", "up")["started"] is False
    assert len(shop.json("local", "logs", "-n", "3")) == 3
    assert shop.json("batch", "run", "orders", "2024-01-01")["status"] == "unchanged"
    assert [one["branch"] for one in shop.json("lake", "branches")] == [shop.branch]
    first = next(one for one in shop.json("lake", "log") if one["batch"] == "2024-01-01")
    assert first["counts"] == {"in": 2, "loaded": 2, "quarantined": 0}
    shown = shop.json("lake", "show", first["version"])
    assert shown["tables"]["raw.orders"] == first["tables"]["raw.orders"]["after"]
    assert shown["publications"] == [first]
    assert shop.json("lake", "show", shop.branch)["ref"] == shop.branch


def test_what_happened_to_each_run_is_told(shop: Shop) -> None:
    runs = {one["batch"]: one for one in reversed(shop.json("batch", "list"))}
    outcomes = {batch: one["outcome"] for batch, one in runs.items() if batch < "2024-02"}
    assert outcomes["2024-01-02"] == "refused"
    assert outcomes["2024-01-03"] == "left"
    assert runs["2024-01-02"]["error"] == "too-many-misfits"
    stages = shop.json("batch", "show", "orders", "2024-01-02")
    assert [(one["stage"], one["outcome"]) for one in stages] == [
        ("receive", "ok"),
        ("load", "refused"),
    ]
    assert stages == shop.json("batch", "show", "orders", shop.refused_run)
    assert len(shop.json("batch", "list", "-n", "1")) == 1


MISTAKES: list[tuple[Sequence[str], int, str]] = [
    (["batch", "run"], 2, "command-line-invalid"),
    (["batch", "run", "orders"], 2, "command-line-invalid"),
    (["lake", "log", "-n", "0"], 2, "command-line-invalid"),
    (["lake", "nope"], 2, "command-line-invalid"),
    (["query", "SELECT 1", "--nope"], 2, "command-line-invalid"),
    (["batch", "run", "nope", "2024-01-01"], 2, "dataset-unknown"),
    (["batch", "run", "orders", "2024-1-1"], 2, "batch-key-invalid"),
    (["batch", "run", "orders", "2024-01"], 2, "batch-key-invalid"),
    (["batch", "run", "orders", "[/x]"], 2, "batch-key-invalid"),
    (["batch", "deliver", "orders", "[/x]", "."], 2, "batch-key-invalid"),
    (["batch", "show", "orders", "[/x]"], 2, "run-unknown"),
    (["batch", "run", "orders", "2024-01-09"], 2, "batch-unknown"),
    (["batch", "run", "orders", "2024-01-02"], 3, "too-many-misfits"),
    (["batch", "run", "orders", "2024-01-01", "--accept", "x"], 2, "accept-without-reason"),
    (["batch", "deliver", "orders", "2024-01-09", "/nowhere/at/all"], 2, "folder-unknown"),
    (["batch", "deliver", "nope", "2024-01-09", "."], 2, "dataset-unknown"),
    (["batch", "manifest", "."], 2, "batch-unnamed"),
    (["batch", "manifest", "s3://shop-dev/elsewhere/"], 2, "prefix-unknown"),
    (["batch", "show", "orders", "nope"], 2, "run-unknown"),
    (["batch", "list", "--dataset", "nope"], 2, "dataset-unknown"),
    (["quarantine", "list", "--dataset", "nope"], 2, "dataset-unknown"),
    (["quarantine", "show", "nope", "2024-01-01"], 2, "dataset-unknown"),
    (["quarantine", "show", "orders", "2024-01-01"], 2, "nothing-quarantined"),
    (["quarantine", "show", "orders", "[/x]"], 2, "nothing-quarantined"),
    (["lake", "log", "--dataset", "nope"], 2, "dataset-unknown"),
    (["lake", "show", "99"], 2, "version-unknown"),
    (["lake", "show", "nope"], 2, "branch-unknown"),
    (["lake", "discard", "nope"], 2, "branch-unknown"),
    (["lake", "discard", "[/x]"], 2, "branch-unknown"),
    (["query", "SELECT 1", "--branch", "nope"], 2, "branch-unknown"),
    (["query", "SELECT 1", "--at", "99"], 2, "version-unknown"),
    (["query", "SELECT 1", "--at", "1", "--branch", "x"], 2, "both-branch-and-version"),
    (["table", "show", "nope"], 2, "table-unknown"),
    (["table", "list", "--env", "nope"], 2, "environment-unknown"),
    (["table", "list", "--project", "/nowhere"], 2, "project-missing"),
    (["local", "up", "--env", "prod"], 2, "not-local"),
    (["init", "."], 2, "folder-not-empty"),
    (["init", "new", "--example", "nope"], 2, "example-unknown"),
]


@pytest.mark.parametrize(
    ("args", "code", "named"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES]
)
def test_a_mistake_is_told_with_what_to_do_next(
    shop: Shop, args: Sequence[str], code: int, named: str
) -> None:
    told = shop.run(*args, "--json")
    error = told.json["error"]
    assert (told.code, error["code"], error["exit_code"]) == (code, named, code)
    assert error["message"] and error["hint"]
    seen = shop.run(*args)
    assert seen.code == code
    assert not seen.out or args[:2] == ["batch", "run"]  # which tells of stages that went well
    assert error["message"] in seen.err
    assert f"next      {error['hint']}" in seen.err
    assert "Traceback" not in seen.err


def test_a_folder_that_takes_no_manifest_is_told(shop: Shop, tmp_path: Path) -> None:
    folder_with(tmp_path, {"orders.csv": GOOD})
    (tmp_path / "_manifest.json").mkdir()
    named = ("--dataset", "orders", "--batch", "2024-01-09")
    told = shop.run("batch", "manifest", tmp_path, *named, "--json")
    assert (told.code, told.json["error"]["code"]) == (2, "manifest-not-written")


def test_scratch_is_for_its_owner_alone(shop: Shop) -> None:
    assert stat.filemode((shop.root / ".lakewarden" / "scratch").stat().st_mode) == "drwx------"


def test_a_mistake_of_ours_is_json_too_and_keeps_its_traceback(shop: Shop) -> None:
    with (
        patch("lakewarden.wiring.open_project", side_effect=RuntimeError("with a cell's value")),
        pytest.raises(RuntimeError, match="with a cell"),
    ):
        shop.run("lake", "log", "--json")


def test_what_is_read_is_not_changed_by_being_asked_for_json(shop: Shop) -> None:
    assert not (shop.root / "new").exists()


# ── for people ──────────────────────────────────────────────────────────────────────────────────

VIEWS: list[Sequence[str]] = [
    ["local", "status"],
    ["table", "list"],
    ["table", "show", "orders"],
    ["batch", "list"],
    ["batch", "show", "orders", "2024-01-01"],
    ["quarantine", "list"],
    ["quarantine", "show", "orders", "2024-01-02"],
    ["lake", "log"],
    ["lake", "branches"],
    ["lake", "show", "1"],
    ["query", "SELECT *, repeat('x', 500) AS long FROM orders"],
]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is a terminal of 80 columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(console, "_width", 80)


@pytest.mark.parametrize("args", VIEWS, ids=" ".join)
@pytest.mark.usefixtures("narrow")
def test_a_table_fits_a_narrow_terminal(shop: Shop, args: Sequence[str]) -> None:
    answer = shop.run(*args)
    assert answer.code == 0, answer
    lines = _plain(answer.out).splitlines()
    rows = [line for line in lines if "  " in line]
    assert len(rows) > 1
    assert max(map(len, rows)) <= 80
    assert not [line for line in lines if line != line.rstrip()]


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("args", VIEWS, ids=" ".join)
def test_nothing_is_cut_where_nobody_watches(shop: Shop, args: Sequence[str]) -> None:
    answer = shop.run(*args)
    assert answer.code == 0
    assert "…" not in answer.out
    assert "\x1b" not in answer.out


def test_commands_that_are_shown_can_be_copied(shop: Shop) -> None:
    answer = shop.run("batch", "run", "orders", "2024-01-03", "--no-publish")
    branch = re.search(r"lakewarden lake discard (\S+)$", answer.out, re.MULTILINE)
    assert branch
    discarded = shop.run("lake", "discard", branch[1])
    assert (discarded.code, discarded.out) == (0, f"Discarded {branch[1]}.\n")
    assert shop.run("lake", "discard", branch[1]).code == 2


def test_on_a_real_terminal_a_view_is_as_wide_as_it(shop: Shop) -> None:
    shown = on_terminal(95, shop.root, "batch", "list")
    assert "too-many-misfits" in shown
    assert shop.refused_run not in shown
    assert shop.refused_run in shop.run("batch", "list").out


def on_terminal(columns: int, folder: Path, *args: str) -> str:
    """What a command shows on a terminal of its own."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "FORCE_COLOR")}
    started = subprocess.Popen(
        [LAKEWARDEN, *args], cwd=folder, stdout=theirs, stderr=theirs, stdin=theirs, env=env
    )
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as screen:
        try:
            while chunk := screen.read(65536):
                shown += chunk
        except OSError:  # how Linux says that nobody holds the other end any more
            pass
    assert started.wait() == 0, shown
    return _plain(shown.decode())


# ── which project, which environment ────────────────────────────────────────────────────────────


def test_a_project_is_found_from_within_and_named_from_elsewhere(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = shop.json("lake", "log")
    inside = lakewarden("lake", "log", "--json", at=shop.root / "deep" / "down")
    named = lakewarden("lake", "log", "--json", "--project", shop.root, at=tmp_path)
    relative = lakewarden("lake", "log", "--json", "--project", shop.root.name, at=shop.root.parent)
    assert inside.json == named.json == relative.json == expected
    assert (
        lakewarden("lake", "log", "--json", at=tmp_path).json["error"]["code"] == "project-missing"
    )
    monkeypatch.setenv("LAKEWARDEN_PROJECT", str(shop.root))
    assert lakewarden("lake", "log", "--json", at=tmp_path).json == expected


def test_an_environment_is_named_by_an_option_or_a_variable(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shop.json("local", "status", "--env", "dev")["up"]
    monkeypatch.setenv("LAKEWARDEN_ENV", "prod")
    assert shop.run("local", "status").code == 2
    assert shop.json("local", "status", "--env", "dev")["up"]


def test_init_writes_a_project_that_can_be_used_and_only_into_an_empty_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty folder").mkdir()
    answer = lakewarden("init", "empty folder", at=tmp_path)
    assert answer.code == 0
    assert "cd 'empty folder' && lakewarden local up" in answer.out
    listed = lakewarden("table", "list", "--json", "--project", "empty folder", at=tmp_path)
    assert {"raw.flights", "marts.daily_delays"} <= {one["table"] for one in listed.json}
    before = sorted(tmp_path.rglob("*"))
    assert lakewarden("init", "empty folder", at=tmp_path).code == 2
    assert sorted(tmp_path.rglob("*")) == before


# ── query ───────────────────────────────────────────────────────────────────────────────────────


def test_values_come_through_exactly(shop: Shop) -> None:
    rows = shop.json("query", 'SELECT id, item, price, day, "at" FROM orders ORDER BY id')
    assert rows == [
        {
            "id": 1,
            "item": "寿司　上",
            "price": "12.50",
            "day": "2024-01-01",
            "at": "2024-01-01T10:00:00+00:00",
        },
        {"id": 2, "item": None, "price": None, "day": None, "at": None},
    ]
    assert "寿司" in shop.run("query", "SELECT item FROM orders", "--json").out


def test_values_that_json_has_no_word_for_are_text(shop: Shop) -> None:
    sql = (
        "SELECT 'nan'::DOUBLE AS a, '-inf'::DOUBLE AS b, 'a\\x00'::BLOB AS c,"
        " MAP {DATE '2024-01-01': [1.5]} AS d, {'x': NULL, 'y': true} AS e,"
        " sum(9223372036854775807) AS f,"
        " '99999-01-01'::DATE AS g, 1 AS h, 2 AS h, TIME '10:00' AS i, INTERVAL 1 DAY AS j"
        " FROM range(2)"
    )
    assert shop.json("query", sql) == [
        {
            "a": "NaN",
            "b": "-Infinity",
            "c": "6100",
            "d": {"2024-01-01": ["1.5"]},
            "e": {"x": None, "y": True},
            "f": 18446744073709551614,
            "g": "99999-01-01",
            "h": 1,
            "h_1": 2,
            "i": "10:00:00",
            "j": "1 day, 0:00:00",
        }
    ]


def test_a_table_has_its_full_name_and_the_bare_one_where_it_is_unique(shop: Shop) -> None:
    for name in ("raw.orders", "orders", '"raw"."orders"'):
        assert shop.json("query", f"SELECT count(*) AS n FROM {name}") == [{"n": 2}]


def test_one_version_or_one_branch_is_read(shop: Shop) -> None:
    sql = "SELECT count(*) AS n FROM orders"
    assert shop.json("query", sql, "--at", "1") == [{"n": 2}]
    assert shop.json("query", sql, "--branch", shop.branch) == [{"n": 4}]


def test_a_query_comes_from_standard_input_too(shop: Shop) -> None:
    answer = shop.run("query", "-", "--json", stdin="SELECT 1 AS a\n;\n-- the end\n")
    assert answer.json == [{"a": 1}]


def test_people_see_a_hundred_rows_and_programs_all(shop: Shop) -> None:
    answer = shop.run("query", "FROM range(250)")
    assert len(answer.out.splitlines()) == 102
    assert "the first 100 rows" in answer.out
    assert len(shop.json("query", "FROM range(50000)")) == 50000
    assert len(shop.json("query", "FROM range(250)", "-n", "3")) == 3
    assert shop.run("query", "SELECT 1 AS a WHERE false").out == "a\n(no rows)\n"
    assert shop.json("query", "SELECT 1 AS a WHERE false") == []


def test_people_see_years_nulls_and_plans_as_they_are(shop: Shop) -> None:
    shown = shop.run("query", "SELECT 2024 AS year, NULL AS nothing, true AS yes").out
    assert shown.split() == ["year", "nothing", "yes", "2024", "NULL", "true"]
    assert "ICEBERG_SCAN" in shop.run("query", "EXPLAIN SELECT * FROM orders").out


def test_a_value_cannot_turn_the_terminal(shop: Shop) -> None:
    shown = shop.run("query", "SELECT 'a' || chr(27) || '[31m' || chr(10) || 'b' AS x").out
    assert shown == "x\na\\x1b[31m\\nb\n"


HOSTILE = [
    "COPY (SELECT 1) TO '{tmp}/out.csv'",
    "COPY (SELECT 1) TO 's3://shop-dev/warehouse/raw/orders/data/x.parquet'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{tmp}/out.csv'",
    "EXPLAIN /* ANALYZE */ ANALYZE COPY (SELECT 1) TO '{tmp}/out.csv'",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{tmp}/out.csv'",
    "EXPORT DATABASE '{tmp}/out'",
    "ATTACH '{tmp}/out.db' AS out",
    "INSTALL json",
    "LOAD '{tmp}/out'",
    "SET enable_external_access = true",
    "CREATE TABLE x (a INT)",
    "CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "DROP VIEW raw.orders",
    "INSERT INTO raw.orders VALUES (1)",
    "SELECT 1; SELECT 2",
    "PIVOT orders ON item USING count(*); CREATE TABLE x (a INT)",
    "PREPARE x AS SELECT 1",
    "CALL enable_logging('QueryLog', storage='file', storage_path='{tmp}/out')",
    "SELECT * FROM read_text('{tmp}/private')",
    "SELECT * FROM '{tmp}/private'",
    "SELECT * FROM glob('{tmp}/*')",
    "SELECT * FROM read_blob('s3://shop-dev/ops/*')",
    "SELECT * FROM read_blob('s3://shop-dev/warehouse/raw/orders/data/../../../../ops/x')",
    "SELECT * FROM read_csv('http://127.0.0.1:1/x')",
    "SELECT * FROM a_variable_of_ours",  # as DuckDB's Python would find it
    "SELECT * FROM nope",
    "SELECT 'x'::INT",
    "SELECT error('boo')",
    "SELEC 1",
    "",
    "/* nothing */",
]


@pytest.fixture(scope="module")
def session(shop: Shop) -> Iterator[DuckDBPyConnection]:
    """What a query runs in."""
    project = open_project(shop.root)
    pin = project.pin()
    with project.session(pin) as connection:
        read_only(connection, pin)
        yield connection


@pytest.mark.parametrize("sql", HOSTILE)
def test_a_query_reads_its_tables_and_nothing_else(
    session: DuckDBPyConnection, tmp_path: Path, sql: str
) -> None:
    (tmp_path / "private").write_text("x")
    a_variable_of_ours = pa.table({"secret": [1]})
    with pytest.raises(LakewardenError) as caught:
        list(ask(session, sql.replace("{tmp}", str(tmp_path)))[1])
    refused_by_the_store = ".." in sql  # S3 takes dots for a name, and has no object of that name
    assert caught.value.exit_code == (75 if refused_by_the_store else 2)
    assert [path.name for path in tmp_path.iterdir()] == ["private"]
    assert list(ask(session, "SELECT count(*) >= 2 FROM orders")[1]) == [(True,)]
    assert a_variable_of_ours.num_rows == 1


def test_a_log_that_is_switched_on_writes_nothing(shop: Shop, tmp_path: Path) -> None:
    log = f"SELECT * FROM enable_logging('QueryLog', storage='file', storage_path='{tmp_path}/out')"
    shop.run("query", log)
    assert list(tmp_path.iterdir()) == []


def test_nothing_was_written_beside_the_tables(shop: Shop, session: DuckDBPyConnection) -> None:
    del session
    keys = [one.key for one in open_project(shop.root).objects.list("warehouse/")]
    assert keys
    assert not [key for key in keys if key.endswith("/x.parquet")]


@pytest.mark.parametrize("sql", ["COPY (SELECT 1) TO '/tmp/x'", "SELECT * FROM '/etc/passwd'"])
def test_a_query_that_is_refused_is_told_so(shop: Shop, sql: str) -> None:
    answer = shop.run("query", sql, "--json")
    assert (answer.code, answer.json["error"]["code"]) == (2, "query-invalid")


def test_no_query_shows_the_stores_secret_key(shop: Shop) -> None:
    endpoint = json.loads((shop.root / ".lakewarden/local/endpoint.json").read_text())
    for sql in ("FROM duckdb_secrets()", "FROM duckdb_settings()"):
        answer = shop.run("query", sql, "--json")
        assert answer.code == 0
        assert endpoint["secret_key"] not in answer.out


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT * FROM orders) SELECT id FROM a",
        "FROM orders",
        "DESCRIBE orders",
        "SUMMARIZE orders",
        "SHOW ALL TABLES",
        "PIVOT orders ON item USING count(*) GROUP BY id",
        "EXPLAIN ANALYZE SELECT count(*) FROM orders",
    ],
)
def test_what_only_reads_is_let_through(session: DuckDBPyConnection, sql: str) -> None:
    assert list(ask(session, sql)[1])


# ── tables ──────────────────────────────────────────────────────────────────────────────────────


def test_templates_are_planned_applied_and_compared(shop: Shop, tmp_path: Path) -> None:
    """In a project of its own on the same store."""
    project = twin(shop, tmp_path)
    first = lakewarden("table", "drift", "--json", at=project)
    assert first.code == 3
    assert {one["kind"] for one in first.json} == {"missing-table"}
    planned = lakewarden("table", "plan", "--json", at=project)
    assert planned.code == 0
    assert {one["table"] for one in planned.json} == {"raw.orders", "raw.y1", "raw.d"}
    applied = lakewarden("table", "apply", "--json", at=project)
    assert applied.json == {"version": 1, "tables": ["raw.d", "raw.orders", "raw.y1"]}
    assert lakewarden("table", "drift", at=project).out == "No drift in 3 tables.\n"
    assert lakewarden("table", "drift", "--json", at=project).json == []
    assert "Nothing to do" in lakewarden("table", "apply", at=project).out

    template = project / "tables" / "orders.yaml"
    template.write_text(template.read_text() + "  - {name: note, type: string}\n")
    seen = lakewarden("table", "drift", at=project)
    assert seen.code == 3
    assert "raw.orders" in seen.out and "note" in seen.out
    assert "lakewarden table plan" in seen.err
    assert "note" in lakewarden("table", "plan", at=project).out
    assert lakewarden("table", "apply", at=project).code == 0
    log = lakewarden("lake", "log", at=project)
    assert "table apply: raw.orders" in log.out

    template.write_text(template.read_text().replace("type: string}\n", "type: strin}\n"))
    broken = lakewarden("table", "plan", "--json", at=project)
    assert broken.code == 2
    assert "orders.yaml" in broken.json["error"]["message"]


def twin(shop: Shop, folder: Path) -> Path:
    """Another project, with a catalog of its own and the same objects."""
    for path in shop.root.rglob("*"):
        if path.suffix in (".toml", ".yaml") or path.name == "endpoint.json":
            text = path.read_text().replace('warehouse"', 'warehouse-of-twin"')
            folder_with(folder, {path.relative_to(shop.root).as_posix(): text})
    return folder


def test_a_catalog_that_is_away_is_no_drift_and_no_secret(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "postgresql+psycopg://shop:geheim@127.0.0.1:1/shop"
    monkeypatch.setenv("LAKEWARDEN__ENV__DEV__CATALOG__URI", uri)
    told = shop.run("table", "drift", "--json")
    assert (told.code, told.json["error"]["code"]) == (75, "drift-unknown")
    assert "cannot tell" in told.json["error"]["message"]
    for args in (["table", "drift"], ["lake", "log"], ["query", "SELECT 1"], ["batch", "list"]):
        seen = shop.run(*args)
        assert seen.code == 75, seen
        assert "geheim" not in seen.out + seen.err


# ── quarantine ──────────────────────────────────────────────────────────────────────────────────


def test_rows_are_shown_only_where_that_is_asked_for(shop: Shop) -> None:
    for args in (
        ["quarantine", "list"],
        ["quarantine", "show", "orders", "2024-01-02"],
        ["batch", "list"],
        ["batch", "show", "orders", "2024-01-02"],
        ["batch", "run", "orders", "2024-01-02"],
    ):
        for form in ([], ["--json"]):
            answer = shop.run(*args, *form)
            assert "Geheim" not in answer.out + answer.err, args
    revealed = shop.run("quarantine", "show", "orders", "2024-01-02", "--reveal")
    assert "Frau Geheim\\x1b[31m" in revealed.out
    assert "\x1b" not in revealed.out


def test_a_quarantined_record_is_given_to_programs_byte_for_byte(shop: Shop) -> None:
    rows = shop.json("quarantine", "show", "orders", shop.refused_run, "--reveal")
    assert [(row["line"], row["column"], row["reason"]) for row in rows] == [
        (3, "id", "type"),
        (4, "price", "type"),
    ]
    kept = [base64.b64decode(row["raw_base64"]) for row in rows]
    assert [text.rstrip(b"\n") for text in kept] == [
        line.encode() for line in DAMAGED.splitlines()[2:]
    ]
    assert len(shop.json("quarantine", "show", "orders", "2024-01-02", "-n", "1")) == 1
    listed = shop.json("quarantine", "list")
    assert {(one["batch"], one["quarantined"], one["outcome"]) for one in listed} == {
        ("2024-01-02", 2, "refused")
    }


# ── parts ───────────────────────────────────────────────────────────────────────────────────────

Y1 = "00123,1\n００４５６,2\n".encode("cp932")


def test_a_dataset_in_parts_is_complete_when_every_part_is(shop: Shop, tmp_path: Path) -> None:
    y1 = folder_with(tmp_path / "first", {"case.txt": Y1})
    d = folder_with(tmp_path / "second", {"a.txt": "1,\n", "b.txt": "2,\n"})
    month = ("cases", "2024-04")
    assert shop.run("batch", "run", *month).code == 2
    unnamed = shop.run("batch", "deliver", *month, y1, "--json")
    assert (unnamed.code, unnamed.json["error"]["code"]) == (2, "part-unknown")
    delivered = shop.json("batch", "deliver", *month, y1, "--part", "y1")
    assert [entry["url"] for entry in delivered["entries"]] == ["y1/case.txt"]
    missing = shop.run("batch", "run", *month, "--json")
    assert (missing.code, missing.json["error"]["code"]) == (3, "part-missing")
    assert "'d'" in missing.json["error"]["message"]
    written = shop.json(
        "batch", "manifest", d, "--dataset", "cases", "--batch", "2024-04", "--part", "d"
    )
    assert [entry["meta"]["record_count"] for entry in written["entries"]] == [1, 1]
    seen = shop.run("batch", "deliver", *month, d, "--part", "d")
    assert "lakewarden batch run cases 2024-04" in seen.out
    ran = shop.json("batch", "run", *month)
    assert (ran["status"], ran["counts"]["loaded"]) == ("published", 4)
    rows = shop.json("query", "SELECT id, _file FROM y1 ORDER BY _line")
    assert rows == [
        {"id": "00123", "_file": "y1/case.txt"},
        {"id": "００４５６", "_file": "y1/case.txt"},
    ]


def test_all_parts_are_delivered_from_one_folder(shop: Shop, tmp_path: Path) -> None:
    month = ("cases", "2024-05")
    folder_with(tmp_path, {"y1/case.txt": Y1})
    lacking = shop.run("batch", "deliver", *month, tmp_path, "--json")
    assert (lacking.code, lacking.json["error"]["code"]) == (3, "part-missing")
    folder_with(tmp_path, {"d/a.txt": "1,\n"})
    assert shop.run("batch", "deliver", *month, tmp_path).code == 0
    prefix = "s3://shop-dev/raw/yyyymm=2024-05/d/"
    assert len(shop.json("batch", "manifest", prefix)["entries"]) == 1
    assert shop.json("batch", "run", *month)["counts"]["loaded"] == 3


# ── the local stack, signals, pipes ─────────────────────────────────────────────────────────────


def test_a_stack_that_is_down_is_told_and_started_again(tmp_path: Path) -> None:
    folder_with(tmp_path, {"lakewarden.toml": SETTINGS, "tables/orders.yaml": ORDERS})
    folder_with(tmp_path, {f"tables/{name}.yaml": PART.format(name=name) for name in ("y1", "d")})
    for args in (["batch", "list"], ["local", "status"]):
        away = lakewarden(*args, at=tmp_path)
        assert away.code == 75
        assert "lakewarden local up" in away.err
    assert lakewarden("local", "down", at=tmp_path).out == "Nothing was running.\n"
    assert "no log yet" in lakewarden("local", "logs", at=tmp_path).out
    assert lakewarden("local", "up", "--json", at=tmp_path).json["started"] is True
    try:
        assert lakewarden("local", "status", at=tmp_path).code == 0
        assert "No batch was run yet" in lakewarden("batch", "list", at=tmp_path).out
        assert "Nothing is published yet" in lakewarden("lake", "log", at=tmp_path).out
        assert lakewarden("quarantine", "list", at=tmp_path).out == "Nothing is in quarantine.\n"
        assert lakewarden("lake", "branches", "--json", at=tmp_path).json == []
    finally:
        assert lakewarden("local", "down", "--json", at=tmp_path).json == {"stopped": True}
    down = lakewarden("local", "status", "--json", at=tmp_path)
    assert (down.code, down.json["up"]) == (75, False)


@pytest.mark.parametrize(
    ("sent", "code", "named"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended-by-signal")],
)
def test_a_query_that_takes_too_long_can_be_stopped(
    shop: Shop, sent: signal.Signals, code: int, named: str
) -> None:
    begun = shop.root / ".lakewarden" / "scratch" / "duckdb"
    if begun.exists():
        begun.rmdir()
    sql = "SELECT sum(hash(range)) FROM range(1000000000000)"
    with subprocess.Popen(
        [LAKEWARDEN, "query", sql, "--json"], cwd=shop.root, stdout=subprocess.PIPE, text=True
    ) as started:
        try:
            wait_until(begun.is_dir)
            time.sleep(1)  # it has opened DuckDB, and will soon be busy
            started.send_signal(sent)
            out, _ = started.communicate(timeout=60)
        finally:
            started.kill()
    assert started.returncode == code
    assert json.loads(out)["error"]["code"] == named


def wait_until(true: Callable[[], bool], *, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("form", [["--json"], ["-n", "200000"]], ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_failure_of_ours(shop: Shop, form: list[str]) -> None:
    started = subprocess.Popen(
        [LAKEWARDEN, "query", "FROM range(200000)", *form],
        cwd=shop.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert started.stdout and started.stderr
    assert started.stdout.readline()
    started.stdout.close()
    told = started.stderr.read()
    assert started.wait() == 128 + signal.SIGPIPE
    assert b"Broken" not in told and b"Traceback" not in told


def test_a_terminal_that_knows_only_ascii_gets_ascii(shop: Shop) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    asked = [str(LAKEWARDEN), "query", "SELECT item FROM orders WHERE id = 1"]
    told = subprocess.run(
        [*asked, "--json"], cwd=shop.root, env=env, capture_output=True, check=True
    )
    assert json.loads(told.stdout.decode("ascii")) == [{"item": "寿司　上"}]
