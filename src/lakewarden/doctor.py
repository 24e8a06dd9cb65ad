"""What is asked of an environment, part by part. Each room asks about what is its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

from lakewarden.checkup import Answer, Question
from lakewarden.errors import LakewardenError

if TYPE_CHECKING:
    from lakewarden.aws.check import Prefix
    from lakewarden.aws.clients import Connection
    from lakewarden.aws.secrets import AnyReference
    from lakewarden.wiring import Project

_PARSE = 60.0  # seconds that dbt may take


def questions(project: "Project", probe: str, *, writes: bool = True) -> Sequence[Question]:
    """All that is asked of a project in one environment. probe: a name that no object has. writes:
    whether who asks is to write what a run writes; else to see how things are."""
    found = [
        Question("credentials", lambda: _credentials(project)),
        Question("bucket", lambda: _bucket(project, probe, writes)),
        Question("catalog", lambda: _catalog(project, writes)),
        Question("tables", lambda: _tables(project)),
        Question("duckdb", _duckdb),
    ]
    if references := project.env.references():
        found.insert(1, Question("secrets", lambda: _secrets(project, references)))
    if project.dbt is not None:
        found.append(Question("models", lambda: _models(project), _PARSE))
    return [*found, *_control_plane(project)]


def _control_plane(project: "Project") -> Iterator[Question]:
    """Nothing on a local stack that has S3 only."""
    from lakewarden.aws.alarms import Part, names_of
    from lakewarden.aws.check_control import Expected, check_control, dagster, nessie, pipeline

    try:
        connection = _in_a_hurry(project)
    except LakewardenError:  # the other parts tell
        return
    if connection.endpoint is not None and connection.control is None:
        return
    called = project.names
    parts: dict[Part, Sequence[Expected]] = {
        "pipeline": pipeline(called),
        "nessie": nessie(called),
        "dagster": dagster(called),
    }
    places = {**asdict(called), "project": project.settings.project, "env": project.env_name}
    for part, expected in parts.items():
        named = names_of(part, places, project.settings.dataset)
        all_of_it = [*expected, *(Expected("alarm", name) for name in named)]
        yield Question(part, partial(check_control, connection, all_of_it))


def _credentials(project: "Project") -> Answer:
    from lakewarden.aws.check import check_identity

    return check_identity(_in_a_hurry(project))


def _secrets(project: "Project", references: "Mapping[str, AnyReference]") -> Answer:
    """Whether each can be read. Only references are told, never values."""
    wrong: list[tuple[str, LakewardenError]] = []
    for where, reference in references.items():
        try:
            project.secrets.value(reference)
        except LakewardenError as error:
            wrong.append((where, error))
    return Answer(
        f"{len(references) - len(wrong)} of {len(references)} can be read",
        missing=tuple(f"{where}: {error.message}" for where, error in wrong),
        hint=next((error.hint for _, error in wrong if error.hint), None),
        again=all(error.exit_code == 75 for _, error in wrong),
    )


def _bucket(project: "Project", probe: str, writes: bool) -> Answer:
    from lakewarden.aws.check import check_bucket

    prefixes = list(_prefixes(project, writes))
    return check_bucket(_in_a_hurry(project), project.env.bucket, prefixes, probe)


def _prefixes(project: "Project", writes: bool) -> "Iterator[Prefix]":
    """Who only looks has no need of rows: receipts say how things are."""
    from lakewarden.aws.check import Prefix

    for name, dataset in project.settings.dataset.items():
        fixed = dataset.landing.partition("{")[0]
        landing = fixed[: fixed.rfind("/") + 1]
        yield Prefix(f"deliveries of {name}", landing, read=writes, write=writes)
    warehouse = f"{project.env.warehouse.strip('/')}/".lstrip("/")
    yield Prefix("tables", warehouse, read=writes, write=writes)
    yield Prefix("receipts", "ops/batches/", write=writes)


def _catalog(project: "Project", writes: bool) -> Answer:
    from lakewarden.lake.check import check_sql
    from lakewarden.lake.nessie_check import check_nessie

    catalog = project.env.catalog
    if catalog.type == "sql":
        return check_sql(project.catalog_uri(), writes=writes)
    return check_nessie(
        project.catalog_uri(),
        project.catalog_token(),
        main=catalog.main,
        warehouse=catalog.warehouse,
        bucket=project.env.bucket,
        writes=writes,
    )


def _tables(project: "Project") -> Answer:
    """Whether the templates are valid, and each dataset's tables have theirs. Whether tables are
    as their templates say is `table drift`."""
    datasets = [project.dataset(name) for name in project.settings.dataset]
    return Answer(f"{len(project.templates)} templates, {len(datasets)} datasets")


def _duckdb() -> Answer:
    from lakewarden.batch.duck import check_duck

    return check_duck()


def _models(project: "Project") -> Answer:
    from lakewarden.batch.models.check import check_models

    if project.dbt is None:
        raise ValueError("asked of a project without models")
    return check_models(project.dbt)


def _in_a_hurry(project: "Project") -> "Connection":
    from lakewarden.aws.clients import Patience

    return replace(project.connection, patience=Patience(8.0, connect=3.0, read=5.0, refused=1.0))
