"""State machines, alarms and events on the local stack, with real tasks behind them."""

import json
import os
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from tests.local.test_cloud_ecs import CLUSTER, define, is_gone, lines, stopped, task, wait_for
from tests.stack import CloudStack

pytestmark = pytest.mark.timeout(120)

ROLE = "arn:aws:iam::000000000000:role/lakewarden-local"


@pytest.fixture(scope="module", autouse=True)
def family(cloud: CloudStack) -> str:
    define(cloud, "step", memory=512)
    return "step"


def waiting(heartbeat: int, told: str) -> str:
    """A state machine of one state, which waits for its task's word."""
    variables = [
        {"Name": "LAKEWARDEN_TASK_TOKEN", "Value": "{% $states.context.Task.Token %}"},
        {"Name": "LAKEWARDEN_TASK", "Value": told},
    ]
    state = {
        "Type": "Task",
        "Resource": "arn:aws:states:::ecs:runTask.waitForTaskToken",
        "HeartbeatSeconds": heartbeat,
        "Arguments": {
            "Cluster": CLUSTER,
            "TaskDefinition": "step",
            "LaunchType": "FARGATE",
            "Overrides": {"ContainerOverrides": [{"Name": "main", "Environment": variables}]},
        },
        "End": True,
    }
    return json.dumps({"QueryLanguage": "JSONata", "StartAt": "Run", "States": {"Run": state}})


def start(cloud: CloudStack, name: str, definition: str) -> tuple[str, str]:
    """The machine's ARN and the execution's."""
    machines = cloud.client("stepfunctions")
    machine = machines.create_state_machine(name=name, definition=definition, roleArn=ROLE)
    arn: str = machine["stateMachineArn"]
    started = machines.start_execution(stateMachineArn=arn, input="{}")
    return arn, started["executionArn"]


def ended(cloud: CloudStack, execution: str) -> Mapping[str, Any]:
    machines = cloud.client("stepfunctions")
    wait_for(lambda: machines.describe_execution(executionArn=execution)["status"] != "RUNNING", 40)
    found: Mapping[str, Any] = machines.describe_execution(executionArn=execution)
    return found


def running(cloud: CloudStack) -> str:
    """The one task of a state machine that runs."""
    ecs = cloud.client("ecs")
    return str(wait_for(lambda: ecs.list_tasks(cluster=CLUSTER, family="step")["taskArns"])[0])


def token(cloud: CloudStack, arn: str) -> str:
    overrides = task(cloud, arn)["overrides"]["containerOverrides"][0]["environment"]
    return next(str(each["value"]) for each in overrides if each["name"].endswith("TOKEN"))


def alarm(cloud: CloudStack, name: str, namespace: str, metric: str, **dimensions: str) -> None:
    topic = cloud.info.made.topic
    cloud.client("cloudwatch").put_metric_alarm(
        AlarmName=name,
        Namespace=namespace,
        MetricName=metric,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        Statistic="Sum",
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        Threshold=1,
        Period=300,
        EvaluationPeriods=1,
        TreatMissingData="notBreaching",
        AlarmActions=[topic],
        OKActions=[topic],
    )


def state(cloud: CloudStack, name: str) -> str:
    told = cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return str(told[0]["StateValue"])


def alerts(cloud: CloudStack) -> list[Mapping[str, Any]]:
    """What the topic was told since the last look."""
    queue, found = cloud.client("sqs"), []
    while messages := queue.receive_message(
        QueueUrl=cloud.info.made.alerts_queue, MaxNumberOfMessages=10
    ).get("Messages"):
        for message in messages:
            found.append(json.loads(json.loads(message["Body"])["Message"]))
            queue.delete_message(
                QueueUrl=cloud.info.made.alerts_queue, ReceiptHandle=message["ReceiptHandle"]
            )
    return found


def test_a_task_that_answers_ends_the_state(cloud: CloudStack) -> None:
    _, execution = start(cloud, "answers", waiting(60, "sleep"))
    arn = running(cloud)
    given = token(cloud, arn)
    cloud.client("stepfunctions").send_task_success(taskToken=given, output='{"rows": 3}')
    assert json.loads(ended(cloud, execution)["output"]) == {"rows": 3}
    cloud.client("ecs").stop_task(cluster=CLUSTER, task=arn)
    stopped(cloud, arn)


def test_who_is_silent_is_timed_out_and_who_is_heard_is_not(cloud: CloudStack) -> None:
    machines = cloud.client("stepfunctions")
    _, execution = start(cloud, "silent", waiting(10, "sleep"))  # a busy machine takes seconds
    arn = running(cloud)
    given = token(cloud, arn)
    for _ in range(5):  # longer than a heartbeat in all
        wait = machines.describe_execution(executionArn=execution)
        assert wait["status"] == "RUNNING"
        machines.send_task_heartbeat(taskToken=given)
        pause(2.5)
    found = ended(cloud, execution)
    assert (found["status"], found["error"]) == ("FAILED", "States.HeartbeatTimeout")
    with pytest.raises(machines.exceptions.TaskDoesNotExist):
        machines.send_task_success(taskToken=given, output="{}")
    cloud.client("ecs").stop_task(cluster=CLUSTER, task=arn)
    stopped(cloud, arn)


def pause(seconds: float) -> None:
    """Time that passes is what this test is about."""
    import time

    time.sleep(seconds)


def test_a_failed_execution_raises_the_alarm_once_and_it_goes_back(cloud: CloudStack) -> None:
    machine = f"arn:aws:states:us-east-1:000000000000:stateMachine:{'killed'}"
    other = f"arn:aws:states:us-east-1:000000000000:stateMachine:{'another'}"
    alarm(cloud, "killed-failed", "AWS/States", "ExecutionsFailed", StateMachineArn=machine)
    alarm(cloud, "another-failed", "AWS/States", "ExecutionsFailed", StateMachineArn=other)
    wait_for(lambda: state(cloud, "killed-failed") == "OK")
    alerts(cloud)
    _, execution = start(cloud, "killed", waiting(3, "sleep"))
    arn = running(cloud)
    number = int(wait_for(lambda: lines(cloud, arn))[0].split()[1])
    os.kill(number, signal.SIGKILL)
    assert ended(cloud, execution)["error"] == "States.HeartbeatTimeout"
    assert is_gone(number)
    wait_for(lambda: state(cloud, "killed-failed") == "ALARM")
    assert state(cloud, "another-failed") == "OK"  # other dimensions are another metric
    wait_for(lambda: state(cloud, "killed-failed") == "OK")
    told = [(each["AlarmName"], each["NewStateValue"]) for each in alerts(cloud)]
    assert [each for each in told if each[0] == "killed-failed"] == [
        ("killed-failed", "ALARM"),
        ("killed-failed", "OK"),
    ]


def test_events_of_tasks_and_alarms_reach_a_rule(cloud: CloudStack) -> None:
    queues, events = cloud.client("sqs"), cloud.client("events")
    queue = queues.create_queue(QueueName="events")["QueueUrl"]
    target = {"Id": "queue", "Arn": "arn:aws:sqs:us-east-1:000000000000:events"}
    kinds = ["ECS Task State Change", "CloudWatch Alarm State Change"]
    events.put_rule(Name="all", EventPattern=json.dumps({"detail-type": kinds}))
    events.put_targets(Rule="all", Targets=[target])
    alarm(cloud, "rules-triggered", "AWS/Events", "TriggeredRules", RuleName="all")
    ecs = cloud.client("ecs")
    arn = ecs.run_task(cluster=CLUSTER, taskDefinition="step", launchType="FARGATE")["tasks"][0]
    found: list[dict[str, Any]] = []

    def heard(source: str, status: str) -> bool:
        told = queues.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        found.extend(json.loads(message["Body"]) for message in told.get("Messages", []))
        return any(
            event["source"] == source
            and status in (event["detail"].get("lastStatus"), _value(event["detail"]))
            for event in found
        )

    wait_for(lambda: heard("aws.ecs", "RUNNING"))
    ecs.stop_task(cluster=CLUSTER, task=arn["taskArn"])
    wait_for(lambda: heard("aws.ecs", "STOPPED"))
    wait_for(lambda: heard("aws.cloudwatch", "ALARM"))
    events.remove_targets(Rule="all", Ids=["queue"])


def _value(detail: Mapping[str, Any]) -> object:
    state = detail.get("state")
    return state.get("value") if isinstance(state, dict) else None


def test_a_delivery_that_arrives_is_an_event(cloud: CloudStack) -> None:
    from lakewarden.aws.clients import s3_client

    queues, events = cloud.client("sqs"), cloud.client("events")
    queue = queues.create_queue(QueueName="arrivals")["QueueUrl"]
    pattern = {"source": ["aws.s3", "lakewarden.rehearsal"], "detail-type": ["Object Created"]}
    events.put_rule(Name="arrivals", EventPattern=json.dumps(pattern))
    target = {"Id": "queue", "Arn": "arn:aws:sqs:us-east-1:000000000000:arrivals"}
    events.put_targets(Rule="arrivals", Targets=[target])
    key = "raw/yyyymm=2026-01/y1/_manifest.json"
    s3_client(cloud.connection).put_object(Bucket="dpc-dev", Key=key, Body=b"{}")
    told = wait_for(
        lambda: queues.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages")
    )
    assert [json.loads(each["Body"])["detail"]["object"]["key"] for each in told] == [key]
