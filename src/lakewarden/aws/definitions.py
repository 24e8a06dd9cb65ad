"""What `lakewarden/definitions/` says, which is data that others read too: names, the state
machine, the Lambda functions, the runner's task, and the rules that start them.

A name is a template: `{project}`, `{env}`, and other names by their own key. For the project `dpc`
they are the names of its runbook.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

from lakewarden.errors import WrongUsage

Json = Any  # a document of AWS's, of which we fill in the places
_VALUE = re.compile(r"\$\{(\w+)\}")
_PLACE = re.compile(r"\{(\w+)\}")
_NAME = re.compile(r"[A-Za-z0-9/][A-Za-z0-9/_.-]*")
_FUNCTIONS = ("validate_manifest", "copy_raw", "notify", "check_deliveries")
# What AWS takes at the most, where that is less: Lambda, Step Functions, SNS, ECS.
_LONGEST = {
    **dict.fromkeys(_FUNCTIONS, 64),
    "pipeline": 80,
    "topic": 256,
    **dict.fromkeys(("cluster", "runner", "nessie_service", "dagster_service"), 255),
}


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


@dataclass(frozen=True)
class Machine:
    """What the state machine is told of the rest: ARNs, or names where AWS takes them. Seconds of
    waiting: the runner gives a sign of life within `heartbeat`, its start included."""

    validate_manifest: str
    copy_raw: str
    notify: str
    cluster: str
    runner: str
    runner_container: str
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...] = ()
    heartbeat_seconds: int = 300
    timeout_seconds: int = 6 * 3600
    retry_seconds: int = 60
    wait_seconds: int = 300
    waits: int = 3


@dataclass(frozen=True)
class Function:
    """A Lambda function: `key` is its name's field of Names."""

    key: str
    handler: str
    timeout: int  # seconds
    memory_mib: int


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


def state_machine(machine: Machine) -> Json:
    """The state machine, in the Amazon States Language."""
    values = {_camel(field.name): getattr(machine, field.name) for field in fields(machine)}
    return filled(json.loads(definition("pipeline.asl.json")), values)


def functions() -> tuple[Function, ...]:
    """The Lambda functions, all of one zip."""
    found = json.loads(definition("functions.json"))["functions"]
    return tuple(Function(key, **told) for key, told in found.items())


def runner_task(called: Names, image: str, region: str, environment: Mapping[str, str]) -> Json:
    """The runner's ECS task definition; roles are added by who makes them."""
    return filled(
        json.loads(definition("runner.json")),
        {
            "Runner": called.runner,
            "RunnerContainer": called.runner_container,
            "Image": image,
            "Environment": [{"name": key, "value": value} for key, value in environment.items()],
            "LogGroup": called.runner_log_group,
            "Region": region,
        },
    )


def start_rules(called: Names, bucket: str, landings: tuple[str, ...]) -> Json:
    """EventBridge's rules; `landings` are the prefixes that deliveries come under. A target is the
    name of the function."""
    values = {
        "Pipeline": called.pipeline,
        "CheckDeliveries": called.check_deliveries,
        "Bucket": bucket,
        "Landings": [{"prefix": prefix} for prefix in landings],
    }
    return filled(json.loads(definition("rules.json")), values)["rules"]


def filled(document: Json, values: Mapping[str, object]) -> Json:
    """A document with `${Name}` put in: a text that is a place alone becomes the value itself."""
    match document:
        case dict():
            return {key: filled(value, values) for key, value in document.items()}
        case list():
            return [filled(value, values) for value in document]
        case str():
            if alone := _VALUE.fullmatch(document):
                value = values[alone[1]]
                return list(value) if isinstance(value, tuple) else value
            return _VALUE.sub(lambda place: str(values[place[1]]), document)
    return document


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


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
    longest = _LONGEST.get(key)
    if not _NAME.fullmatch(name):
        raise _not_taken(key, name, "Letters, digits, hyphens, underscores, dots and slashes.")
    if longest and (len(name) > longest or "." in name or "/" in name):
        raise _not_taken(key, name, f"Up to {longest} letters, digits, hyphens and underscores.")
    return name


def _not_taken(key: str, name: str, rule: str) -> NameInvalid:
    return NameInvalid(f"the name {key} would be {name!r}, which AWS does not take", hint=rule)
