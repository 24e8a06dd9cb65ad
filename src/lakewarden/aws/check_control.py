"""Whether what the definitions name exists at the control plane, under the name that is expected.

A runbook that names a log group which is called otherwise is found wrong on the night that it is
needed; this finds it before. A part of which nothing exists is not installed, and not missing.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lakewarden.aws.clients import Connection, arn_of, control_client
from lakewarden.aws.definitions import Names
from lakewarden.aws.retry import is_code
from lakewarden.checkup import Answer
from lakewarden.errors import TryAgain

Kind = Literal[
    "state machine", "topic", "function", "log group", "cluster", "service", "target group", "alarm"
]

_ABSENT = {
    "StateMachineDoesNotExist",
    "NotFound",
    "NotFoundException",
    "ResourceNotFoundException",
    "ClusterNotFoundException",
    "TargetGroupNotFound",
    "TargetGroupNotFoundException",
}


class ControlPlaneAway(TryAgain):
    """A service of the control plane did not answer."""


@dataclass(frozen=True)
class Expected:
    """Something that is looked for by its name."""

    kind: Kind
    name: str
    within: str = ""  # a service's cluster

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Found:
    """Whether it exists; None: we are not told."""

    expected: Expected
    there: bool | None


def pipeline(names: Names) -> Sequence[Expected]:
    """What the pipeline on Step Functions is made of."""
    functions = names.functions
    return (
        Expected("state machine", names.pipeline),
        Expected("topic", names.topic),
        *(Expected("function", name) for name in functions),
        *(Expected("log group", names.function_log_group(name)) for name in functions),
        Expected("cluster", names.cluster),
        Expected("log group", names.runner_log_group),
    )


def nessie(names: Names) -> Sequence[Expected]:
    """What Nessie on ECS is made of."""
    return (
        Expected("service", names.nessie_service, names.cluster),
        Expected("log group", names.nessie_log_group),
        Expected("target group", names.nessie_target_group),
    )


def dagster(names: Names) -> Sequence[Expected]:
    """What Dagster on ECS is made of."""
    return (
        Expected("service", names.dagster_service, names.cluster),
        Expected("log group", names.dagster_log_group),
    )


def check_control(connection: Connection, expected: Iterable[Expected]) -> Answer:
    """Look for each. Raises ControlPlaneMissing, ControlPlaneAway, and as `check_account` does."""
    lookup = _Lookup(connection)
    begun = time.monotonic()
    found = [Found(one, lookup.is_there(one)) for one in expected]
    return judge(found, (time.monotonic() - begun) / max(len(found), 1))


def judge(found: Sequence[Found], latency: float | None = None) -> Answer:
    """What is missing of a part of which these were looked for."""
    there = [one.expected for one in found if one.there]
    absent = [one.expected for one in found if one.there is False]
    unknown = tuple(f"whether there is a {one.expected}" for one in found if one.there is None)
    if not there and absent:
        return Answer("not installed", unknown=unknown, latency=latency)
    return Answer(
        f"{len(there)} of {len(found)} parts are there",
        missing=tuple(f"there is no {one}" for one in absent),
        unknown=unknown,
        hint="Make what is missing, or say in lakewarden.toml what it is called: [names]."
        if absent
        else None,
        latency=latency,
    )


@dataclass(frozen=True)
class _Lookup:
    connection: Connection

    def is_there(self, expected: Expected) -> bool | None:
        """None: we may not ask. Raises ControlPlaneAway."""
        from botocore.exceptions import BotoCoreError, ClientError

        looks: dict[Kind, Callable[[Expected], bool]] = {
            "state machine": self._state_machine,
            "topic": self._topic,
            "function": self._function,
            "log group": self._log_group,
            "cluster": self._cluster,
            "service": self._service,
            "target group": self._target_group,
            "alarm": self._alarm,
        }
        try:
            return looks[expected.kind](expected)
        except ClientError as error:
            if is_code(error, *_ABSENT):
                return False
            if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
                raise ControlPlaneAway(f"could not look for the {expected}: {error}") from error
            return None
        except BotoCoreError as error:
            raise ControlPlaneAway(f"could not look for the {expected}: {error}") from error

    def _state_machine(self, expected: Expected) -> bool:
        arn = arn_of(self.connection, "states", f"stateMachine:{expected.name}")
        client = control_client(self.connection, "stepfunctions", attempts=2)
        return bool(client.describe_state_machine(stateMachineArn=arn))

    def _topic(self, expected: Expected) -> bool:
        client = control_client(self.connection, "sns", attempts=2)
        arn = arn_of(self.connection, "sns", expected.name)
        return bool(client.get_topic_attributes(TopicArn=arn))

    def _function(self, expected: Expected) -> bool:
        client = control_client(self.connection, "lambda", attempts=2)
        return bool(client.get_function_configuration(FunctionName=expected.name))

    def _log_group(self, expected: Expected) -> bool:
        client = control_client(self.connection, "logs", attempts=2)
        found = client.describe_log_groups(logGroupNamePrefix=expected.name)["logGroups"]
        return any(one["logGroupName"] == expected.name for one in found)

    def _cluster(self, expected: Expected) -> bool:
        client = control_client(self.connection, "ecs", attempts=2)
        found = client.describe_clusters(clusters=[expected.name])["clusters"]
        return any(one["status"] == "ACTIVE" for one in found)

    def _service(self, expected: Expected) -> bool:
        client = control_client(self.connection, "ecs", attempts=2)
        asked = {"cluster": expected.within, "services": [expected.name]}
        found = client.describe_services(**asked)["services"]
        return any(one["status"] == "ACTIVE" for one in found)

    def _target_group(self, expected: Expected) -> bool:
        client = control_client(self.connection, "elbv2", attempts=2)
        return bool(client.describe_target_groups(Names=[expected.name])["TargetGroups"])

    def _alarm(self, expected: Expected) -> bool:
        client = control_client(self.connection, "cloudwatch", attempts=2)
        found = client.describe_alarms(AlarmNames=[expected.name])
        return bool(found["MetricAlarms"] or found["CompositeAlarms"])
