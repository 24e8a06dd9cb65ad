"""lakewarden table: templates against the catalog."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from lakewarden.cli.options import AsJson, EnvName, ProjectDir, open_project
from lakewarden.cli.output import plural, say, show_json, show_table
from lakewarden.errors import Refused, WrongUsage

if TYPE_CHECKING:
    from lakewarden.tables.template import Template
    from lakewarden.wiring import Project

app = typer.Typer(
    help="Templates against the catalog.", no_args_is_help=True, rich_markup_mode=None
)


class TableUnknown(WrongUsage):
    """No template of that name."""


class DriftFound(Refused):
    """Tables are not what their templates say."""


@app.command("list", epilog="Example: lakewarden table list")
def list_(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """Every table that has a template, and who fills it."""
    opened = open_project(project, env, as_json=as_json)
    found = opened.templates
    if as_json:
        show_json(
            [
                {
                    "table": name,
                    "dataset": one.load_dataset,
                    "level": str(one.level),
                    "columns": len(one.columns),
                    "description": one.description,
                }
                for name, one in found.items()
            ]
        )
    else:
        show_table(
            ["table", "filled by", "columns", "description"],
            [
                (name, _filled_by(one), len(one.columns), one.description)
                for name, one in found.items()
            ],
            right=["columns"],
            flex=["description"],
        )


def _filled_by(template: "Template") -> str:
    others = {"observed": "others", "loaded": f"others, and {template.load_dataset}"}
    return others.get(template.level) or template.load_dataset or "dbt"


@app.command("show", epilog="Example: lakewarden table show raw.flights")
def show(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="namespace.name, or the name.")],
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """One table as its template has it: columns, partitions, order."""
    opened = open_project(project, env, as_json=as_json)
    template = _template(opened, table)
    columns = [
        {
            "name": one.name,
            "type": one.type,
            "required": one.required,
            "pii": one.pii,
            "access_level": str(one.access_level),
            "description": one.description,
        }
        for one in template.all_columns
    ]
    partitions = [f"{one.transform}({one.column})" for one in template.partition_spec]
    order = [f"{one.column} {one.direction}" for one in template.sort_order]
    if as_json:
        show_json(
            {
                "table": template.identifier,
                "level": str(template.level),
                "columns": columns,
                "partitions": partitions,
                "order": order,
                "properties": dict(template.properties),
            }
        )
        return
    say(f"{template.identifier}: {template.description}")
    show_table(
        ["column", "type", "required", "pii", "description"],
        [(c["name"], c["type"], c["required"], c["pii"], c["description"]) for c in columns],
        flex=["description"],
    )
    say(f"partitioned by {', '.join(partitions) or 'nothing'}")
    say(f"sorted by {', '.join(order) or 'nothing'}")


@app.command("plan", epilog="Example: lakewarden table plan")
def plan(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """What `table apply` would change; changes nothing."""
    opened = open_project(project, env, as_json=as_json)
    plans = [one for one in opened.plan_tables() if one]
    if as_json:
        show_json(
            [
                {"table": one.identifier, "changes": [c.describe() for c in one.changes]}
                for one in plans
            ]
        )
        return
    for one in plans:
        say(one.identifier)
        for change in one.changes:
            say(f"  {change.describe()}")
    say("Next: lakewarden table apply" if plans else _nothing(opened.templates.values()))


def _nothing(templates: "Iterable[Template]") -> str:
    """Of tables that are not ours a plan does not tell whether they differ."""
    if all(one.level == "owned" for one in templates):
        return "Every table is what its template says."
    return "Every table of ours is what its template says. (Of others: lakewarden table drift)"


@app.command("apply", epilog="Example: lakewarden table apply")
def apply(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """Bring all tables to their templates, in one publish or not."""
    opened = open_project(project, env, as_json=as_json)
    publication = opened.apply_tables()
    if as_json:
        show_json(
            {
                "version": publication.version if publication else None,
                "tables": sorted(publication.tables) if publication else [],
            }
        )
    elif publication is None:
        say(f"Nothing to do: {_nothing(opened.templates.values()).lower()}")
    else:
        tables = publication.tables
        say(
            f"Version {publication.version}: {plural(len(tables), 'table')} changed in one step:"
            f" {', '.join(sorted(tables))}."
        )


@app.command("drift", epilog="Example: lakewarden table drift (exit code 3: drift was found)")
def drift(project: ProjectDir = None, env: EnvName = None, as_json: AsJson = False) -> None:
    """Where tables are not what their templates say.

    Compares names, types, what is required, field ids, partitions, order, properties and
    descriptions. Exit code 3: drift was found; 75: the catalog is away, so nobody can tell.
    """
    opened = open_project(project, env, as_json=as_json)
    found = opened.drift()
    if as_json:
        show_json(
            [
                {
                    "table": name,
                    "kind": str(one.kind),
                    "subject": one.subject,
                    "expected": one.expected,
                    "found": one.found,
                    "told": one.describe(),
                }
                for name, findings in found.items()
                for one in findings
            ]
        )
    for name, findings in found.items():
        say(name)
        for one in findings:
            say(f"  {one.describe()}")
    if found:
        raise DriftFound(
            f"{plural(len(found), 'table')} drifted",
            hint="Where it is meant, change the template; where not: lakewarden table plan",
        )
    say(f"No drift in {plural(len(opened.templates), 'table')}.")


def _template(opened: "Project", table: str) -> "Template":
    fitting = [one for name, one in opened.templates.items() if table in (name, one.name)]
    if len(fitting) != 1:
        known = ", ".join(sorted(opened.templates))
        raise TableUnknown(
            f"{len(fitting) or 'no'} templates are called {table!r}",
            hint=f"Choose one of: {known}",
        )
    return fitting[0]
