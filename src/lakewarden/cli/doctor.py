"""lakewarden doctor: what answers, as whom, and what is missing."""

import dataclasses
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from lakewarden.cli.options import AsJson, EnvName, ProjectDir, open_project
from lakewarden.cli.output import console, say, show_json, visible

if TYPE_CHECKING:
    from lakewarden.checkup import Part, Question
    from lakewarden.wiring import Project

LOCAL = "local"


def doctor(
    project: ProjectDir = None,
    env: EnvName = None,
    every: Annotated[bool, typer.Option("--all", help="Every environment of the project.")] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="You are to see how things are, not to write.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask every part of an environment what it is, who it takes us for, and what is missing.

    Nothing is changed. Exit code 0: all is well; 1: something has to be mended; 75: something did
    not answer, and may later.

    Example: lakewarden doctor --env prod
    """
    from lakewarden.checkup import check, exit_code

    opened = open_project(project, env, as_json=as_json)
    names = sorted(opened.settings.env) if every else [opened.env_name]
    found: dict[str, Sequence[Part]] = {}
    told: list[Mapping[str, object]] = []
    for name in names:
        one = open_project(project, name, as_json=as_json)
        with console.status(f"asking the parts of {name}"):
            found[name] = check(_questions(one, writes=not read_only))
        if as_json:
            told.append(_told(one, found[name]))
        else:
            _show(one, found[name])
    if as_json:
        show_json({"project": opened.settings.project, "environments": told})
    codes = [exit_code(parts) for parts in found.values()]
    raise typer.Exit(1 if 1 in codes else max(codes))


def _questions(project: "Project", *, writes: bool) -> "Sequence[Question]":
    from lakewarden import doctor as asking

    probe = f"lakewarden-doctor-{secrets.token_hex(8)}"
    asked = list(asking.questions(project, probe, writes=writes))
    if project.env.account == LOCAL:
        asked[:0] = _local_stack(project)
    return asked


def _local_stack(project: "Project") -> "Iterator[Question]":
    from lakewarden.checkup import Question
    from lakewarden.local.check import check_nessie_programs, check_stack
    from lakewarden.local.stack import StackConfig

    config = StackConfig(project.root, project.env.bucket, project.env.region)
    yield Question("stack", lambda: check_stack(config))
    if project.env.catalog.type == "nessie":
        yield Question("programs", check_nessie_programs)


def _show(project: "Project", parts: "Sequence[Part]") -> None:
    well = sum(part.well for part in parts)
    account = (
        "on this machine" if project.env.account == LOCAL else f"account {project.env.account}"
    )
    say(
        f"{project.settings.project}, {project.env_name} ({account}):"
        f" {'all' if well == len(parts) else well} of {len(parts)} parts are well"
    )
    width = max(len(part.name) for part in parts)
    hints: list[str] = []
    for part in parts:
        console.print(_headline(part, width), soft_wrap=True)
        for line in _lines(part):
            say(f"  {'':<{width}}  {line}")
        if part.answer.hint and part.answer.hint not in hints:
            hints.append(part.answer.hint)
    for hint in hints:
        say(f"Next: {hint}")


def _headline(part: "Part", width: int) -> Text:
    who = f", as {part.answer.who}" if part.answer.who else ""
    latency = part.answer.latency
    return Text.assemble(
        ("✓" if part.well else "✗", "green" if part.well else "red bold"),
        f" {part.name:<{width}}  ",
        visible(f"{part.answer.told}{who}"),
        ("" if latency is None else f"  {latency * 1000:,.0f} ms", "dim"),
    )


def _lines(part: "Part") -> Iterator[str]:
    yield from (f"missing: {one}" for one in part.answer.missing)
    yield from (f"not known: {one}" for one in part.answer.unknown)


def _told(project: "Project", parts: "Sequence[Part]") -> Mapping[str, object]:
    return {
        "env": project.env_name,
        "account": project.env.account,
        "well": all(part.well for part in parts),
        "parts": [
            {
                "name": part.name,
                "well": part.well,
                **dataclasses.asdict(part.answer),
                "seconds": round(part.seconds, 4),
            }
            for part in parts
        ],
    }
