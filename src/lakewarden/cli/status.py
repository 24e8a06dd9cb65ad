"""lakewarden status: one screen that says how things are."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from lakewarden.cli.options import AsJson, EnvName, ProjectDir, open_project
from lakewarden.cli.output import console, plural, say, show_json, visible

if TYPE_CHECKING:
    from lakewarden.batch.overview import BatchState

_BATCHES = 40  # that the chart shows
_LINES = 5  # of batches to look at, for each dataset
_BARS = "▁▂▃▄▅▆▇█"


def status(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """Datasets, their last batches, and what is late, refused or waiting.

    The chart shows rows by batch, the newest at the right; a dot is a batch that is not published.

    Example: lakewarden status
    """
    opened = open_project(project, env, as_json=as_json)
    found = {name: opened.overview(name, most=_BATCHES) for name in opened.settings.dataset}
    branches = opened.lake.branches()
    pin = opened.pin()
    if as_json:
        show_json(
            {
                "project": opened.settings.project,
                "env": opened.env_name,
                "version": int(pin.version),
                "tables": len(pin.tables),
                "branches": [branch.name for branch in branches],
                "datasets": {
                    name: [dataclasses.asdict(one) for one in states]
                    for name, states in found.items()
                },
            }
        )
        return
    left = f", {plural(len(branches), 'branch', 'branches')}" if branches else ""
    say(
        f"{opened.settings.project}, {opened.env_name}: version {pin.version},"
        f" {plural(len(pin.tables), 'table')}{left}"
    )
    width = max(len(name) for name in found)
    for name, states in found.items():
        say()
        console.print(_headline(name.ljust(width), states), soft_wrap=True)
        for line in _troubles(name, states):
            say(f"  {line}")


def chart(states: "Sequence[BatchState]") -> str:
    """A bar a batch, by its rows; a dot where nothing of it is published."""
    most = max((one.rows or 0 for one in states), default=0)
    return "".join(
        "·" if one.rows is None else _BARS[round((len(_BARS) - 1) * one.rows / most) if most else 0]
        for one in states
    )


def _headline(name: str, states: "Sequence[BatchState]") -> Text:
    published = [one for one in states if one.rows is not None]
    if not published:
        told = (
            f"  none of the last {len(states)} batches is published" if states else "  no batch yet"
        )
        return Text.assemble((visible(name), "bold"), told)
    last = published[-1]
    return Text.assemble(
        (visible(name), "bold"),
        f"  {chart(states)}  last {last.batch}: {plural(last.rows or 0, 'row')},"
        f" version {last.version}",
    )


_NEXT: Mapping[str, str] = {
    "missing": "ask whoever delivers it",
    "late": "ask whoever delivers it",
    "waiting": "lakewarden batch run {dataset} {batch}",
    "refused": "lakewarden batch show {dataset} {batch}",
    "failed": "lakewarden batch show {dataset} {batch}",
}


def _troubles(dataset: str, states: "Sequence[BatchState]") -> "Sequence[str]":
    """What somebody should look at, the worst first, and what is expected next."""
    from lakewarden.batch.overview import TROUBLE

    newest_first = [one for one in reversed(states) if one.state in TROUBLE]
    bad = sorted(newest_first, key=lambda one: TROUBLE.index(one.state))
    lines = [
        f"{one.state:<9} {one.batch}  {_why(one)}→ "
        + _NEXT[one.state].format(dataset=dataset, batch=one.batch)
        for one in bad[:_LINES]
    ]
    if len(bad) > _LINES:
        lines.append(f"and {len(bad) - _LINES} more: lakewarden batch list --expected")
    coming = next((one for one in states if one.state == "expected" and one.due), None)
    if coming and coming.due:
        lines.append(f"expected  {coming.batch}  due {coming.due:%Y-%m-%d %H:%M} UTC")
    return lines


def _why(state: "BatchState") -> str:
    if state.error:
        return f"{state.error}  "
    if state.due and state.state in ("late", "missing"):
        return f"was due {state.due:%Y-%m-%d %H:%M} UTC  "
    return ""
