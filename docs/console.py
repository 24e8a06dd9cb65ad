"""The commands that the pages show, run in order, and what they print.

A fenced block marked `console` is run: a line that begins with `$ ` is a command (`> ` goes on
with it), the lines after it are what it prints on a terminal. The blocks of README.md come first
and start in an empty folder; every other page starts where README.md ends. A block with any other
mark is not run.
"""

import os
import pty
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import chain, repeat
from pathlib import Path

from lakewarden.cli import flights_data

ROOT = Path(__file__).parents[1]

# In the order in which they are run.
PAGES = (
    "README.md",
    "docs/environments.md",
    "docs/batch.md",
    "docs/files.md",
    "docs/readers.md",
    "src/lakewarden/examples/flights/README.md",
    "docs/local-stack.md",
    "docs/own-data.md",
    "src/lakewarden/examples/events/README.md",
    "src/lakewarden/examples/dpc/README.md",
)
# What is given in the checkout, and what it comes to with an installed package.
_MEANS = {"make demo": "lakewarden demo"}
DELIVERIES = Path("lakewarden-demo", "deliveries")
_FENCE = re.compile(r"^```(\S*)$")
_SEPARATOR = "\x1e"


@dataclass(frozen=True)
class Command:
    """One command of a page, and the output that the page shows."""

    page: str
    line: int  # of the command, from 1
    text: str
    shown: tuple[str, ...]
    end: int  # the line after its output


@dataclass(frozen=True)
class Answer:
    """What a command really printed, and its exit code."""

    printed: Sequence[str]
    status: int


def all_commands() -> list[Command]:
    """Every command of every page, in the order in which they are run."""
    return [one for page in PAGES for one in commands(page, (ROOT / page).read_text("utf-8"))]


def commands(page: str, text: str) -> Iterator[Command]:
    """The commands in a page's `console` blocks."""
    for first, block in _blocks(text):
        starts = [n for n, line in enumerate(block) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(block)], strict=True):
            after = start + 1
            while after < end and (block[after] == ">" or block[after].startswith("> ")):
                after += 1
            told = [line[2:] for line in block[start:after]]
            yield Command(
                page, first + start, "\n".join(told), tuple(block[after:end]), first + end
            )


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines of each `console` block, and the number of the first."""
    block: list[str] | None = None
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if fence is None:
            if block is not None:
                block.append(line)
        elif not fenced:
            fenced, first = True, number + 1
            block = [] if fence[1] == "console" else None
        else:
            if block is not None:
                yield first, block
            fenced, block = False, None


def run(told: Sequence[Command], folder: Path, programs: Path) -> list[Answer]:
    """Give the commands in one shell, as on a terminal without colours, in an empty folder.

    programs: a folder that comes first on the PATH. The demonstration is run beside the others,
    which find its deliveries all the same. Whatever happens, the local stacks that the commands
    started are stopped."""
    demo = [one for one in told if one.text in _MEANS]
    others = [one for one in told if one.text not in _MEANS]
    places = [folder / "demo", folder / "try"]
    for place in places:
        place.mkdir()
    if demo:
        _write_deliveries(places[1] / DELIVERIES)
    with ThreadPoolExecutor() as pool:
        runs = pool.map(_run_in, (demo, others), places, repeat(programs))
        answers = dict(zip((*demo, *others), chain.from_iterable(runs), strict=True))
    if demo and not _same_files(*(place / DELIVERIES for place in places)):
        raise RuntimeError(f"the demonstration leaves other deliveries in {DELIVERIES}")
    return [answers[one] for one in told]


def _run_in(told: Sequence[Command], folder: Path, programs: Path) -> list[Answer]:
    script = folder.with_suffix(".sh")
    script.write_text("\n".join(_script(told, programs)) + "\n", "utf-8")
    try:
        text = _on_a_terminal([_bash(), str(script)], folder)
    finally:
        _stop_stacks(folder, programs)
    pieces = re.split(f"{_SEPARATOR}([0-9]+){_SEPARATOR}\n", text.replace(str(folder), "~"))
    if len(pieces) != 2 * len(told) + 1:
        raise RuntimeError(f"the shell ended early, after:\n{text[-2000:]}")
    return [
        # A progress bar leaves an empty line on a terminal that cannot go back.
        Answer([line.rstrip() for line in printed.strip("\n").splitlines()], int(status))
        for printed, status in zip(pieces[:-1:2], pieces[1::2], strict=True)
    ]


def _write_deliveries(folder: Path) -> None:
    """What the demonstration leaves, as far as the pages use it."""
    for day in (date(2013, 1, 1), date(2013, 1, 2)):
        flights_data.write_delivery(day, folder / str(day))
    flights_data.write_reference("2013-01", folder / "2013-01")


def _same_files(left: Path, made: Path) -> bool:
    files = [path.relative_to(made) for path in made.rglob("*.csv")]
    return all((left / path).read_bytes() == (made / path).read_bytes() for path in files)


def _script(told: Sequence[Command], programs: Path) -> Iterator[str]:
    yield f"export PATH='{programs}':\"$PATH\" TERM=dumb COLUMNS=120 LINES=50 LC_ALL=C.UTF-8"
    yield "unset NO_COLOR FORCE_COLOR ${!LAKEWARDEN@}"
    yield f"__told() {{ local s=$?; printf '{_SEPARATOR}%s{_SEPARATOR}\\n' $s; return $s; }}"
    page = PAGES[0]
    for command in told:
        if command.page != page:
            yield '__home=${__home:-$PWD}; cd "$__home"'
            page = command.page
        yield _MEANS.get(command.text, command.text)
        yield "__told"


def _bash() -> str:
    found = shutil.which("bash")
    if found is None:
        raise RuntimeError("the pages' commands are given to bash, and there is none")
    return found


def _on_a_terminal(argv: Sequence[str], folder: Path) -> str:
    """What a program prints on a terminal of its own, standard error included."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=its, stderr=its, start_new_session=True
    )
    os.close(its)
    try:
        printed = b"".join(_read(ours))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours)
    return printed.decode("utf-8", "replace").replace("\r\n", "\n")


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # EIO: nobody has the other end any more
            return
        if not data:
            return
        yield data


def _stop_stacks(folder: Path, programs: Path) -> None:
    for project in folder.glob("*/lakewarden.toml"):
        down = [str(programs / "lakewarden"), "local", "down", "--project", str(project.parent)]
        subprocess.run(down, check=False, capture_output=True)


# What differs from run to run, and from machine to machine.
_VARIES = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"\b[0-9]{8}T[0-9]{9}-[0-9a-f]{6}\b"), "RUN"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"127\.0\.0\.1:[0-9]+"), "127.0.0.1:PORT"),
    (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:]{8}(\.[0-9]+)?(\+00:00|Z)?"), "TIME"),
    (re.compile(r" +[0-9]+\.[0-9] s$"), " SECONDS"),
    (re.compile(r" +[0-9,]+ ms$"), " MS"),
    (re.compile(r"\bin [0-9]+ s\b"), "in SECONDS"),
    (re.compile(r"^(\w+ +(?:ok|refused|failed)) +[0-9]+\.[0-9] "), r"\1 SECONDS "),
)


def normalised(lines: Iterable[str]) -> list[str]:
    """Lines without what differs from run to run: ids, times, seconds, ports."""
    found = []
    for line in lines:
        for pattern, stands_for in _VARIES:
            line = pattern.sub(stands_for, line)
        found.append(line.rstrip())
    return found


def refreshed(text: str, told: Sequence[Command], answers: Sequence[Answer]) -> str:
    """A page with what its commands really print, where that is not what it shows."""
    lines = text.splitlines()
    for command, answer in reversed(list(zip(told, answers, strict=True))):
        if normalised(command.shown) != normalised(answer.printed):
            start = command.end - len(command.shown) - 1
            lines[start : command.end - 1] = answer.printed
    return "\n".join(lines) + "\n"
