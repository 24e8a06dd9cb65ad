"""Table properties: short names, those that we always set, and our own records in them."""

import json
from collections.abc import Mapping

from lakewarden.tables.template import BATCH_COLUMN, Template

PROPERTY_NAMES = {
    "write_format": "write.format.default",
    "history_expire_max_snapshot_age_ms": "history.expire.max-snapshot-age-ms",
    "commit_num_retries": "commit.retry.num-retries",
}
"""Short names of properties, and Iceberg's (its documentation, "Configuration")."""

SET_BY_US = {
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "false",
}
"""Always set. Branches of the catalog share metadata files, so a commit may delete none."""

BATCH_METRICS = f"write.metadata.metrics.column.{BATCH_COLUMN}"
"""Set to "full" where the table has the column, so that replacing a batch drops whole files."""

COMMENT = "comment"
"""The table's description, under the name that Hive, Spark and Trino show."""

OUR_PREFIX = "lakewarden."
FIELD_IDS = OUR_PREFIX + "field-ids"
"""JSON {column: field id} as last applied: tells a column that somebody dropped and made again."""
APPLIED = OUR_PREFIX + "properties"
"""JSON list of the properties that the last apply wanted: the ones that are ours to remove."""


def expected_properties(template: Template) -> Mapping[str, str]:
    """Every property that a template asks for, ours among them, by Iceberg's names.

    Not among them: the record of field ids, which only the table can tell.
    """
    wanted = {**template.properties, **SET_BY_US}
    if any(column.name == BATCH_COLUMN for column in template.all_columns):
        wanted[BATCH_METRICS] = "full"
    if template.description:
        wanted[COMMENT] = template.description
    return {**wanted, APPLIED: json.dumps(sorted(wanted))}


def recorded_field_ids(properties: Mapping[str, str]) -> Mapping[str, int] | None:
    """The record of field ids; None where there is none that can be read."""
    found = _parsed(properties, FIELD_IDS)
    if not isinstance(found, dict):
        return None
    return {str(name): field_id for name, field_id in found.items() if isinstance(field_id, int)}


def applied_properties(properties: Mapping[str, str]) -> frozenset[str]:
    """The names that the last apply wanted; empty where it left no record."""
    found = _parsed(properties, APPLIED)
    return (
        frozenset(name for name in found if isinstance(name, str))
        if isinstance(found, list)
        else frozenset()
    )


def field_ids_record(field_ids: Mapping[str, int]) -> str:
    """The text of a record of field ids."""
    return json.dumps(dict(field_ids), sort_keys=True)


def _parsed(properties: Mapping[str, str], name: str) -> object:
    try:
        parsed: object = json.loads(properties.get(name, "null"))
    except ValueError:
        return None  # somebody wrote something else there: as good as no record
    return parsed
