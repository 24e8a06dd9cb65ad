"""What the stand-in for ECS decides: frames, the allow-list, records."""

import json
import stat
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.local.containers import images
from lakewarden.local.containers.framing import STDERR, frame, whole_lines
from lakewarden.local.containers.images import Image, ImageUnknown, VariableRefused
from lakewarden.local.containers.records import Record

IMAGE = Image(
    argv=("/bin/program", "--option"),
    folder=Path("/srv"),
    environment={"PATH": "/usr/bin", "KEY": "secret"},
    takes=("TASK", "PATH"),
)


@given(st.binary(max_size=300))
def test_a_frame_says_its_stream_and_length(payload: bytes) -> None:
    made = frame(STDERR, payload)
    stream, length = struct.unpack(">BxxxL", made[:8])
    assert (stream, length, made[8:]) == (STDERR, len(payload), payload)


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_output_comes_in_whole_lines_and_nothing_is_lost(pieces: list[bytes]) -> None:
    held, sent = b"", []
    for piece in pieces:
        send, held = whole_lines(held + piece, ended=False)
        assert send == b"" or send.endswith(b"\n")
        assert b"\n" not in held
        sent.append(send)
    last, nothing = whole_lines(held, ended=True)
    assert nothing == b""
    assert b"".join(sent) + last == b"".join(pieces)


def test_a_line_without_an_end_is_sent_at_some_time() -> None:
    assert whole_lines(b"x" * (1 << 19), ended=False) == (b"x" * (1 << 19), b"")


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("runner", "runner"),
        ("runner:1.2", "runner"),
        ("registry.example:5000/team/runner:1", "runner"),
        ("team/runner@sha256:" + "0" * 64, "runner"),
        ("runner/", ""),
        ("../../bin/sh", "sh"),
        ("", ""),
    ],
)
def test_an_image_is_known_by_its_name(reference: str, name: str) -> None:
    assert images.name_of(reference) == name


def test_what_is_not_on_the_list_is_refused() -> None:
    with pytest.raises(ImageUnknown, match="allow-list"):
        images.choose({"runner": IMAGE}, "runner2")
    with pytest.raises(ImageUnknown):
        images.choose({}, "")


def test_a_task_adds_what_its_image_takes_and_nothing_else() -> None:
    given = {
        "TASK": "told",
        "AWS_ENDPOINT_URL": "http://elsewhere",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "x",
        "ECS_CONTAINER_METADATA_URI_V4": "x",
    }
    assert images.added(IMAGE, given) == {"TASK": "told"}


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "KEY",
        "LD_PRELOAD",
        "PYTHONPATH",
        "TASK2",
        "task",
        "",
        "A=B",
        "TASK\n",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "JAVA_TOOL_OPTIONS",
    ],
)
def test_a_variable_that_is_not_taken_refuses_the_task(name: str) -> None:
    with pytest.raises(VariableRefused) as caught:
        images.added(IMAGE, {name: "a value"})
    assert "a value" not in str(caught.value)
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_a_value_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(VariableRefused):
        images.added(IMAGE, {"TASK": "a\0b"})


def test_the_list_is_kept_for_its_owner_and_keys_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    images.write(path, {"runner": IMAGE})
    assert images.read(path) == {"runner": IMAGE}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "secret" not in repr(IMAGE)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"images": {"x": {"argv": []}}}'])
def test_a_damaged_list_has_nothing_on_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "images.json"
    path.write_text(content)
    assert images.read(path) == {}
    assert images.read(tmp_path / "none.json") == {}


def test_a_record_knows_its_task() -> None:
    labels = {
        "com.amazonaws.ecs.task-arn": "arn:task",
        "com.amazonaws.ecs.task-definition-family": "runner",
        "com.amazonaws.ecs.task-definition-version": "3",
    }
    record = Record(
        id="1" * 64,
        name="n",
        image="runner",
        labels=labels,
        variables={"LAKEWARDEN_TASK_TOKEN": "t"},
        created="2026-01-01T00:00:00+00:00",
    )
    assert (record.task, record.task_definition, record.token) == ("arn:task", "runner:3", "t")
    assert Record.model_validate(json.loads(record.model_dump_json())) == record
    assert record.model_copy(update={"labels": {}, "variables": {}}).token is None
