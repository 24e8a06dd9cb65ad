"""Template files: what they mean, and where a mistake in one is found."""

import hashlib
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.errors import WrongUsage
from lakewarden.tables.template import (
    AccessLevel,
    CsvOptions,
    Direction,
    FileFormat,
    NullOrder,
    PartitionColumn,
    SortColumn,
    Source,
    Template,
)
from lakewarden.tables.template_file import NoTemplates, parse_template, read_templates
from lakewarden.tables.yaml_file import MAX_BYTES, TemplateInvalid, read_document

STANDARD = Path(__file__).parent / "templates"

FLIGHTS = """\
# The flights of one day.
name: flights
namespace: raw
description: Departures from New York.
columns:
  - name: carrier
    type: string
    required: true
    description: Two letters
  - {name: tailnum, type: string, was: tail}
  - {name: paid, type: "decimal( 9, 2 )"}
  - {name: time_hour, type: timestamptz, required: true}
partition_spec:
  - {column: time_hour, transform: day}
  - {column: carrier, transform: "bucket[8]"}
sort_order:
  - {column: carrier}
  - {column: time_hour, direction: desc}
properties:
  write_format: parquet
  commit_num_retries: 20
  write.target-file-size-bytes: 1048576
tags: {owner: ops}
source:
  path: s3://somewhere/else
  format: csv
  csv_options:
    delimiter: "\\t"
    encoding: Shift_JIS
    null_strings: ["", NA]
load: {dataset: flights}
"""


def template(folder: Path, text: str) -> Template:
    file = folder / "t.yaml"
    file.write_text(text, encoding="utf-8")
    return parse_template(read_document(file))


def mistakes(folder: Path, text: str) -> list[tuple[int, int, str]]:
    """The line, column and message of each mistake."""
    with pytest.raises(TemplateInvalid) as invalid:
        template(folder, text)
    assert invalid.value.exit_code == 2
    assert invalid.value.hint
    assert all(str(m).startswith(f"{folder / 't.yaml'}:") for m in invalid.value.mistakes)
    return [(m.position.line, m.position.column, m.message) for m in invalid.value.mistakes]


def test_the_standard_templates_load() -> None:
    found = read_templates(STANDARD)
    assert list(found) == ["dimensions.scd_type2", "events.event_stream", "features.feature_table"]
    events = found["events.event_stream"]
    assert [c.name for c in events.columns if c.pii] == ["user_id", "ip_address"]
    assert events.partition_spec == (PartitionColumn("event_timestamp", "hour"),)
    assert events.properties["history.expire.max-snapshot-age-ms"] == "604800000"
    assert events.load_dataset is None
    assert events.owned_columns == ()
    scd = found["dimensions.scd_type2"]
    assert scd.sort_order == (
        SortColumn("natural_key", Direction.ASC, NullOrder.NULLS_FIRST),
        SortColumn("effective_from", Direction.DESC, NullOrder.NULLS_LAST),
    )
    email = next(c for c in scd.columns if c.name == "email")
    assert email.access_level is AccessLevel.RESTRICTED  # because it is personal data


def test_a_loaded_template_means_what_it_says(tmp_path: Path) -> None:
    flights = template(tmp_path, FLIGHTS)
    assert flights.identifier == "raw.flights"
    assert [(c.name, c.type, c.required, c.was) for c in flights.all_columns] == [
        ("carrier", "string", True, None),
        ("tailnum", "string", False, "tail"),
        ("paid", "decimal(9,2)", False, None),
        ("time_hour", "timestamptz", True, None),
        ("_batch", "string", True, None),
        ("_file", "string", True, None),
        ("_line", "long", True, None),
    ]
    assert flights.properties == {
        "write.format.default": "parquet",
        "commit.retry.num-retries": "20",
        "write.target-file-size-bytes": "1048576",
    }
    assert flights.source == Source(
        FileFormat.CSV,
        CsvOptions(delimiter="\t", encoding="shift_jis", null_strings=("", "NA")),
        path="s3://somewhere/else",
    )
    assert flights.load_dataset == "flights"
    assert flights.tags == {"owner": "ops"}


@pytest.mark.parametrize(
    ("spelled", "transform"),
    [
        ("days", "day"),
        ("HOUR", "hour"),
        ("years", "year"),
        ("months", "month"),
        ("bucket(16)", "bucket[16]"),
        ("bucket[ 016 ]", "bucket[16]"),
        ("truncate(3)", "truncate[3]"),
        ("identity", "identity"),
    ],
)
def test_common_spellings_of_transforms(tmp_path: Path, spelled: str, transform: str) -> None:
    column = "carrier" if "[" in transform or transform == "identity" else "time_hour"
    text = FLIGHTS.replace(
        "{column: time_hour, transform: day}", f'{{column: {column}, transform: "{spelled}"}}'
    )
    assert template(tmp_path, text).partition_spec[0].transform == transform


@pytest.mark.parametrize(
    ("old", "new", "line", "at", "says"),
    [
        ("name: flights", "name: Flights", 2, "Flights", "lower-case"),
        ("name: flights", "nme: flights", 2, "nme: flights", "'name'"),
        *(
            ("namespace: raw", f"namespace: {name}", 3, name, "DuckDB")
            for name in ("main", "temp", "system", "memory", "models", "information_schema")
        ),
        ("    type: string\n", "", 6, "name: carrier", "'type'"),
        ("type: string, was", "type: text, was", 10, "text", "boolean, int, long"),
        ("required: true\n    d", "required: yes\n    d", 8, "yes", "true or false"),
        ("decimal( 9, 2 )", "decimal(39,2)", 11, '"decimal(39', "precision"),
        ("decimal( 9, 2 )", "decimal(4,5)", 11, '"decimal(4', "scale"),
        ("name: tailnum", "name: carrier", 10, "carrier", "again"),
        ("name: tailnum", "name: _tail", 10, "_tail", "_batch"),
        ("name: tailnum", "name: _batch", 10, "_batch", "_batch"),
        ("was: tail", "was: paid", 10, "paid", "'paid'"),
        (
            "type: string, was: tail",
            "type: string, pii: true, access_level: public",
            10,
            "public",
            "public",
        ),
        ("column: time_hour, transform", "column: hour, transform", 14, "hour", "'hour'"),
        ("transform: day", "transform: fortnight", 14, "fortnight", "bucket[N]"),
        ('"bucket[8]"', '"bucket[0]"', 15, '"bucket[0]"', "at least 1"),
        ('"bucket[8]"', "bucket", 15, "bucket", "at least 1"),
        ('"bucket[8]"', "day", 15, "day", "does not apply"),
        ('carrier, transform: "bucket[8]"', "time_hour, transform: hour", 15, "hour", "finer"),
        (
            'carrier, transform: "bucket[8]"',
            "time_hour, transform: days",
            15,
            "{column: time_",
            "already",
        ),
        (
            '{column: time_hour, transform: day}\n  - {column: carrier, transform: "bucket[8]"}',
            '{column: paid, transform: identity}\n  - {column: paid, transform: "truncate[3]"}',
            15,
            "{column: paid, ",
            "decimal(9,2)",
        ),
        ("{column: carrier}", "{column: nowhere}", 17, "nowhere", "'nowhere'"),
        ("direction: desc", "direction: down", 18, "down", "'desc'"),
        ("time_hour, direction", "carrier, direction", 18, "carrier", "already"),
        ("write_format: parquet", "write_format: orc", 20, "orc", "parquet"),
        ("commit_num_retries: 20", "commit_num_retries: many", 21, "many", "whole number"),
        (
            "commit_num_retries: 20",
            "commit_retries: 20",
            21,
            "commit_retries",
            "commit_num_retries",
        ),
        (
            "commit_num_retries: 20",
            "write.format.default: parquet",
            20,
            "write_format: ",
            "same property",
        ),
        ("commit_num_retries: 20", "lakewarden.field-ids: '{}'", 21, "lakewarden.fie", "itself"),
        (
            "commit_num_retries: 20",
            "commit.manifest-merge.enabled: false",
            21,
            "commit.manifes",
            "itself",
        ),
        ("format: csv", "format: excel", 26, "excel", "'csv'"),
        ("format: csv", "format: json", 28, 'delimiter: "\\t', "json"),
        ('delimiter: "\\t"', "delimiter: '||'", 28, "'||'", "one ASCII character"),
        ('delimiter: "\\t"', "delimiter: '\"'", 28, "'\"'", "quote"),
        ('delimiter: "\\t"', 'date_format: "%Y%Q"', 28, '"%Y%Q"', "strptime"),
        ('delimiter: "\\t"', 'timestamp_format: "%Y%"', 28, '"%Y%"', "strptime"),
        ('["", NA]', '["", "\\0"]', 30, '"\\0"', "NUL"),
        ("Shift_JIS", "base64", 29, "base64", "text encoding"),
        ("Shift_JIS", "klingon", 29, "klingon", "text encoding"),
        ("{dataset: flights}", "{}", 31, "{", "'dataset'"),
        ("{dataset: flights}", "flights", 31, "flights", "mapping"),
        ("# The flights of one day.", "columns: []", 5, "columns:", "again"),
        ("tags: {owner: ops}", "tags: &a {owner: ops}", 23, "&a {owner: ops", "anchor"),
        ("tags: {owner: ops}", "tags: {owner: ops", 24, ":", "not YAML"),
        (
            "tags: {owner: ops}",
            "tags: !!python/name:os.system ''",
            23,
            "!!python/name:",
            "a tag",
        ),
        ("tags: {owner: ops}", "tags: {owner: 5}", 23, "5", "string"),
        ("num_retries: 20", "num_retries: {a: b}", 21, "{a: b}", "a string, a number, true or"),
        ("num_retries: 20", "num_retries:", 21, "", "a string, a number, true or false, found not"),
        ("num_retries: 20", f"num_retries: '{'9' * 5000}'", 21, "'999", "whole number"),
        ("num_retries: 20", "num_retries: 0x" + "f" * 5000, 21, "0xff", "too many digits"),
        (
            "decimal( 9, 2 )",
            "decimal(١٢,2)",
            11,
            '"decimal(',
            "boolean, int, long",
        ),
        ('"bucket[8]"', '"bucket[١٦]"', 15, '"bucket[', "bucket[N]"),
        ("owner: ops", "owner: o\x07ps", 23, "\x07ps", "not YAML: the character U+0007"),
        *(
            ("Departures from", f"Departures{char}from", 4, f"{char}from", f"U+{ord(char):04X}")
            for char in "\x7f\x85\u2028\u2029\ufffe"
        ),
        ("load: {dataset: flights}", "---\nload: {}", 31, "---", "one document"),
    ],
)
def test_a_mistake_is_found_where_it_stands(
    tmp_path: Path, old: str, new: str, line: int, at: str, says: str
) -> None:
    """`at` is how the text begins at the place that is named."""
    assert FLIGHTS.count(old) == 1
    text = FLIGHTS.replace(old, new)
    lines = text.split("\n")
    found = [m for m in mistakes(tmp_path, text) if says in m[2]]
    assert [m[0] for m in found] == [line]
    assert lines[line - 1][found[0][1] - 1 :].startswith(at)
    assert len(found[0][2]) < 300


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_character_that_is_not_yaml_is_found_behind_every_kind_of_line_end(
    tmp_path: Path, end: str
) -> None:
    (tmp_path / "t.yaml").write_bytes(f"name: t{end}{end}# é, a \x1b{end}".encode())
    with pytest.raises(TemplateInvalid, match="U\\+001B") as invalid:
        read_document(tmp_path / "t.yaml")
    assert [(m.position.line, m.position.column) for m in invalid.value.mistakes] == [(3, 8)]


def test_what_yaml_allows_may_stand_in_a_text(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text('a: "x\ty\u00a0\u3000é😀\\u2028\\a"\n', encoding="utf-8")
    assert read_document(tmp_path / "t.yaml").content == {"a": "x\ty\u00a0\u3000é😀\u2028\a"}


def test_of_very_many_mistakes_the_first_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("a: 1\n" * 1051)
    with pytest.raises(TemplateInvalid) as invalid:
        read_document(tmp_path / "t.yaml")
    told = str(invalid.value).split("\n")
    assert (len(told), told[-1]) == (51, "and 1,000 more mistakes")
    assert len(invalid.value.mistakes) == 1050


def test_all_mistakes_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(FLIGHTS.replace("type: string, was", "type: text, was"))
    (tmp_path / "b.yml").write_text(FLIGHTS.replace("name: flights", "name: 5"))
    (tmp_path / "notes.txt").write_text("not a template")
    with pytest.raises(TemplateInvalid) as invalid:
        read_templates(tmp_path)
    assert [(m.file.name, m.position.line) for m in invalid.value.mistakes] == [
        ("a.yaml", 10),
        ("b.yml", 2),
    ]


def test_two_files_cannot_describe_one_table(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(FLIGHTS)
    (tmp_path / "b.yaml").write_text("# again\n" + FLIGHTS)
    with pytest.raises(TemplateInvalid, match=r"b\.yaml:3:7: .*raw\.flights.*a\.yaml"):
        read_templates(tmp_path)


def test_a_template_is_a_plain_file_or_a_link_to_one(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "flights", tmp_path / "tables"
    elsewhere.write_text(FLIGHTS)
    folder.mkdir()
    (folder / "a.yaml").symlink_to(elsewhere)
    (folder / ".#a.yaml").symlink_to("somebody@host.42:1")  # the lock of an editor
    assert list(read_templates(folder)) == ["raw.flights"]
    os.mkfifo(folder / "b.yaml")
    (folder / "c.yaml").mkdir()
    (folder / "d.yaml").symlink_to("nowhere")
    with pytest.raises(TemplateInvalid) as invalid:
        read_templates(folder)
    assert [(m.file.name, m.message) for m in invalid.value.mistakes] == [
        ("b.yaml", "the file cannot be read: it is not a plain file"),
        ("c.yaml", "the file cannot be read: it is not a plain file"),
        ("d.yaml", "the file cannot be read: No such file or directory"),
    ]


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_a_folder_without_templates_is_an_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoTemplates, match=folder) as error:
        read_templates(tmp_path / folder)
    assert isinstance(error.value, WrongUsage)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"# only a comment\n", "empty"),
        (b"- a list\n", "mapping"),
        (b"name: \xff\n", "UTF-8"),
        (b"name: \x00\n", "not YAML"),
        (b"a: " + b"[" * 5000, "deeper"),
        (b"#" * (MAX_BYTES + 1), "larger"),
        (b"? [a, b]\n: c\n", "plain key"),
        (b"? &a b\n: c\n", "anchor"),
        (b"name: " + b"9" * 5000, "digits"),
        (b"name: 0x" + b"f" * 5000, "digits"),
        (b"name: 0o" + b"7" * 5000, "digits"),
        (b"name: 0." + b"9" * 5000, "digits"),
    ],
)
def test_what_is_no_template_at_all_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "t.yaml").write_bytes(content)
    with pytest.raises(TemplateInvalid, match=says):
        parse_template(read_document(tmp_path / "t.yaml"))


@pytest.mark.parametrize(
    ("plain", "value"),
    [
        *((word, None) for word in ("", "~", "null", "NULL")),
        *(("true", True), ("False", False), ("yes", "yes"), ("nULL", "nULL"), ("'null'", "null")),
        *(("-007", -7), ("0o17", 15), ("0x1F", 31), ("1_000", "1_000"), ("12:30", "12:30")),
        *(("1.", 1.0), (".5", 0.5), ("-1e3", -1000.0), ("e3", "e3"), ("-.inf", -math.inf)),
        *(("2026-01-02", "2026-01-02"), ("'5'", "5"), ("<<", "<<"), ("=", "=")),
    ],
)
def test_a_plain_scalar_means_what_yaml_1_2_says(tmp_path: Path, plain: str, value: object) -> None:
    (tmp_path / "t.yaml").write_text(f"key: {plain}\n")
    content = read_document(tmp_path / "t.yaml").content
    assert repr(content) == repr({"key": value})  # which tells 1 from 1.0 and from true


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_content_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    with pytest.raises(TemplateInvalid):
        parse_template(read_document(file))


@given(data=st.data())
def test_a_damaged_template_is_told_within_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever stands in place of a piece of a template: it is read, or a place in it is named."""
    start = data.draw(st.integers(0, len(FLIGHTS)))
    length = data.draw(st.integers(0, 12))
    instead = data.draw(st.text(alphabet="[]{}:,-#'\"& *!|>\n ab1.~", max_size=6))
    text = FLIGHTS[:start] + instead + FLIGHTS[start + length :]
    file = tmp_path_factory.getbasetemp() / "damaged.yaml"
    file.write_text(text)
    try:
        parse_template(read_document(file))
    except TemplateInvalid as invalid:
        lines = text.count("\n") + 2
        assert all(1 <= mistake.position.line <= lines for mistake in invalid.mistakes)


def test_batch_is_an_ordinary_column_where_dbt_writes(tmp_path: Path) -> None:
    text = "name: m\nnamespace: marts\ncolumns:\n  - {name: _batch, type: string, required: true}\n"
    assert [c.name for c in template(tmp_path, text).all_columns] == ["_batch"]
    assert mistakes(tmp_path, text.replace("type: string", "type: int"))[0][:2] == (4, 26)
    assert mistakes(tmp_path, text.replace("_batch", "_file"))[0][:2] == (4, 12)


def test_a_loaded_table_needs_a_source(tmp_path: Path) -> None:
    text = FLIGHTS[: FLIGHTS.index("source:")] + "load: {dataset: flights}\n"
    assert "source" in mistakes(tmp_path, text)[0][2]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# The flights of one day.\n", ""),
        ("description: Departures from New York.\n", ""),
        ("description: Two letters", "description: Carrier"),
        ("decimal( 9, 2 )", "decimal(9,2)"),
        (", was: tail", ""),
        (
            "{name: tailnum, type: string",
            "{name: tailnum, pii: true, required: false, type: string",
        ),
        ("tags: {owner: ops}\n", ""),
        ("  path: s3://somewhere/else\n", ""),
        ("write_format: parquet", '"write.format.default": parquet'),
        ("transform: day}", "transform: days}"),
        ("{column: carrier}", "{column: carrier, direction: asc, null_order: nulls_first}"),
        ("encoding: Shift_JIS", "encoding: sjis"),
        ("    delimiter:", "    header: true\n    delimiter:"),
    ],
)
def test_the_digest_does_not_see_what_changes_no_data(tmp_path: Path, old: str, new: str) -> None:
    assert old in FLIGHTS
    first = template(tmp_path, FLIGHTS).digest
    assert template(tmp_path, FLIGHTS.replace(old, new)).digest == first
    assert len(bytes.fromhex(first)) == hashlib.sha256().digest_size


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: flights\n", "name: flights2\n"),
        ("    type: string\n", "    type: binary\n"),
        ("    required: true\n", ""),
        ("name: tailnum", "name: tail_number"),
        ("decimal( 9, 2 )", "decimal(9,3)"),
        ("transform: day}", "transform: hour}"),
        ("direction: desc", "direction: asc"),
        ("commit_num_retries: 20", "commit_num_retries: 21"),
        ('delimiter: "\\t"', "delimiter: ','"),
        ("Shift_JIS", "cp932"),
        ('["", NA]', '["", N/A]'),
        ("{dataset: flights}", "{dataset: others}"),
    ],
)
def test_the_digest_sees_what_changes_data(tmp_path: Path, old: str, new: str) -> None:
    assert old in FLIGHTS
    changed = template(tmp_path, FLIGHTS.replace(old, new))
    assert changed.digest != template(tmp_path, FLIGHTS).digest
