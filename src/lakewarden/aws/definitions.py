"""What `lakewarden/definitions/` says, which is data that others read too: names so far.

A name is a template: `{project}`, `{env}`, and other names by their own key. For the project `dpc`
they are the names of its runbook.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files

from lakewarden.errors import WrongUsage

_PLACE = re.compile(r"\{(\w+)\}")
_NAME = re.compile(r"[A-Za-z0-9/][A-Za-z0-9/_.-]*")


class NameInvalid(WrongUsage):
    """A name that AWS would not take, or that cannot be made up."""


@dataclass(frozen=True)
class Names:
    """What the parts of one project in one environment are called at AWS."""

    pipeline: str  # the state machine
    topic: str  # of SNS
    validate_manifest: str  # Lambda functions, from here
    copy_raw: str
    notify: str
    check_deliveries: str  # to here
    runner: str  # the ECS task family, and the image's name
    runner_container: str
    runner_log_group: str
    cluster: str
    nessie_service: str
    nessie_log_group: str
    nessie_target_group: str
    dagster_service: str
    dagster_log_group: str

    @property
    def functions(self) -> tuple[str, ...]:
        """All Lambda functions."""
        return (self.validate_manifest, self.copy_raw, self.notify, self.check_deliveries)

    def function_log_group(self, function: str) -> str:
        """Where a Lambda function's lines go: AWS fixes it."""
        return f"/aws/lambda/{function}"


KEYS = tuple(field.name for field in fields(Names))


def names(project: str, env: str, overrides: Mapping[str, str] | None = None) -> Names:
    """The names of a project in an environment; `overrides`: templates in place of some of ours,
    by key. Raises NameInvalid."""
    templates = {**_templates(), **(overrides or {})}
    given = {"project": project, "env": env}
    return Names(**{key: _filled(key, templates, given) for key in KEYS})


@cache
def _templates() -> Mapping[str, str]:
    found: Mapping[str, str] = json.loads(definition("names.json"))["names"]
    return found


def definition(name: str) -> str:
    """A file of `lakewarden/definitions/`, as text."""
    return files("lakewarden").joinpath("definitions", name).read_text("utf-8")


def _filled(
    key: str, templates: Mapping[str, str], given: Mapping[str, str], within: tuple[str, ...] = ()
) -> str:
    """A name with its places filled in. `within`: the names that are being made up of it."""

    def fill(place: re.Match[str]) -> str:
        other = place[1]
        if other in given:
            return given[other]
        if other not in templates or other in (key, *within):
            raise NameInvalid(
                f"the name {key} cannot be made up: {{{other}}} is not known, or leads back to it",
                hint="A name may use {project}, {env} and other names: docs/settings.md.",
            )
        return _filled(other, templates, given, (*within, key))

    name = _PLACE.sub(fill, templates[key])
    if not _NAME.fullmatch(name):
        raise NameInvalid(
            f"the name {key} would be {name!r}, which AWS does not take",
            hint="Letters, digits, hyphens, underscores, dots and slashes.",
        )
    return name
