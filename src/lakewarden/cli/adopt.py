"""lakewarden adopt: somebody else's lakehouse → a folder of files to look at."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lakewarden.cli.options import AsJson, EnvName, ProjectDir, open_project
from lakewarden.cli.output import begin, plural, say, show_json, show_table
from lakewarden.errors import WrongUsage

if TYPE_CHECKING:
    from lakewarden.adoption.catalogs import CatalogAddress
    from lakewarden.adoption.model import LandingSurvey, Survey
    from lakewarden.wiring import AdoptAsked, Project


class AdoptIncomplete(WrongUsage):
    """What is to be adopted, or into which folder, is not said."""


def adopt(
    into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A new folder for what was found.")
    ] = None,
    catalog: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            envvar="LAKEWARDEN_ADOPT_CATALOG",
            help="sqlite:///…, postgresql://…, or http(s)://… of an Iceberg REST catalog.",
        ),
    ] = None,
    catalog_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="SQL: the catalog's name. REST: the warehouse."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="LAKEWARDEN_ADOPT_TOKEN",
            help="A REST catalog's bearer token; better by the variable, which nobody else sees.",
        ),
    ] = None,
    landing: Annotated[
        list[str] | None,
        typer.Option(metavar="S3_PREFIX", help="s3://bucket/prefix/ of deliveries; repeatable."),
    ] = None,
    dbt: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A dbt project; it is read, not run.")
    ] = None,
    account: Annotated[
        str | None, typer.Option(metavar="ID", help="The AWS account, 12 digits.")
    ] = None,
    region: Annotated[str, typer.Option(metavar="REGION", help="The AWS region.")] = "us-east-1",
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="An S3 on this machine, in place of AWS.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell; not even the folder is written.")
    ] = False,
    project: ProjectDir = None,
    env: EnvName = None,
    as_json: AsJson = False,
) -> None:
    """Survey a lakehouse that others made, and write what fits as a project.

    Reads a catalog, deliveries and a dbt project under credentials that need not be able to write,
    and writes a new folder: templates (each table at the level observed), lakewarden.toml and
    REPORT.md with what fits, what does not, and why. Nothing else is changed anywhere. With --env
    the catalog, the bucket and the account are those of an environment that there is.

    Example: lakewarden adopt --catalog sqlite:////srv/catalog.db --account 123456789012 --landing s3://lake/raw/ --into adopted
    """  # noqa: E501  # one line, to be copied
    from lakewarden import wiring
    from lakewarden.adoption.catalogs import CatalogAddress
    from lakewarden.adoption.folder import refuse_taken
    from lakewarden.adoption.render import files_of, report_json

    begin(as_json=as_json)
    if into is None and not dry_run:
        raise AdoptIncomplete("no folder is named", hint="--into DIR, or --dry-run")
    if into is not None:
        refuse_taken(into)
    address = CatalogAddress(catalog, catalog_name, token) if catalog else None
    asked = (
        _of_env(project, env, address, as_json=as_json)
        if env is not None or project is not None
        else _of_options(address, account, region, endpoint)
    )
    asked = wiring.AdoptAsked(
        name=_name(into),
        env=asked.env,
        connection=asked.connection,
        catalog=asked.catalog,
        bucket=asked.bucket,
        landings=tuple(landing or ()),
        dbt=dbt,
    )
    found = wiring.survey_lakehouse(asked)
    files = sorted(files_of(found)) if dry_run or into is None else wiring.write_survey(found, into)
    if as_json:
        where = None if dry_run or into is None else str(into.resolve())
        show_json({**report_json(found), "folder": where, "files": files})
        return
    _show(found)
    if dry_run or into is None:
        say(f"Dry run: nothing was written. It would be {plural(len(files), 'file')}.")
    else:
        say(f"Wrote {into}: {', '.join(_summary(files))}.")
        say(f"Next: read {shlex.quote(str(into / 'REPORT.md'))}")


def _of_env(
    project: Path | None, env: str | None, catalog: "CatalogAddress | None", *, as_json: bool
) -> "AdoptAsked":
    from lakewarden.wiring import AdoptAsked

    opened = open_project(project, env, as_json=as_json)
    chosen = opened.env
    address = catalog or _address_of(opened)
    return AdoptAsked("", opened.env_name, opened.connection, address, chosen.bucket)


def _address_of(opened: "Project") -> "CatalogAddress":
    from lakewarden.adoption.catalogs import CatalogAddress
    from lakewarden.settings import NessieCatalogSettings

    catalog = opened.env.catalog
    if isinstance(catalog, NessieCatalogSettings):
        token = opened.reveal(catalog.token) if catalog.token else None
        uri = f"{opened.catalog_uri()}/iceberg/{catalog.main}"
        return CatalogAddress(uri, catalog.warehouse, token)
    return CatalogAddress(opened.catalog_uri(), catalog.name)


def _of_options(
    catalog: "CatalogAddress | None", account: str | None, region: str, endpoint: str | None
) -> "AdoptAsked":
    from lakewarden.aws.clients import LOCAL_ACCOUNT, Connection, is_loopback
    from lakewarden.wiring import AdoptAsked

    if catalog is None:
        raise AdoptIncomplete(
            "no catalog is named",
            hint="--catalog URI, or the variable LAKEWARDEN_ADOPT_CATALOG where it has a password;"
            " or --env NAME of a project that there is.",
        )
    if account is None and endpoint is None:
        raise AdoptIncomplete(
            "whose account it is is not said", hint="--account with its 12 digits"
        )
    if endpoint is not None and not is_loopback(endpoint):  # which would say whose account it is
        raise AdoptIncomplete(
            "--endpoint is for an S3 on this machine", hint="Leave it out: AWS's is known."
        )
    whose = account or LOCAL_ACCOUNT
    connection = Connection(account=whose, region=region, endpoint=endpoint)
    return AdoptAsked("", "dev" if whose == LOCAL_ACCOUNT else "prod", connection, catalog)


def _name(into: Path | None) -> str:
    """The project's, after its folder."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", (into.name if into else "").lower()).strip("-_")
    return plain if plain[:1].isalpha() else "adopted"


def _show(found: "Survey") -> None:
    show_table(
        ["table", "up to", "why not further"],
        [
            *(
                (one.table, str(one.level), "; ".join(r.message for r in one.reasons))
                for one in found.adopted
            ),
            *(
                (one.table, "not adopted", "; ".join(r.message for r in one.reasons))
                for one in found.left
            ),
        ],
        flex=["why not further"],
    )
    for landing in found.landings:
        _show_landing(landing)
    if found.dbt:
        say(f"dbt project {found.dbt.name}: {plural(len(found.dbt.models), 'model')}.")
        for change in found.dbt.changes:
            say(f"  {change}")


def _show_landing(landing: "LandingSurvey") -> None:
    say(f"{landing.prefix}:")
    for one in landing.proposals:
        tables = ", ".join(f"{table} from {glob}" for table, glob in one.tables.items())
        say(f"  {one.layout.landing}: dataset {one.name}, {tables}")
    for layout, why in landing.unfit:
        say(f"  {layout.landing or layout.place}: no dataset, {why}")
    if landing.strange_count:
        say(f"  {plural(landing.strange_count, 'object')} of no layout")


def _summary(files: Sequence[str]) -> list[str]:
    templates = sum(name.startswith("tables/") for name in files)
    return [plural(templates, "template"), *(n for n in files if not n.startswith("tables/"))]
