"""A survey → the text of local files: templates, settings, a report. Pure."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

import yaml

from lakewarden.adoption.model import (
    Adopted,
    CatalogSurvey,
    DbtSurvey,
    LandingSurvey,
    Layout,
    Proposal,
    Survey,
)
from lakewarden.tables.template import Level, Template

REPORT = "REPORT.md"
SETTINGS = "lakewarden.toml"

# What reads the same in YAML 1.1, which PyYAML writes by, and 1.2, which templates are read by.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_ ()\[\],.-]*[A-Za-z0-9_\])]|[A-Za-z]")
_WORDS = frozenset(
    ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"]
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def files_of(survey: Survey) -> Mapping[str, str]:
    """Every file by its name within the new folder."""
    loads = {
        table: proposal
        for landing in survey.landings
        for proposal in landing.proposals
        for table in proposal.tables
    }
    templates = {
        f"tables/{one.table}.yaml": template_text(one.template, loads.get(one.table))
        for one in survey.adopted
    }
    return {SETTINGS: settings_text(survey), **templates, REPORT: report_text(survey)}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(data) and data.lower() not in _WORDS and len(data) < 80
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", data, style=None if plain and ", " not in data else '"'
    )


_Dumper.add_representer(str, _text)


def template_text(template: Template, load: Proposal | None = None) -> str:
    """A template as a file; `load`: by what it would be filled, if its level were raised."""
    content: dict[str, object] = {"name": template.name, "namespace": template.namespace}
    if template.level is not Level.OWNED:
        content["level"] = str(template.level)
    if template.description:
        content["description"] = template.description
    dataset = load.name if load else template.load_dataset
    if dataset:
        content["load"] = {"dataset": dataset}
    if load:
        content["source"] = {"format": str(load.formats[template.identifier])}
    content["columns"] = [
        _without_defaults(
            {
                "name": column.name,
                "type": column.type,
                "required": column.required,
                "description": column.description,
                "field_id": column.field_id,
            }
        )
        for column in template.columns
    ]
    if template.partition_spec:
        content["partition_spec"] = [
            {"column": part.column, "transform": part.transform} for part in template.partition_spec
        ]
    if template.sort_order:
        content["sort_order"] = [
            {
                "column": part.column,
                "direction": str(part.direction),
                "null_order": str(part.null_order),
            }
            for part in template.sort_order
        ]
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def _without_defaults(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value not in (None, False, "")}


def settings_text(survey: Survey) -> str:
    """lakewarden.toml. No secret is in it: where the catalog needs one, it says how to give it."""
    return "\n".join([*_settings(survey)]) + "\n"


def _settings(survey: Survey) -> Iterator[str]:
    place, catalog = survey.place, survey.catalog
    yield f"project = {_toml(place.project)}"
    yield ""
    yield f"[env.{place.env}]"
    yield f"account = {_toml(place.account)}"
    yield f"region = {_toml(place.region)}"
    yield f"bucket = {_toml(place.bucket)}"
    yield f"warehouse = {_toml(place.warehouse)}"
    if catalog.note:
        yield f"# {_comment(catalog.note)}"
    yield _catalog(catalog)
    for landing in survey.landings:
        for one in landing.proposals:
            yield ""
            for note in one.notes:
                yield f"# {_comment(note)}"
            yield f"[dataset.{one.name}]"
            yield f"batch = {_toml(one.layout.form or '')}"
            yield f"landing = {_toml(one.layout.landing or '')}"
            yield f"complete = {_toml(one.layout.complete)}"
            globs = ", ".join(
                f"{_key(table)} = {_toml(glob)}" for table, glob in one.tables.items()
            )
            yield f"tables = {{ {globs} }}"


SECRET_VARIABLE = "LAKEWARDEN_CATALOG_SECRET"  # noqa: S105  # the name of one
"""The variable that the settings name for what was left out of the catalog's address."""


def _catalog(catalog: CatalogSurvey) -> str:
    told: dict[str, str]
    if catalog.kind == "sql":
        told = {"type": "sql", "uri": catalog.uri, "name": catalog.name}
        kept_as = "password"
    else:
        base, _, ref = catalog.uri.rstrip("/").partition("/iceberg")
        told = {"type": "nessie", "uri": base, "warehouse": catalog.name, "main": ref.strip("/")}
        kept_as = "token"
    plain = [f"{key} = {_toml(value)}" for key, value in told.items() if value]
    if catalog.secret:
        plain.append(f"{kept_as} = {{ env = {_toml(SECRET_VARIABLE)} }}")
    return f"catalog = {{ {', '.join(plain)} }}"


def _toml(text: str) -> str:
    """A basic string: JSON's, save for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _toml(name)


def _comment(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def report_text(survey: Survey) -> str:
    """The report in Markdown."""
    return "\n".join([*_report(survey)]) + "\n"


def _report(survey: Survey) -> Iterator[str]:
    catalog = survey.catalog
    yield f"# What was found for {survey.place.project}"
    yield ""
    yield (
        f"Catalog {_code(catalog.uri)}{f', {_code(catalog.name)}' if catalog.name else ''}:"
        f" {len(survey.adopted)} of {len(survey.tables)} tables can be adopted."
    )
    for note in filter(None, (catalog.note, *survey.notes)):
        yield f"{_cell(note[0].upper() + note[1:])}."
    yield "Nothing was written but this folder."
    yield ""
    yield "## Tables"
    yield ""
    yield "Every template says `level: observed`. The level is what a table may be raised to."
    yield ""
    yield "| table | up to | why not further | to know |"
    yield "| --- | --- | --- | --- |"
    for one in survey.adopted:
        yield _row(_code(one.table), str(one.level), _reasons(one), "; ".join(one.notes))
    if survey.left:
        yield ""
        yield "Not adopted:"
        yield ""
        yield "| table | reason | what it means |"
        yield "| --- | --- | --- |"
        for left in survey.left:
            for reason in left.reasons:
                yield _row(_code(left.table), f"`{reason.obstacle}`", reason.message)
    for landing in survey.landings:
        yield from _landing(landing)
    if survey.dbt:
        yield from _dbt(survey.dbt)
    yield from _next()


def _reasons(one: Adopted) -> str:
    return "; ".join(f"`{reason.obstacle}`: {reason.message}" for reason in one.reasons)


def _landing(landing: LandingSurvey) -> Iterator[str]:
    yield ""
    yield f"## Deliveries under {_code(landing.prefix)}"
    yield ""
    if landing.cut_off:
        yield "There are more objects than were looked at; name a longer prefix."
        yield ""
    if not (landing.proposals or landing.unfit or landing.strange_count):
        yield "Nothing lies there."
    if landing.proposals or landing.unfit:
        yield "| layout | batches | files | becomes |"
        yield "| --- | --- | --- | --- |"
    for one in landing.proposals:
        tables = ", ".join(
            f"{_code(table)} from {_code(glob)}" for table, glob in one.tables.items()
        )
        notes = "".join(f"; {note}" for note in one.notes)
        yield _layout(one.layout, f"dataset {_code(one.name)}: {tables}{notes}")
    for layout, why in landing.unfit:
        yield _layout(layout, f"nothing: {why}")
    if landing.strange_count:
        yield ""
        keys = ", ".join(_code(key) for key in landing.strange)
        yield f"Objects that fit no layout: {landing.strange_count}, such as {keys}."


def _layout(layout: Layout, becomes: str) -> str:
    span = f"{layout.batches} ({layout.first} to {layout.last})"
    return _row(_code(layout.landing or layout.place), span, str(layout.files), becomes)


def _dbt(dbt: DbtSurvey) -> Iterator[str]:
    yield ""
    yield f"## The dbt project {_code(dbt.name)}"
    yield ""
    yield f"By {dbt.by}. Adapter: {_code(dbt.adapter) if dbt.adapter else 'not known'}."
    yield ""
    yield "| source or model | is | table |"
    yield "| --- | --- | --- |"
    for name, table in dbt.sources.items():
        yield _row(_code(name), "source", _code(table) if table else "none of this catalog")
    for model in dbt.models:
        yield _row(
            _code(model.name), model.materialized, _code(model.table) if model.table else "–"
        )
    if dbt.changes:
        yield ""
        yield "What would have to change:"
        yield ""
        for change in dbt.changes:
            yield f"- {_cell(change)}"


def _next() -> Iterator[str]:
    yield ""
    yield "## Next"
    yield ""
    yield "1. Look through `lakewarden.toml` and `tables/`; `lakewarden table drift` finds nothing."
    yield (
        "2. To add batches to a table, write `level: loaded` in its template, then"
        " `lakewarden table plan` and `lakewarden table apply`: it gains `_batch`, `_file` and"
        " `_line`."
    )
    yield "3. Copy or link the dbt project to `transform/` when its models are to be run."


def _row(*cells: str) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    """One line, that does not end its cell."""
    return _line(text).replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    return f"`{_line(text).replace('`', chr(39))}`"


def _line(text: str) -> str:
    """One line, of what can be seen: names of others may hold anything."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def report_json(survey: Survey) -> Mapping[str, object]:
    """The same for programs."""
    return {
        "format": 1,
        "project": survey.place.project,
        "catalog": {
            "type": survey.catalog.kind,
            "uri": survey.catalog.uri,
            "name": survey.catalog.name,
        },
        "tables": [
            {
                "table": one.table,
                "adopted": isinstance(one, Adopted),
                "level": str(one.level) if isinstance(one, Adopted) else None,
                "reasons": [
                    {"code": str(reason.obstacle), "message": reason.message}
                    for reason in one.reasons
                ],
                "notes": list(one.notes) if isinstance(one, Adopted) else [],
            }
            for one in survey.tables
        ],
        "landings": [_landing_json(landing) for landing in survey.landings],
        "dbt": _dbt_json(survey.dbt) if survey.dbt else None,
    }


def _landing_json(landing: LandingSurvey) -> Mapping[str, object]:
    made: Sequence[tuple[Layout, Proposal | None, str | None]] = [
        *((one.layout, one, None) for one in landing.proposals),
        *((layout, None, why) for layout, why in landing.unfit),
    ]
    return {
        "prefix": landing.prefix,
        "cut_off": landing.cut_off,
        "layouts": [
            {
                "layout": layout.landing or layout.place,
                "batch": layout.form,
                "globs": list(layout.globs),
                "batches": layout.batches,
                "first": layout.first,
                "last": layout.last,
                "files": layout.files,
                "dataset": one.name if one else None,
                "tables": dict(one.tables) if one else {},
                "notes": list(one.notes) if one else [],
                "fault": why,
            }
            for layout, one, why in made
        ],
        "strange": {"count": landing.strange_count, "such_as": list(landing.strange)},
    }


def _dbt_json(dbt: DbtSurvey) -> Mapping[str, object]:
    return {
        "name": dbt.name,
        "by": dbt.by,
        "adapter": dbt.adapter,
        "sources": dict(dbt.sources),
        "models": [
            {"name": one.name, "materialized": one.materialized, "table": one.table}
            for one in dbt.models
        ],
        "changes": list(dbt.changes),
    }
