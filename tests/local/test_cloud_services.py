"""Nessie and a service in Dagster's place, as the runbook operates them: by the real AWS CLI."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakewarden.aws.alarms import alarms, filled
from lakewarden.local import cloud, nessie
from lakewarden.local.containers.images import Image
from tests import needs
from tests.aws_cli import AwsCli, aws_cli
from tests.local.test_cloud_ecs import CLUSTER, define, is_gone, listener, wait_for
from tests.local.test_cloud_pipeline import state
from tests.stack import TASK, CloudStack, cloud_stack

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

NESSIE = "dpc-dev-nessie"
DAGSTER = "dpc-dev-dagster"


def in_place_of_dagster(port: int) -> Image:
    seen = {"PATH": "/usr/bin:/bin", "LAKEWARDEN_TASK": f"serve {port}"}
    return Image((sys.executable, "-I", str(TASK)), TASK.parent, seen, stop_seconds=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudStack]:
    needs.java()
    needs.maven()
    root = tmp_path_factory.mktemp("whole stack")
    with cloud_stack(root, nessie=True, dagster=in_place_of_dagster) as started:
        yield started


@pytest.fixture(scope="module")
def aws(whole: CloudStack, tmp_path_factory: pytest.TempPathFactory) -> AwsCli:
    return aws_cli(whole.connection, tmp_path_factory.mktemp("aws home"))


def port(address: str | None) -> int:
    assert address is not None
    return int(address.rpartition(":")[2])


def test_every_part_answers_within_the_time_and_the_memory(whole: CloudStack) -> None:
    parts = cloud.status(whole.asked).parts
    assert {part.name for part in parts if part.up} >= {"control plane", "Nessie", "Dagster"}
    assert all(part.up for part in parts)
    assert sum(cloud.memory(whole.asked).values()) < 2 << 30
    file = whole.asked.root / ".lakewarden" / "local" / "endpoint.json"
    assert json.loads(file.read_text())["nessie"] == whole.info.nessie


def test_its_logs_are_where_the_runbook_looks(whole: CloudStack, aws: AwsCli) -> None:
    told = wait_for(lambda: aws("logs", "tail", f"/ecs/{NESSIE}", "--since", "30m"))
    assert "Listening on" in told
    assert any("Listening on" in line for line in cloud.logs(whole.asked, "nessie", 1000))


def test_nessie_is_scaled_to_zero_and_back(whole: CloudStack, aws: AwsCli) -> None:
    number = port(whole.info.nessie)
    first = listener(number)
    aws(*f"ecs update-service --cluster {CLUSTER} --service {NESSIE} --desired-count 0".split())
    wait_for(lambda: is_gone(first))
    query = "services[0].{desired:desiredCount,running:runningCount}"
    words = f"ecs describe-services --cluster {CLUSTER} --services {NESSIE}".split()
    assert json.loads(aws(*words, "--query", query)) == {"desired": 0, "running": 0}
    told = next(part for part in cloud.status(whole.asked).parts if part.name == "Nessie")
    assert (told.up, told.detail) == (False, "its service's desired count is 0")
    aws(*f"ecs update-service --cluster {CLUSTER} --service {NESSIE} --desired-count 1".split())
    wait_for(lambda: nessie.is_ready(number), 90)


def test_a_nessie_that_is_silent_is_unhealthy_and_an_alarm(whole: CloudStack, aws: AwsCli) -> None:
    number = port(whole.info.nessie)
    group = whole.client("elbv2").describe_target_groups(Names=[NESSIE])["TargetGroups"][0]
    words = ["elbv2", "describe-target-health", "--target-group-arn", group["TargetGroupArn"]]

    def health() -> list[str]:
        told = json.loads(aws(*words))["TargetHealthDescriptions"]
        return [each["TargetHealth"]["State"] for each in told]

    wait_for(lambda: health() == ["healthy"])
    held = listener(number)
    os.kill(held, signal.SIGSTOP)
    try:
        wait_for(lambda: health() == ["unhealthy"])
        wait_for(lambda: state(whole, "nessie-health-check-failed") == "ALARM", 60)
    finally:
        os.kill(held, signal.SIGCONT)
    wait_for(lambda: health() == ["healthy"])
    wait_for(lambda: state(whole, "nessie-health-check-failed") == "OK", 60)


def test_a_killed_nessie_is_replaced(whole: CloudStack) -> None:
    number = port(whole.info.nessie)
    first = listener(number)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: listener(number) != first, 90)
    wait_for(lambda: nessie.is_ready(number), 90)


def test_a_dagster_that_stopped_is_an_alarm_and_one_that_was_stopped_is_none(
    whole: CloudStack,
) -> None:
    number, ecs = port(whole.info.dagster), whole.client("ecs")
    first = listener(number)
    ecs.update_service(cluster=CLUSTER, service=DAGSTER, desiredCount=0)
    wait_for(lambda: is_gone(first))
    ecs.update_service(cluster=CLUSTER, service=DAGSTER, desiredCount=1)
    second = listener(number)
    assert state(whole, "dagster-task-stopped") != "ALARM"
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: state(whole, "dagster-task-stopped") == "ALARM")
    wait_for(lambda: listener(number) != second)
    wait_for(lambda: state(whole, "dagster-task-stopped") == "OK", 60)


def test_high_cpu_is_an_alarm_of_the_service_that_has_it(whole: CloudStack) -> None:
    """The definition of nessie-cpu-high, on a service that really burns its CPU."""
    define(whole, "burn", memory=512)
    ecs = whole.client("ecs")
    definition = ecs.describe_task_definition(taskDefinition="burn")["taskDefinition"]
    container = {
        **definition["containerDefinitions"][0],
        "environment": [{"name": "LAKEWARDEN_TASK", "value": "burn"}],
    }
    ecs.register_task_definition(
        family="burn",
        cpu="256",
        memory="512",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        containerDefinitions=[container],
    )
    high = next(alarm for alarm in alarms() if alarm.name == "nessie-cpu-high")
    for service in ("burn", "calm"):
        places = {"cluster": CLUSTER, "nessie_service": service}
        asked = {**filled(high, places, []), "AlarmName": f"{service}-cpu-high"}
        whole.client("cloudwatch").put_metric_alarm(**asked)
    ecs.create_service(
        cluster=CLUSTER, serviceName="burn", taskDefinition="burn", desiredCount=1,
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    )  # fmt: skip
    wait_for(lambda: state(whole, "burn-cpu-high") == "ALARM", 90)
    assert state(whole, "calm-cpu-high") == "INSUFFICIENT_DATA"
    ecs.update_service(cluster=CLUSTER, service="burn", desiredCount=0)
    wait_for(lambda: state(whole, "burn-cpu-high") != "ALARM", 90)


def test_down_and_up_keep_what_was_there(whole: CloudStack, tmp_path: Path) -> None:
    whole.client("sns").create_topic(Name="kept")
    assert cloud.down(whole.asked)
    assert not any(part.up for part in cloud.status(whole.asked).parts)
    again = whole.again(dagster=in_place_of_dagster)
    assert all(part.up for part in cloud.status(whole.asked).parts)
    topics = again.client("sns").list_topics()["Topics"]
    assert any(topic["TopicArn"].endswith(":kept") for topic in topics)
