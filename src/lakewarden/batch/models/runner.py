"""One dbt invocation in this process: quiet, alone, and without traces.

dbt keeps state in the process (flags, loggers, adapters, the working directory), so invocations
are made one at a time and put back what they change. dbt is imported when it is first needed.
"""

import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lakewarden.batch.duck import DuckConfig, options
from lakewarden.errors import WrongUsage

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunnerResult
    from dbt.contracts.graph.manifest import Manifest

DATABASE = "models"  # DuckDB names a database after its file
_PROFILE = "lakewarden"
_TARGET = "lake"
_THREADS = 4
# What says what ran and what came of it, by the name under which it is kept.
_KEPT = {
    "build": {"manifest.json": "manifest.json", "run_results.json": "run_results.json"},
    "test": {"manifest.json": "manifest.json", "run_results.json": "test_results.json"},
}
_IN_THE_LOG = "dbt.log, kept with the run's receipts, has more of it, but no value of the data."
_WITHHELD = "(withheld: it may quote a value)"
_QUOTES = "whose message may quote a value"
# How nodes end of whose message is what went wrong; of others it counts rows.
_ERRORS = ("error", "runtime error")
_SHORT = 8  # characters; a shorter line of a message is looked for as a whole line only
_LONGEST_MESSAGE = 500  # characters; the log has the whole
# DuckDB's names of errors, with which its messages begin.
_OF_DATA = {"Conversion", "Invalid Input", "Out of Range", "Constraint", "Mismatch Type"}
_OF_SQL = {"Binder", "Catalog", "Parser", "Syntax"}
_OF_ELSE = {
    *("IO", "HTTP", "Out of Memory", "INTERNAL", "FATAL", "INTERRUPT", "Not implemented"),
    *("Invalid type", "Unknown Type", "Serialization", "TransactionContext", "Sequence"),
    *("Connection", "Permission", "Dependency", "Missing Extension", "Invalid Configuration"),
}
_KIND = re.compile(rf"({'|'.join(sorted(_OF_DATA | _OF_SQL | _OF_ELSE))}) Error\b")
_OF_DBT = "Compilation Error"
# What dbt puts before a message of DuckDB's: of a model or a test, of a hook.
_WRAPPER = re.compile(r"(Runtime|Database) Error( in [^\n]*)?\n\s*|\S+ failed, error:\n\s*")

_ALONE = threading.Lock()


class DbtProjectInvalid(WrongUsage):
    """dbt does not accept the project's files."""


@dataclass(frozen=True)
class DbtSite:
    """Where one run of dbt works: the user's project, which is only read, and a folder in scratch.

    Paths are absolute, since dbt changes the working directory.
    """

    project: Path
    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / f"{DATABASE}.duckdb"

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"


def prepare_site(project: Path, folder: Path, duck: DuckConfig) -> DbtSite:
    """Make the folder, with a profile for our database. The profile holds no secret: dbt opens a
    database that we hold open already, with its extensions and its S3 secret."""
    site = DbtSite(project.absolute(), folder.absolute())
    shutil.rmtree(site.folder, ignore_errors=True)
    site.artifacts.mkdir(parents=True)
    output = {
        "type": "duckdb",
        "path": str(site.database),
        "schema": "main",
        "threads": _THREADS,
        "keep_open": False,
        "config_options": dict(options(duck)),
        "settings": {"TimeZone": "UTC"},
    }
    profile = {_PROFILE: {"target": _TARGET, "outputs": {_TARGET: output}}}
    (site.folder / "profiles.yml").write_text(json.dumps(profile))
    return site


def clear_site(site: DbtSite) -> None:
    """Remove everything but the artifacts: the database holds rows."""
    for path in site.folder.iterdir():
        if path.is_dir() and path != site.artifacts:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()


def invoke(
    site: DbtSite,
    command: str,
    arguments: Sequence[str] = (),
    *,
    variables: Mapping[str, object],
    manifest: "Manifest | None" = None,
) -> "dbtRunnerResult":
    """Run one dbt command; its log and what `_KEPT` names end in `site.artifacts`.

    manifest: spares the parsing; dbt writes into it. Raises DbtProjectInvalid where dbt refuses
    the project, and whatever else ended dbt; nodes that failed are in the result.
    """
    from dbt.cli.main import dbtRunner

    target = site.folder / f"target-{command}"
    line = [
        command,
        *("--project-dir", str(site.project)),
        *("--profiles-dir", str(site.folder)),
        *("--profile", _PROFILE),
        *("--target", _TARGET),
        *("--target-path", str(target)),
        *("--log-path", str(site.artifacts)),
        *("--log-level", "none"),
        *("--log-level-file", "debug"),
        "--quiet",
        "--no-print",
        "--no-use-colors-file",
        "--no-partial-parse",
        "--no-send-anonymous-usage-stats",
        *("--vars", json.dumps(variables)),
        *arguments,
    ]
    with _alone():
        result = dbtRunner(manifest=manifest).invoke(line)
    _keep(site, command, target)
    if command != "parse":  # which asks the database nothing
        _withhold(site, list(_quoting(result)))
    if result.exception is not None:
        raise _explained(result.exception, site, command) from result.exception
    return result


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock, and give back the working directory and the loggers as they were."""
    with _ALONE:
        folder = Path.cwd()
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        # Else a log line that a full disk does not take is printed, with what it quotes.
        told, logging.raiseExceptions = logging.raiseExceptions, False
        try:
            yield
        finally:
            os.chdir(folder)
            root.handlers[:], root.level = handlers, level
            _close_logs()
            logging.raiseExceptions = told


def _close_logs() -> None:
    from dbt_common.events.event_manager_client import cleanup_event_logger

    with suppress(OSError):  # a full disk does not take what is left of a log
        cleanup_event_logger()
    for name in ("file_log", "stdout_log"):
        log = logging.getLogger(name)
        for handler in list(log.handlers):
            log.removeHandler(handler)
            with suppress(OSError):
                handler.close()


def _keep(site: DbtSite, command: str, target: Path) -> None:
    for name, kept in _KEPT.get(command, {}).items():
        if (target / name).exists():
            if name == "run_results.json" and (site.artifacts / kept).exists():
                _join(site.artifacts / kept, target / name)
            shutil.move(target / name, site.artifacts / kept)
    shutil.rmtree(target, ignore_errors=True)


def _join(before: Path, results: Path) -> None:
    """Models are built by several builds, one after the other: what is kept tells of all."""
    first, joined = (json.loads(path.read_bytes()) for path in (before, results))
    joined["results"] = first["results"] + joined["results"]
    joined["elapsed_time"] += first["elapsed_time"]
    results.write_text(json.dumps(joined), "utf-8")


def _quoting(result: "dbtRunnerResult") -> Iterator[str]:
    """Messages that may quote a value of the data."""
    found = [str(result.exception)] if result.exception else []
    ended = getattr(result.result, "results", ())
    found += [one.message or "" for one in ended if one.status in _ERRORS]
    yield from (message for message in found if _told(message) is None)


def _withhold(site: DbtSite, messages: Sequence[str]) -> None:
    """Take messages that may quote a value out of the log and the artifacts: those are kept."""
    if not messages:
        return
    lines = {
        line.strip() for message in messages for line in message.split("\nLINE ")[0].split("\n")
    }
    log = site.artifacts / "dbt.log"
    if log.exists():
        kept = (_without(line, lines) for line in log.read_text("utf-8", "replace").split("\n"))
        log.write_text("\n".join(kept), "utf-8")
    for name in ("run_results.json", "test_results.json"):
        path = site.artifacts / name
        if path.exists():
            document = json.loads(path.read_bytes())
            for one in document["results"]:
                if one["status"] in _ERRORS:
                    one["message"] = brief(one["message"] or "")
            path.write_text(json.dumps(document), "utf-8")


def _without(line: str, withheld: Collection[str]) -> str:
    if line.strip() in withheld and line.strip():
        return _WITHHELD
    for text in withheld:
        if len(text) > _SHORT and text in line:
            line = line.replace(text, _WITHHELD)
    return line


def _explained(error: BaseException, site: DbtSite, command: str) -> BaseException:
    from dbt_common.exceptions import DbtBaseException

    if not isinstance(error, DbtBaseException):
        return error
    # Parsing asks the database nothing, so what it says is of the project's files.
    told = _on_one_line(str(error)) if command == "parse" else brief(str(error))
    message = f"dbt refuses the project {site.project}: {told}"
    return DbtProjectInvalid(message, hint=_IN_THE_LOG)


def brief(message: str) -> str:
    """What may be told of a failed model, test or hook: never a value of the data.

    Of errors that speak of the project's SQL alone it is DuckDB's first line (the next ones quote
    the SQL, which a macro may have made of values), or what dbt says; of any other the kind.
    """
    told = _told(message)
    if told is not None:
        return _on_one_line(told)
    kind, _ = _read(message)
    return f"{kind} Error, {_QUOTES}" if kind else f"an error, {_QUOTES}"


def _told(message: str) -> str | None:
    """What of an error's message quotes no value; None: whatever it says may be one."""
    kind, told = _read(message)
    if kind in _OF_SQL:
        return told.partition("\n")[0]
    if message.startswith(_OF_DBT) and not _KIND.search(message):
        return message
    return None


def is_of_data(message: str) -> bool:
    """Whether values are why a model, test or hook failed, and not the machine or the store."""
    return _read(message)[0] in _OF_DATA


def _read(message: str) -> tuple[str | None, str]:
    """The kind of DuckDB's error, and its message as DuckDB gave it."""
    wrapper = _WRAPPER.match(message)
    told = message[wrapper.end() :] if wrapper else message
    kind = _KIND.match(told)
    return (kind[1] if kind else None), told


def _on_one_line(message: str) -> str:
    """Cut where it gets long."""
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST_MESSAGE else line[: _LONGEST_MESSAGE - 1] + "…"
