"""ECS on this machine: tasks and services are real processes, of an allow-list."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.stack import CloudStack

pytestmark = pytest.mark.timeout(120)

CLUSTER = "dpc-dev"
GROUP = "/test/tasks"


T = TypeVar("T")


def wait_for(look: Callable[[], T], seconds: float = 30) -> T:
    """What `look` returns, once it is true."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def family(cloud: CloudStack) -> str:
    define(cloud, "test", memory=512)
    return "test"


def define(cloud: CloudStack, family: str, *, memory: int, image: str = "test-task:1") -> None:
    options = {
        "awslogs-group": GROUP,
        "awslogs-region": "us-east-1",
        "awslogs-stream-prefix": "ecs",
        "awslogs-create-group": "true",
    }
    cloud.client("ecs").register_task_definition(
        family=family,
        cpu="256",
        memory=str(memory),
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        containerDefinitions=[
            {
                "name": "main",
                "image": image,
                "essential": True,
                "command": ["/bin/sh", "-c", "touch /tmp/lakewarden-hostile"],
                "logConfiguration": {"logDriver": "awslogs", "options": options},
            }
        ],
    )


def run(cloud: CloudStack, family: str, told: str, **variables: str) -> str:
    """Start a task; its ARN."""
    given = [
        {"name": name, "value": value}
        for name, value in {"LAKEWARDEN_TASK": told, **variables}.items()
    ]
    answer = cloud.client("ecs").run_task(
        cluster=CLUSTER,
        taskDefinition=family,
        launchType="FARGATE",
        overrides={"containerOverrides": [{"name": "main", "environment": given}]},
    )
    arn: str = answer["tasks"][0]["taskArn"]
    return arn


def task(cloud: CloudStack, arn: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = cloud.client("ecs").describe_tasks(cluster=CLUSTER, tasks=[arn])[
        "tasks"
    ][0]
    return found


def stopped(cloud: CloudStack, arn: str) -> Mapping[str, Any]:
    """The task, once it has stopped."""
    wait_for(lambda: task(cloud, arn)["lastStatus"] == "STOPPED")
    return task(cloud, arn)


def lines(cloud: CloudStack, arn: str) -> list[str]:
    """What it wrote to CloudWatch Logs."""
    stream = f"ecs/main/{arn.rsplit('/', 1)[-1]}"
    try:
        events = cloud.client("logs").get_log_events(logGroupName=GROUP, logStreamName=stream)
    except ClientError:
        return []
    return [event["message"] for event in events["events"]]


def pid(cloud: CloudStack, arn: str) -> int:
    told = wait_for(lambda: lines(cloud, arn))
    return int(told[0].split()[1])


def is_gone(number: int) -> bool:
    return not psutil.pid_exists(number) or psutil.Process(number).status() == "zombie"


@pytest.mark.parametrize("code", [0, 1, 42])
def test_a_task_is_a_process_with_its_exit_code_and_its_output(
    cloud: CloudStack, family: str, code: int
) -> None:
    arn = run(cloud, family, f"exit {code}")
    found = stopped(cloud, arn)
    assert found["stopCode"] == "EssentialContainerExited"
    assert found["containers"][0]["exitCode"] == code
    told = wait_for(lambda: said if len(said := lines(cloud, arn)) == 2 else [])
    assert told[0].startswith("begun")
    assert told[1] == "to standard error"


def test_who_is_killed_is_told_as_killed(cloud: CloudStack, family: str) -> None:
    arn = run(cloud, family, "sleep")
    os.kill(pid(cloud, arn), signal.SIGKILL)
    container = stopped(cloud, arn)["containers"][0]
    assert container["exitCode"] == 137
    assert "reason" not in container


def test_memory_above_the_limit_is_told_as_such(cloud: CloudStack) -> None:
    define(cloud, "small", memory=64)
    container = stopped(cloud, run(cloud, "small", "memory 200"))["containers"][0]
    assert container["exitCode"] == 137
    assert container["reason"] == "OutOfMemoryError: Container killed due to memory usage"


def test_a_task_sees_what_its_image_sets_and_what_it_may_add(
    cloud: CloudStack, family: str
) -> None:
    arn = run(cloud, family, "environment", LAKEWARDEN_TASK_TOKEN="a token")
    stopped(cloud, arn)
    seen = json.loads(wait_for(lambda: lines(cloud, arn)[1:])[0])
    assert {name: value for name, value in seen.items() if name != "LC_CTYPE"} == {
        "PATH": "/usr/bin:/bin",
        "SECRET_OF_THE_IMAGE": "kept",
        "LAKEWARDEN_TASK": "environment",
        "LAKEWARDEN_TASK_TOKEN": "a token",
    }


@pytest.mark.parametrize(
    "name", ["PATH", "LD_PRELOAD", "PYTHONPATH", "SECRET_OF_THE_IMAGE", "LAKEWARDEN_ENV", "HOME"]
)
def test_a_hostile_variable_is_refused_and_nothing_runs(
    cloud: CloudStack, family: str, name: str
) -> None:
    arn = run(cloud, family, "sleep", **{name: "/evil"})
    found = stopped(cloud, arn)
    assert found["stopCode"] == "TaskFailedToStart"
    assert name in found["stoppedReason"]
    assert "/evil" not in found["stoppedReason"]
    assert lines(cloud, arn) == []


@pytest.mark.parametrize("image", ["busybox", "evil/../test-task-2", "/bin/sh", "test-task-x:1"])
def test_what_is_not_on_the_allow_list_never_runs(cloud: CloudStack, image: str) -> None:
    define(cloud, "hostile", memory=512, image=image)
    found = stopped(cloud, run(cloud, "hostile", "exit 0"))
    assert found["stopCode"] == "TaskFailedToStart"
    assert "allow-list" in found["stoppedReason"]


def test_the_command_of_a_task_definition_is_not_run(cloud: CloudStack, family: str) -> None:
    stopped(cloud, run(cloud, family, "exit 0"))
    assert not Path("/tmp/lakewarden-hostile").exists()


def test_stopping_ends_the_process_and_its_children(cloud: CloudStack, family: str) -> None:
    arn = run(cloud, family, "children")
    parent = pid(cloud, arn)
    child = int(wait_for(lambda: lines(cloud, arn)[1:])[0].split()[1])
    cloud.client("ecs").stop_task(cluster=CLUSTER, task=arn, reason="a test")
    assert stopped(cloud, arn)["stoppedReason"] == "a test"
    wait_for(lambda: is_gone(parent) and is_gone(child))


def test_who_does_not_hear_is_killed(cloud: CloudStack, family: str) -> None:
    arn = run(cloud, family, "deaf")
    number = pid(cloud, arn)
    cloud.client("ecs").stop_task(cluster=CLUSTER, task=arn)
    assert not is_gone(number)
    wait_for(lambda: is_gone(number))


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def service(cloud: CloudStack, port: int) -> Iterator[str]:
    """A service behind a target group, of one task that answers."""
    name, ecs, balancers = f"web-{port}", cloud.client("ecs"), cloud.client("elbv2")
    define(cloud, name, memory=512)
    definition = ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]
    container = {
        **definition["containerDefinitions"][0],
        "environment": [{"name": "LAKEWARDEN_TASK", "value": f"serve {port}"}],
    }
    ecs.register_task_definition(
        family=name,
        cpu="256",
        memory="512",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        containerDefinitions=[container],
    )
    group = balancers.create_target_group(
        Name=name,
        Protocol="HTTP",
        Port=port,
        VpcId="vpc-1",
        TargetType="ip",
        HealthCheckIntervalSeconds=5,
        HealthCheckTimeoutSeconds=2,
        HealthyThresholdCount=2,
        UnhealthyThresholdCount=2,
    )["TargetGroups"][0]["TargetGroupArn"]
    ecs.create_service(
        cluster=CLUSTER,
        serviceName=name,
        taskDefinition=name,
        desiredCount=1,
        launchType="FARGATE",
        loadBalancers=[{"targetGroupArn": group, "containerName": "main", "containerPort": port}],
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        deploymentConfiguration={"maximumPercent": 100, "minimumHealthyPercent": 0},
    )
    try:
        wait_for(lambda: answers(port))
        yield name
    finally:
        ecs.delete_service(cluster=CLUSTER, service=name, force=True)
    wait_for(lambda: not answers(port))


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def listener(port: int) -> int:
    """The process that listens; it is waited for. Java listens by IPv6's sockets."""

    def found() -> list[int]:
        return [
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.laddr
            and connection.laddr.port == port
            and connection.status == psutil.CONN_LISTEN
            and connection.pid
        ]

    return wait_for(found, 60)[0]


def health(cloud: CloudStack, name: str) -> list[str]:
    balancers = cloud.client("elbv2")
    arn = balancers.describe_target_groups(Names=[name])["TargetGroups"][0]["TargetGroupArn"]
    told = balancers.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
    return [each["TargetHealth"]["State"] for each in told]


def test_the_desired_count_truly_stops_and_starts_a_process(
    cloud: CloudStack, service: str, port: int
) -> None:
    ecs, first = cloud.client("ecs"), listener(port)
    wait_for(lambda: health(cloud, service) == ["healthy"])
    ecs.update_service(cluster=CLUSTER, service=service, desiredCount=0)
    wait_for(lambda: is_gone(first) and not answers(port))
    described = ecs.describe_services(cluster=CLUSTER, services=[service])["services"][0]
    assert (described["desiredCount"], described["runningCount"]) == (0, 0)
    assert health(cloud, service) == []
    ecs.update_service(cluster=CLUSTER, service=service, desiredCount=1)
    wait_for(lambda: answers(port))
    assert listener(port) != first


def test_a_service_that_is_killed_is_replaced(cloud: CloudStack, service: str, port: int) -> None:
    first = listener(port)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: listener(port) != first)


def test_a_target_that_does_not_answer_is_unhealthy(
    cloud: CloudStack, service: str, port: int
) -> None:
    wait_for(lambda: health(cloud, service) == ["healthy"])
    held = listener(port)
    os.kill(held, signal.SIGSTOP)  # it listens, and says nothing
    try:
        wait_for(lambda: health(cloud, service) == ["unhealthy"])
    finally:
        os.kill(held, signal.SIGCONT)
    wait_for(lambda: health(cloud, service) == ["healthy"])
