"""How a catalog keeps times and contributions, whatever catalog it is."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

from lakewarden.lake.model import Contribution, Override


def time_to_text(at: datetime) -> str:
    """ISO 8601 in UTC, so that text sorts as time does."""
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def contribution_to_text(one: Contribution) -> str:
    return json.dumps(asdict(one), sort_keys=True)


def contribution_of(text: str) -> Contribution:
    fields = json.loads(text)
    override = fields.pop("override")
    return Contribution(override=Override(**override) if override else None, **fields)
