"""lakewarden status: one screen that says how things are."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from lakewarden.cli.options import AsJson, EnvName, ProjectDir, open_project
from lakewarden.cli.output import console, plural, say, show_json, visible

if TYPE_CHECKING:
    from lakewarden.batch.overview import BatchState
    from lakewarden.lake.model import Branch, Publication

_BATCHES = 40  # that the chart shows
_LINES = 5  # of batches to look at, for each dataset
_NAMED = 3  # branches; of more only their number is told
_BARS = "▁▂▃▄▅▆▇█"


def status(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """Datasets, their last batches, and what is late, refused or waiting.

    The chart shows rows by batch, the newest at the right; a dot is a batch that is not published.

    Example: lakewarden status
    """
    from lakewarden.batch.overview import last_published

    opened = open_project(project, env, as_json=as_json)
    found = {name: opened.overview(name, most=_BATCHES) for name in opened.settings.dataset}
    log = opened.lake.publications()
    version = max((one.version for one in log), default=0)
    last = {
        name: last_published([one for one in log if one.contribution.dataset == name])
        for name in found
    }
    branches = opened.lake.branches()
    pin = opened.pin()
    if as_json:
        show_json(
            {
                "project": opened.settings.project,
                "env": opened.env_name,
                "version": version,
                "tables": len(pin.tables),
                "branches": [branch.name for branch in branches],
                "datasets": {
                    name: [dataclasses.asdict(one) for one in states]
                    for name, states in found.items()
                },
                "last_published": {name: one and _told(one) for name, one in last.items()},
            }
        )
        return
    say(
        f"{opened.settings.project}, {opened.env_name}: version {version},"
        f" {plural(len(pin.tables), 'table')}{_left(branches)}"
    )
    width = max(len(name) for name in found)
    for name, states in found.items():
        say()
        console.print(headline(name.ljust(width), states, last[name]), soft_wrap=True)
        for line in troubles(name, states):
            say(f"  {line}")


def chart(states: "Sequence[BatchState]") -> str:
    """A bar a batch, by its rows; a dot where nothing of it is published."""
    most = max((one.rows or 0 for one in states), default=0)
    return "".join(
        "·" if one.rows is None else _BARS[round((len(_BARS) - 1) * one.rows / most) if most else 0]
        for one in states
    )


def headline(name: str, states: "Sequence[BatchState]", last: "Publication | None") -> Text:
    """The chart, and the last published batch, also where that is older than what the chart
    shows."""
    if last is None:
        told = (
            f"  none of the last {len(states)} batches is published" if states else "  no batch yet"
        )
        return Text.assemble((visible(name), "bold"), told)
    held = last.contribution
    return Text.assemble(
        (visible(name), "bold"),
        f"  {chart(states)}  last {held.batch}: {plural(held.counts.get('loaded', 0), 'row')},"
        f" version {last.version}",
    )


def _told(last: "Publication") -> Mapping[str, object]:
    held = last.contribution
    return {"batch": held.batch, "version": last.version, "rows": held.counts.get("loaded")}


def _left(branches: "Sequence[Branch]") -> str:
    if not branches:
        return ""
    names = ", ".join(visible(one.name) for one in branches)
    named = f" ({names})" if len(branches) <= _NAMED else " (lakewarden lake branches)"
    return f", {plural(len(branches), 'branch', 'branches')}{named}"


_NEXT: Mapping[str, str] = {
    "missing": "ask whoever delivers it",
    "late": "ask whoever delivers it",
    "waiting": "lakewarden batch run {dataset} {batch}",
    "refused": "lakewarden batch show {dataset} {batch}",
    "failed": "lakewarden batch show {dataset} {batch}",
}


def troubles(dataset: str, states: "Sequence[BatchState]") -> "Sequence[str]":
    """What somebody should look at, the worst first, and what is expected next."""
    from lakewarden.batch.overview import TROUBLE

    newest_first = [(one.trouble, one) for one in reversed(states)]
    found = [(trouble, one) for trouble, one in newest_first if trouble]
    bad = sorted(found, key=lambda told: TROUBLE.index(told[0]))
    lines = [
        f"{trouble:<9} {one.batch}  {_why(one)}→ "
        + _NEXT[trouble].format(dataset=dataset, batch=one.batch)
        for trouble, one in bad[:_LINES]
    ]
    if len(bad) > _LINES:
        lines.append(f"and {len(bad) - _LINES} more: lakewarden batch list --expected")
    coming = next((one for one in states if one.state == "expected" and one.due), None)
    if coming and coming.due:
        lines.append(f"expected  {coming.batch}  due {coming.due:%Y-%m-%d %H:%M} UTC")
    return lines


def _why(state: "BatchState") -> str:
    told = [state.error or ""]
    if state.since:
        stays = "it stays unpublished" if state.rows is None else f"version {state.version} stays"
        told.append(f"({stays})")
    elif not state.error and state.due and state.state in ("late", "missing"):
        told.append(f"was due {state.due:%Y-%m-%d %H:%M} UTC")
    line = " ".join(filter(None, told))
    return f"{line}  " if line else ""
