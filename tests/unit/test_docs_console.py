"""How commands are found in pages, compared, and put back."""

from pathlib import Path

import pytest

from docs.console import PAGES, ROOT, Answer, commands, normalised, refreshed, run

PAGE = """\
# A page

```console
$ echo one
one
$ cat <<'EOF'
> two
> three
> EOF
two
three
```

```sh
$ echo not run
```

```console
$ false
$ echo $?
0
```
"""


def test_only_blocks_marked_console_are_run() -> None:
    found = list(commands("page.md", PAGE))
    assert [one.text for one in found] == [
        "echo one",
        "cat <<'EOF'\ntwo\nthree\nEOF",
        "false",
        "echo $?",
    ]
    assert [list(one.shown) for one in found] == [["one"], ["two", "three"], [], ["0"]]
    assert [PAGE.splitlines()[one.line - 1][:3] for one in found] == ["$ e", "$ c", "$ f", "$ e"]


def test_commands_run_in_one_shell_and_their_exit_codes_are_told(tmp_path: Path) -> None:
    told = list(commands(PAGES[0], PAGE))
    answers = run(told, tmp_path, Path("/nowhere"))
    assert answers == [
        Answer(["one"], 0),
        Answer(["two", "three"], 0),
        Answer([], 1),
        Answer(["1"], 0),
    ]
    mended = refreshed(PAGE, told, answers)
    assert mended == PAGE.replace("$ echo $?\n0", "$ echo $?\n1")
    assert list(commands(PAGES[0], mended))[3].shown == ("1",)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("run 20261123T005146608-3e2b17", "run 20270101T000000001-ffffff"),
        ("S3 answers at http://127.0.0.1:20313,", "S3 answers at http://127.0.0.1:13471,"),
        ("2026-11-23 00:52:00  flights", "2027-01-02 10:00:00  flights"),
        ("✓ load   842 rows    0.5 s", "✓ load   842 rows   12.5 s"),
        ("Done in 39 s; nothing", "Done in 9 s; nothing"),
        ("load     refused      0.3  552", "load     refused     10.3  552"),
        ("padded   ", "padded"),
    ],
)
def test_what_differs_from_run_to_run_counts_as_equal(one: str, other: str) -> None:
    assert normalised([one]) == normalised([other])


@pytest.mark.parametrize(
    ("one", "other"),
    [("842 rows", "841 rows"), ("version 1", "version 2"), ("2013-01-01", "2013-01-02")],
)
def test_what_a_reader_would_miss_does_not(one: str, other: str) -> None:
    assert normalised([one]) != normalised([other])


def test_every_page_with_commands_is_run() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
    pages += ROOT.glob("src/lakewarden/examples/*/README.md")
    with_commands = {
        path.relative_to(ROOT).as_posix()
        for path in pages
        if "```console" in path.read_text("utf-8")
    }
    assert with_commands == set(PAGES)
