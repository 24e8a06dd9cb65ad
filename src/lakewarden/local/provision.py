"""Makes on the control plane what `definitions/` describes. Every call may be repeated.

Only what a project has is made: its cluster, topic, log groups and alarms always; the services of
Nessie and Dagster, and the functions and the state machine, where they are asked for.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from lakewarden.aws.alarms import Part, alarms, filled
from lakewarden.aws.clients import Connection, control_client
from lakewarden.aws.definitions import Names, names
from lakewarden.aws.retry import is_code
from lakewarden.local.config import CloudConfig
from lakewarden.local.overlay import ACCOUNT_KEY, ALARM_HASTE, SOURCE

NESSIE_IMAGE = "projectnessie/nessie"
ALERTS = "{topic}-local"  # a queue, to read on this machine what the topic was told
_ROLE = "lakewarden-local"  # nobody asks what it may do here
_SUBNETS = ["subnet-00000000000000001", "subnet-00000000000000002"]
_HEALTH_PATH = "/api/v2/trees/main"  # what every client asks first


@dataclass(frozen=True)
class Function:
    """A Lambda function, whose code lies in a zip."""

    name: str
    zip: Path
    handler: str
    environment: Mapping[str, str]
    timeout: int = 300  # seconds
    memory: int = 512  # MB


@dataclass(frozen=True)
class Rule:
    """What calls a function by itself: a pattern of events, or a schedule."""

    name: str
    target: str  # the function's name
    pattern: Mapping[str, JsonValue] | None = None
    schedule: str | None = None
    input: Mapping[str, JsonValue] | None = None


@dataclass(frozen=True)
class Pipeline:
    """The state machine with all that belongs to it, as the definitions have it."""

    definition: str  # in Amazon States Language, with every name in its place
    functions: tuple[Function, ...]
    runner: Mapping[str, Any]  # parameters of RegisterTaskDefinition
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Made:
    """What was made, by ARN."""

    topic: str
    alerts_queue: str  # its URL
    pipeline: str | None


@dataclass(frozen=True)
class Provision:
    """One project's parts at the control plane. Raises botocore's errors."""

    config: CloudConfig
    connection: Connection
    nessie_port: int
    dagster_port: int

    @cached_property
    def names(self) -> Names:
        return names(self.config.project, self.config.env, self.config.names)

    def make(self, pipeline: Pipeline | None = None) -> Made:
        """All of it."""
        role = self._role()
        topic, queue = self._topic()
        self._log_groups()
        self._client("ecs").create_cluster(clusterName=self.names.cluster)
        if pipeline is None:
            self._runner()
        else:
            self._register(**pipeline.runner)
        places = {**self._places(), "topic": topic}
        if self.config.nessie:
            places |= self._nessie()
        if self.config.dagster:
            self._dagster()
        arn = self._pipeline(pipeline, role) if pipeline else None
        if arn:
            places["pipeline_arn"] = arn
        self._alarms(places, topic, pipeline_made=arn is not None)
        return Made(topic, queue, arn)

    def _client(self, service: str) -> Any:
        return control_client(self.connection, service)

    def _arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.connection.region}:{ACCOUNT_KEY}:{resource}"

    def _places(self) -> dict[str, str]:
        told = {"project": self.config.project, "env": self.config.env}
        rule = f"{self.names.dagster_service}-stopped"
        return {**asdict(self.names), **told, "dagster_stopped_rule": rule}

    def _role(self) -> str:
        services = ["lambda", "states", "events", "ecs-tasks", "scheduler"]
        trusted = {"Service": [f"{service}.amazonaws.com" for service in services]}
        statement = {"Effect": "Allow", "Principal": trusted, "Action": "sts:AssumeRole"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        with _unless_there("EntityAlreadyExists"):
            self._client("iam").create_role(RoleName=_ROLE, AssumeRolePolicyDocument=policy)
        return f"arn:aws:iam::{ACCOUNT_KEY}:role/{_ROLE}"

    def _topic(self) -> tuple[str, str]:
        sns, sqs = self._client("sns"), self._client("sqs")
        topic: str = sns.create_topic(Name=self.names.topic)["TopicArn"]
        name = ALERTS.format(topic=self.names.topic)
        queue: str = sqs.create_queue(QueueName=name)["QueueUrl"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=self._arn("sqs", name))
        return topic, queue

    def _log_groups(self) -> None:
        logs = self._client("logs")
        groups = [
            self.names.runner_log_group,
            *map(self.names.function_log_group, self.names.functions),
        ]
        groups += [self.names.nessie_log_group] if self.config.nessie else []
        groups += [self.names.dagster_log_group] if self.config.dagster else []
        for group in groups:
            with _unless_there("ResourceAlreadyExistsException"):
                logs.create_log_group(logGroupName=group)

    def _runner(self) -> None:
        self._task(
            self.names.runner,
            self.names.runner,
            self.names.runner_container,
            self.names.runner_log_group,
            cpu=2048,
            memory=4096,
        )

    def _nessie(self) -> dict[str, str]:
        """Its service, behind a load balancer's target group; the names of both for metrics."""
        balancers = self._client("elbv2")
        arn, target = self._balancer(balancers), self._target_group(balancers)
        if not balancers.describe_listeners(LoadBalancerArn=arn)["Listeners"]:
            forward = [{"Type": "forward", "TargetGroupArn": target}]
            balancers.create_listener(
                LoadBalancerArn=arn, Protocol="HTTP", Port=19120, DefaultActions=forward
            )
        self._task(
            self.names.nessie_service,
            NESSIE_IMAGE,
            "nessie",
            self.names.nessie_log_group,
            cpu=512,
            memory=1024,
            port=self.nessie_port,
        )
        reached = {"targetGroupArn": target, "containerName": "nessie"}
        self._service(self.names.nessie_service, [{**reached, "containerPort": self.nessie_port}])
        return {
            "target_group": target.rsplit(":", 1)[-1],
            "load_balancer": arn.partition(":loadbalancer/")[2],
        }

    def _balancer(self, balancers: Any) -> str:
        name = self.names.nessie_service
        try:
            found = balancers.describe_load_balancers(Names=[name])
        except balancers.exceptions.LoadBalancerNotFoundException:
            found = balancers.create_load_balancer(Name=name, Subnets=_SUBNETS)
        return str(found["LoadBalancers"][0]["LoadBalancerArn"])

    def _target_group(self, balancers: Any) -> str:
        name = self.names.nessie_target_group
        known: list[Any] = []
        with suppress(balancers.exceptions.TargetGroupNotFoundException):
            # The emulator answers with none instead.
            known = balancers.describe_target_groups(Names=[name])["TargetGroups"]
        if not known:
            known = balancers.create_target_group(
                Name=name,
                Protocol="HTTP",
                Port=self.nessie_port,
                VpcId="vpc-00000000",
                TargetType="ip",
                HealthCheckPath=_HEALTH_PATH,
                HealthCheckIntervalSeconds=5,
                HealthCheckTimeoutSeconds=2,
                HealthyThresholdCount=2,
                UnhealthyThresholdCount=2,
            )["TargetGroups"]
        return str(known[0]["TargetGroupArn"])

    def _dagster(self) -> None:
        service = self.names.dagster_service
        self._task(
            service,
            dagster_image(self.config.project),
            "dagster",
            self.names.dagster_log_group,
            cpu=1024,
            memory=2048,
            port=self.dagster_port,
        )
        self._service(service, [])
        pattern = {
            "source": ["aws.ecs"],
            "detail-type": ["ECS Task State Change"],
            "detail": {
                "lastStatus": ["STOPPED"],
                "group": [f"service:{service}"],
                "stopCode": ["EssentialContainerExited"],
            },
        }
        rule = self._places()["dagster_stopped_rule"]
        events = self._client("events")
        events.put_rule(Name=rule, EventPattern=json.dumps(pattern))
        alerts = self._arn("sns", self.names.topic)
        events.put_targets(Rule=rule, Targets=[{"Id": "alerts", "Arn": alerts}])

    def _task(
        self,
        family: str,
        image: str,
        container: str,
        group: str,
        *,
        cpu: int,
        memory: int,
        port: int | None = None,
    ) -> None:
        """A task of one container."""
        logged = {
            "awslogs-group": group,
            "awslogs-region": self.connection.region,
            "awslogs-stream-prefix": "ecs",
        }
        defined: dict[str, Any] = {
            "name": container,
            "image": image,
            "essential": True,
            "logConfiguration": {"logDriver": "awslogs", "options": logged},
            "portMappings": [{"containerPort": port, "hostPort": port}] if port else [],
        }
        self._register(
            family=family,
            cpu=str(cpu),
            memory=str(memory),
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
            containerDefinitions=[defined],
        )

    def _register(self, **wanted: Any) -> None:
        """Register a task definition, where the last one of its family is another."""
        ecs = self._client("ecs")
        try:
            last = ecs.describe_task_definition(taskDefinition=wanted["family"])["taskDefinition"]
        except ecs.exceptions.ClientException:
            last = {}
        if not has(last, wanted):
            ecs.register_task_definition(**wanted)

    def _service(self, name: str, balancers: list[dict[str, Any]]) -> None:
        """Make a service of one task; one that is there keeps its desired count."""
        ecs, cluster = self._client("ecs"), self.names.cluster
        found = ecs.describe_services(cluster=cluster, services=[name])["services"]
        active = [each for each in found if each["status"] == "ACTIVE"]
        if active:
            newest = ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]
            if active[0]["taskDefinition"] != newest["taskDefinitionArn"]:
                ecs.update_service(cluster=cluster, service=name, taskDefinition=name)
            return
        network = {"subnets": _SUBNETS[:1], "assignPublicIp": "DISABLED"}
        ecs.create_service(
            cluster=cluster,
            serviceName=name,
            taskDefinition=name,
            desiredCount=1,
            launchType="FARGATE",
            loadBalancers=balancers,
            networkConfiguration={"awsvpcConfiguration": network},
            deploymentConfiguration={"maximumPercent": 100, "minimumHealthyPercent": 0},
        )

    def _pipeline(self, pipeline: Pipeline, role: str) -> str:
        for function in pipeline.functions:
            self._function(function, role)
        machines = self._client("stepfunctions")
        arn = self._arn("states", f"stateMachine:{self.names.pipeline}")
        try:
            machines.create_state_machine(
                name=self.names.pipeline, definition=pipeline.definition, roleArn=role
            )
        except machines.exceptions.StateMachineAlreadyExists:
            machines.update_state_machine(
                stateMachineArn=arn, definition=pipeline.definition, roleArn=role
            )
        for rule in pipeline.rules:
            self._rule(rule, role)
        return arn

    def _function(self, function: Function, role: str) -> None:
        functions, code = self._client("lambda"), function.zip.read_bytes()
        settings: dict[str, Any] = {
            "Role": role,
            "Handler": function.handler,
            "Runtime": "python3.11",
            "Timeout": function.timeout,
            "MemorySize": function.memory,
            "Environment": {"Variables": dict(function.environment)},
        }
        try:
            functions.create_function(
                FunctionName=function.name, Code={"ZipFile": code}, **settings
            )
        except functions.exceptions.ResourceConflictException:
            functions.update_function_code(FunctionName=function.name, ZipFile=code)
            functions.update_function_configuration(FunctionName=function.name, **settings)

    def _rule(self, rule: Rule, role: str) -> None:
        events = self._client("events")
        when: dict[str, str] = {}
        if rule.pattern is not None:
            when["EventPattern"] = json.dumps(heard_here(rule.pattern))
        if rule.schedule is not None:
            when["ScheduleExpression"] = hastened(rule.schedule)
        events.put_rule(Name=rule.name, RoleArn=role, **when)
        target = {"Id": "function", "Arn": self._arn("lambda", f"function:{rule.target}")}
        if rule.input is not None:
            target["Input"] = json.dumps(rule.input)
        events.put_targets(Rule=rule.name, Targets=[target])

    def _alarms(self, places: Mapping[str, str], topic: str, *, pipeline_made: bool) -> None:
        wanted: dict[Part, bool] = {
            "nessie": self.config.nessie,
            "dagster": self.config.dagster,
            "pipeline": pipeline_made,
            "redshift": False,  # there is none here
        }
        cloudwatch = self._client("cloudwatch")
        for alarm in alarms():
            each = [{"dataset": name} for name in self.config.datasets]
            for more in each if alarm.of_each_dataset else [{}]:
                if wanted[alarm.part]:
                    told = filled(alarm, {**places, **more}, [topic])
                    cloudwatch.put_metric_alarm(**told)


def heard_here(pattern: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """An event's pattern that also takes what stands in for S3's events."""
    sources = pattern.get("source")
    if not isinstance(sources, list) or "aws.s3" not in sources:
        return pattern
    return {**pattern, "source": [*sources, SOURCE]}


def hastened(schedule: str) -> str:
    """What comes every so many minutes comes faster, as alarms look faster; at least once a
    minute, than which EventBridge knows nothing shorter. What comes at a time of day stays."""
    every = re.fullmatch(r"rate\((\d+) minutes?\)", schedule)
    if every is None:
        return schedule
    minutes = max(1, int(every[1]) // ALARM_HASTE)
    return f"rate({minutes} minute{'s' if minutes > 1 else ''})"


def has(found: object, wanted: object) -> bool:
    """Whether all that is wanted is there; there may be more, which AWS adds."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return all(has(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        pairs = zip(found, wanted, strict=False)
        return len(found) == len(wanted) and all(has(one, two) for one, two in pairs)
    return found == wanted


def dagster_image(project: str) -> str:
    return f"{project}-dagster"


class _unless_there:  # noqa: N801 - reads as a word: with _unless_there("…"):
    """What is there already is not made again."""

    def __init__(self, code: str) -> None:
        self._code = code

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, Exception) and is_code(error, self._code)
