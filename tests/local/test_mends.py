"""Mends touch one record of one file, and of it only what they name."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest

import lakewarden
from lakewarden.aws.objects import ObjectVersion
from lakewarden.aws.s3 import S3Objects
from lakewarden.batch.mending import Correction, MendDoesNotFit, MendImpossible
from lakewarden.batch.mends import MendsBusy
from lakewarden.batch.parsing.read import MendOfAnother
from lakewarden.batch.quarantine import newest_quarantine, read
from lakewarden.errors import Refused
from lakewarden.wiring import Project
from tests.local.shop import connect_project
from tests.local.test_cli import lakewarden as command
from tests.stack import LocalStack

DAY = "2024-03-01"
_SETTINGS = """
    project = "mends"

    [env.dev]
    account = "local"
    bucket = "mends-dev"
    catalog = { type = "sql", uri = "sqlite:///.lakewarden/catalog.db" }

    [dataset.things]
    batch = "date"
    landing = "raw/things/{batch}/"
    tables = TABLES
    quarantine = { max_share = 1.0 }
    """
_TABLE = """
    name: {name}
    namespace: raw
    load: {{dataset: things}}
    source: {source}
    columns:
      - {{name: id, type: long, required: true}}
      - {{name: v, type: {kind}}}
      - {{name: price, type: "decimal(30,8)"}}
    """


def make(
    root: Path, stack: LocalStack, files: Mapping[str, bytes], *tables: tuple[str, str, str]
) -> Project:
    """A project with these tables (name, type of v, source), one delivery, and its first run."""
    listed = ", ".join(f'{name} = "{name}.*"' for name, _, _ in tables)
    settings = dedent(_SETTINGS).replace("TABLES", f"{{ {listed} }}")
    (root / "tables").mkdir(parents=True)
    (root / "lakewarden.toml").write_text(settings)
    for name, kind, source in tables:
        described = dedent(_TABLE).format(name=name, kind=kind, source=source)
        (root / "tables" / f"{name}.yaml").write_text(described)
    (root / "delivery").mkdir()
    for name, body in files.items():
        (root / "delivery" / name).write_bytes(body)
    connect_project(root, stack.connection, stack.bucket())
    project = lakewarden.open(root)
    project.deliver("things", DAY, root / "delivery")
    assert project.run("things", DAY).status == "published"
    return project


def rows(project: Project, table: str) -> list[tuple[object, ...]]:
    with project.session(project.pin()) as session:
        found: list[tuple[object, ...]] = session.execute(
            f"SELECT id, v, price::VARCHAR, _line FROM raw.{table} ORDER BY _line"
        ).fetchall()
    return found


@pytest.fixture(scope="module")
def one_misfit(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one")
    make(root, local_stack, {"a.csv": TWIN}, ("a", "long", CSV))
    return root


def replayed(project: Project, *corrections: Correction) -> None:
    assert len(project.mend("things", DAY, corrections)) == len(corrections)
    assert project.replay("things", DAY).status == "published"


TWIN = b"id,v,price\n1,10,\n2,oops,\n3,30,\n"
CSV = "{format: csv}"


def test_a_file_with_equal_bytes_is_not_mended_along(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    files = {"a.csv": TWIN, "b.csv": TWIN}
    project = make(tmp_path, local_stack, files, ("a", "long", CSV), ("b", "string", CSV))
    replayed(project, Correction(3, values={"v": "20"}))
    assert [row[1] for row in rows(project, "a")] == [10, 20, 30]
    assert [row[1] for row in rows(project, "b")] == ["10", "oops", "30"]


def test_another_record_under_the_same_number_is_never_replaced(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    project = make(tmp_path, local_stack, {"a.csv": TWIN}, ("a", "long", CSV))
    replayed(project, Correction(3, values={"v": "20"}))
    template = tmp_path / "tables" / "a.yaml"
    source = "{format: csv, csv_options: {header: false, skip_rows: 1}}"
    template.write_text(template.read_text().replace(CSV, source))
    with pytest.raises(MendOfAnother):
        lakewarden.open(tmp_path).run("things", DAY)
    assert [row[1] for row in rows(project, "a")] == [10, 20, 30]


def test_of_two_who_mend_a_record_at_once_the_second_is_told(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    """What he made is made of the record as it was before, and would take the first one's back."""
    project = make(tmp_path, local_stack, {"a.csv": TWIN}, ("a", "long", CSV))

    class Slow(S3Objects):
        """Between reading the mends and writing his own, another one is quicker."""

        def create(self, key: str, body: bytes) -> ObjectVersion:
            project.mend("things", DAY, [Correction(3, values={"v": "21", "price": "1.5"})])
            return super().create(key, body)

    slow = lakewarden.open(tmp_path)
    slow.__dict__["objects"] = Slow(slow.connection, slow.env.bucket)
    with pytest.raises(MendsBusy):
        slow.mend("things", DAY, [Correction(3, values={"v": "20"})])
    replayed(project, Correction(3, values={"v": "20"}))
    assert rows(project, "a")[1] == (2, 20, "1.50000000", 3)


def test_a_packed_file_is_mended_too(local_stack: LocalStack, tmp_path: Path) -> None:
    lines = "".join(f"{n},{n},\n" for n in range(3000))
    packed = gzip.compress(f"id,v,price\n{lines}3000,oops,\n".encode())
    project = make(tmp_path, local_stack, {"a.csv.gz": packed}, ("a", "long", CSV))
    replayed(project, Correction(3002, values={"v": "20"}))
    assert rows(project, "a")[-1] == (3000, 20, None, 3002)


ESCAPED = "{format: csv, csv_options: {escape: '\\'}}"


@pytest.mark.parametrize(
    ("source", "name", "body", "mended"),
    [
        (
            "{format: json}",
            "a.json",
            b'{"id": 1, "v": "x\\u00e9", "price": 1234567890123456.12345678, "more": [1.10]}\n',
            None,
        ),
        (
            "{format: json}",
            "a.json",
            b'{"id": "oops", "v": "x\\u00e9", "price": 1234567890123456.12345678}\n',
            (7, "xé", "1234567890123456.12345678", 1),
        ),
        (ESCAPED, "a.csv", rb"id,v,price" b"\n" rb"oops,C:\temp," b"\n", (7, r"C:\temp", None, 2)),
        (
            ESCAPED,
            "a.csv",
            rb"id,v,price" b"\n" rb'oops,"say \"hi\", you",' b"\n",
            (7, 'say "hi", you', None, 2),
        ),
        (CSV, "a.csv", b'id,v,price\noops, "b c" ,1.5\n', (7, "b c", "1.50000000", 2)),
        (CSV, "a.csv", b'id,v,price\r\noops,"two\r\nlines",\r\n', (7, "two\r\nlines", None, 2)),
        (
            '{format: csv, csv_options: {encoding: cp932, delimiter: "\\t"}}',
            "a.csv",
            "id\tv\tprice\noops\t表①髙\t\n".encode("cp932"),
            (7, "表①髙", None, 2),
        ),
    ],
    ids=["json+", "json", "escape", "escaped quote", "spaces", "lines", "cp932"],
)
def test_the_rest_of_the_record_stays_as_it_is_written(
    local_stack: LocalStack,
    tmp_path: Path,
    source: str,
    name: str,
    body: bytes,
    mended: tuple[object, ...] | None,
) -> None:
    project = make(tmp_path, local_stack, {name: body}, ("a", "string", source))
    line = 1 if name == "a.json" else 2
    if mended is None:  # the field that the template does not name is still there
        with pytest.raises(MendDoesNotFit):
            project.mend("things", DAY, [Correction(line, values={"v": "y"})])
        return
    replayed(project, Correction(line, values={"id": "7"}))
    assert rows(project, "a")[0] == mended


def test_what_show_prints_can_be_given_back_with_one_record_put_right(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    body = b"id,v,price\n1,10,\n2,oops,\n3,oops,\n"
    project = make(tmp_path, local_stack, {"a.csv": body}, ("a", "long", CSV))
    project.mend("things", DAY, [Correction(3, values={"v": "20"})])
    key = newest_quarantine(project.objects, "things", DAY).key
    shown = [Correction(one.line, one.file, one.raw.decode()) for one in read(project.objects, key)]
    right = [shown[0], Correction(4, "a.csv", "3,30,")]
    assert [one.line for one in project.mend("things", DAY, right)] == [4]
    assert project.replay("things", DAY).status == "published"
    assert [row[1] for row in rows(project, "a")] == [10, 20, 30]


def test_a_field_of_what_has_other_fields_cannot_be_set(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    body = b"id,v,price\n1,10,\n2,3\n"
    project = make(tmp_path, local_stack, {"a.csv": body}, ("a", "long", CSV))
    with pytest.raises(MendImpossible):
        project.mend("things", DAY, [Correction(3, values={"v": "3"})])
    with pytest.raises(Refused):
        project.mend("things", DAY, [Correction(3, raw="2,3,,")])
    replayed(project, Correction(3, raw="2,3,1.5"))
    assert rows(project, "a")[1] == (2, 3, "1.50000000", 3)


def test_a_mend_is_checked_as_a_record_in_the_middle_of_a_file(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    project = make(tmp_path, local_stack, {"a.csv": TWIN}, ("a", "long", CSV))
    for mended in (
        [Correction(3, raw="\ufeff2,20,")],  # at the start of a file it would be no text
        [Correction(3, raw="2,many,")],
        [Correction(3, raw="2,20,,")],
    ):
        with pytest.raises(MendDoesNotFit, match="record 3"):
            project.mend("things", DAY, mended)
    replayed(project, Correction(3, raw="2,20,"))


@pytest.mark.parametrize("mark", ["le", "be"])
@pytest.mark.parametrize("bits", [16, 32])
def test_the_order_of_bytes_is_that_of_the_file(
    local_stack: LocalStack, tmp_path: Path, bits: int, mark: str
) -> None:
    source = f"{{format: csv, csv_options: {{encoding: utf-{bits}}}}}"
    body = "\ufeffid,v,price\n1,\u8868,\noops,\u8868,\n".encode(f"utf-{bits}-{mark}")
    project = make(tmp_path, local_stack, {"a.csv": body}, ("a", "string", source))
    shown = command("quarantine", "show", "things", DAY, "--reveal", "--json", at=tmp_path)
    assert [one["raw"] for one in shown.json] == ["oops,\u8868,"]
    replayed(project, Correction(3, values={"id": "7"}))
    assert rows(project, "a") == [(1, "\u8868", None, 2), (7, "\u8868", None, 3)]


@pytest.mark.parametrize(
    ("arguments", "given", "code"),
    [
        (["--record", "3", "--set", "v=\udcff"], None, "mend-impossible"),
        (["--record", "3", "--set", "\udcff=5"], None, "mend-impossible"),
        (["--record", "3", "--raw", "2,\udcff,"], None, "mend-impossible"),
        (["--from", "-"], "[" * 100_000, "corrections-invalid"),
        (["--from", "-"], "9" * 5000, "corrections-invalid"),
        (["--from", "-"], [{"line": True, "file": "a.csv", "raw": "2,2,"}], "corrections-invalid"),
        (["--from", "-"], [{"line": 3, "file": "a.csv", "raw": "2,\udcff,"}], "mend-impossible"),
        (
            ["--from", "-"],
            [{"line": 3, "file": "a.csv", "raw": f"2,{n},"} for n in range(2)],
            "mend-impossible",
        ),
    ],
)
def test_what_cannot_be_a_mend_is_told_and_nothing_is_kept(
    one_misfit: Path, arguments: list[str], given: object, code: str
) -> None:
    stdin = given if isinstance(given, str) else json.dumps(given)
    mend = ["quarantine", "mend", "things", DAY, "--json"]
    answer = command(*mend, *arguments, at=one_misfit, stdin=stdin)
    error = answer.json["error"]
    assert (answer.code, error["code"]) == (2, code)
    assert error["hint"]
    shown = command("quarantine", "show", "things", DAY, "--json", at=one_misfit)
    assert [one["mended"] for one in shown.json] == [False]


def test_a_json_record_that_is_nested_too_deeply_cannot_be_set(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    body = b'{"id": "oops", "more": %s%s}\n' % (b"[" * 800, b"]" * 800)
    source = "{format: json}"
    project = make(tmp_path, local_stack, {"a.json": body}, ("a", "string", source))
    with pytest.raises(MendImpossible, match="JSON"):
        project.mend("things", DAY, [Correction(1, values={"id": "1"})])
