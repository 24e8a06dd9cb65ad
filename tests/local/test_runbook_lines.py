"""The two runbooks' own lines, typed into the real AWS CLI v2, on the whole stack of a project
called dpc; and the alarms that make somebody open a runbook, each for a real cause.

What a line did is looked at where it acts: on the process, the object or the table. In Dagster's
place runs a small server of the tests: ECS sees a service like any other.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import duckdb
import pytest

from lakewarden.aws.alarms import names_of
from lakewarden.aws.clients import Connection, s3_client
from lakewarden.aws.definitions import filled
from lakewarden.local import cloud, nessie
from lakewarden.local.config import NessieStore
from lakewarden.local.containers.images import Image
from tests import needs
from tests.aws_cli import AwsCli, aws_cli
from tests.local.pipeline_site import Execution, Site, pipeline_site
from tests.local.shop import DATASET, DAY, Shop, make_shop, rows_of
from tests.local.test_cloud_ecs import is_gone, listener, wait_for
from tests.policies import PLACES, text_of
from tests.stack import TASK, CloudStack

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

CLUSTER = "dpc-dev"
NESSIE = "dpc-dev-nessie"
DAGSTER = "dpc-dev-dagster"
RUNNER = "/aws/ecs/dpc-dbt-runner"
BUCKET = "dpc-dev"
OTHER_DAY = "2024-03-02"
LATE = "dpc-late-delivery-sales"
PARTS = {"project": "dpc", "env": "dev", "pipeline": "dpc-pipeline"}
DUE = 'due = { at = "00:00", zone = "UTC" }\n'


@dataclass(frozen=True)
class Dpc:
    """A project whose catalog is Nessie, its stack, and the CLI."""

    shop: Shop
    site: Site
    aws: AwsCli
    home: Path  # where the CLI is called
    _heard: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def cloud(self) -> CloudStack:
        return self.site.cloud

    @property
    def nessie_port(self) -> int:
        return port(self.cloud.info.nessie)

    def json(self, *words: str) -> Any:
        return json.loads(self.aws(*words, folder=self.home))

    def start(self, batch: str) -> Execution:
        """As the runbook does: the payload lies in a file."""
        (self.home / "payload.json").write_text(json.dumps({"dataset": DATASET, "batch": batch}))
        words = ["stepfunctions", "start-execution", "--state-machine-arn", self.site.machine]
        told = self.json(*words, "--input", "file://payload.json")
        return Execution(self.site, told["executionArn"])

    def state(self, alarm: str) -> str:
        told = self.site.client("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
        return str(told[0]["StateValue"])

    def becomes(self, alarm: str, state: str, seconds: float = 90) -> None:
        wait_for(lambda: self.state(alarm) == state, seconds)

    def heard(self, alarm: str | None = None) -> list[Mapping[str, Any]]:
        """What the topic was told since the beginning, in order: all, or of one alarm."""
        sqs, queue = self.site.client("sqs"), self.cloud.info.made.alerts_queue
        while found := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in found:
                self._heard.append(json.loads(json.loads(message["Body"])["Message"]))
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return [each for each in self._heard if alarm in (None, each.get("AlarmName"))]

    def changes(self, alarm: str) -> list[str]:
        """The states that it went to, OK and ALARM, by CloudWatch's own history."""
        pages = self.site.client("cloudwatch").get_paginator("describe_alarm_history")
        found = [
            json.loads(item["HistoryData"])
            for page in pages.paginate(AlarmName=alarm, HistoryItemType="StateUpdate")
            for item in page["AlarmHistoryItems"]
        ]
        states = [(one["oldState"]["stateValue"], one["newState"]["stateValue"]) for one in found]
        return [new for old, new in reversed(states) if new in {"OK", "ALARM"} - {old}]

    def lakewarden(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lakewarden", *words],
            cwd=self.shop.root,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def target_health(self) -> list[str]:
        group = self.json("elbv2", "describe-target-groups", "--names", NESSIE)["TargetGroups"][0]
        words = ["elbv2", "describe-target-health", "--target-group-arn", group["TargetGroupArn"]]
        return [each["TargetHealth"]["State"] for each in self.json(*words)[HEALTH]]


HEALTH = "TargetHealthDescriptions"


def port(address: str | None) -> int:
    assert address is not None
    return int(address.rpartition(":")[2])


def in_place_of_dagster(port: int) -> Image:
    seen = {"PATH": "/usr/bin:/bin", "LAKEWARDEN_TASK": f"serve {port}"}
    return Image((sys.executable, "-I", str(TASK)), TASK.parent, seen, stop_seconds=3)


@pytest.fixture(scope="module")
def dpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dpc]:
    """Of what starts by itself, the check for late deliveries does: sales of yesterday are due,
    and nobody delivers them before a test does."""
    needs.java()
    needs.maven()
    root, home = tmp_path_factory.mktemp("dpc"), tmp_path_factory.mktemp("aws home")
    make_shop(root, Connection("local", "us-east-1"), BUCKET, models=True)
    settings = root / "lakewarden.toml"
    catalog = 'type = "sql", uri = "sqlite:///.lakewarden/catalog.db"'
    text = settings.read_text().replace(catalog, 'type = "nessie"') + DUE
    text = text.replace('project = "shop"', 'project = "dpc"')
    settings.write_text(text)
    rules = {"dpc-pipeline-late"}
    with pipeline_site(
        root,
        "dpc",
        rules=rules,
        datasets=(DATASET,),
        nessie=True,
        nessie_store=NessieStore.DYNAMODB,
        dagster=in_place_of_dagster,
    ) as site:
        yield Dpc(Shop(root), site, aws_cli(site.cloud.connection, home), home)


def test_every_part_answers_within_the_time_and_the_memory(dpc: Dpc) -> None:
    parts = cloud.status(dpc.cloud.asked).parts
    assert {part.name for part in parts if part.up} >= {"control plane", "Nessie", "Dagster"}
    assert all(part.up for part in parts)
    assert sum(cloud.memory(dpc.cloud.asked).values()) < 2 << 30
    file = dpc.shop.root / ".lakewarden" / "local" / "endpoint.json"
    assert json.loads(file.read_text())["nessie"] == dpc.cloud.info.nessie


def test_an_execution_is_started_and_its_logs_are_where_the_runbook_looks(dpc: Dpc) -> None:
    dpc.shop.deliver(1)
    begun = datetime.now(UTC) - timedelta(seconds=5)
    execution = dpc.start(DAY)
    assert execution.end()["status"] == "SUCCEEDED", dpc.site.log()
    assert dpc.shop.rows()["raw.orders"] == rows_of(1, DAY, orders=12)["raw.orders"]
    run = dpc.shop.publications()[0].run
    told = wait_for(lambda: _if(run, dpc.aws("logs", "tail", RUNNER, "--since", "1h")))
    assert "dbt" in told
    assert "marts.daily" in told
    words = ["logs", "filter-log-events", "--log-group-name", RUNNER]
    window = ["--start-time", _millis(begun), "--end-time", _millis(datetime.now(UTC))]
    events = dpc.json(*words, *window)["events"]
    assert any(run in event["message"] for event in events)
    assert dpc.json(*words, "--start-time", "1000", "--end-time", _millis(begun))["events"] == []
    assert '"manifest"' in "\n".join(cloud.logs(dpc.cloud.asked, "runner"))  # the export's own


def _if(word: str, told: str) -> str:
    """All that was told, where the word is in it."""
    return told if word in told else ""


def _millis(moment: datetime) -> str:
    return str(int(moment.timestamp() * 1000))


def test_a_corrupted_source_is_an_alarm_and_its_replacement_is_published(dpc: Dpc) -> None:
    dpc.shop.deliver(2, OTHER_DAY)
    key = f"raw/{DATASET}/{OTHER_DAY}/orders-0.csv"
    fix = dpc.home / "fix.csv"
    dpc.aws("s3", "cp", f"s3://{BUCKET}/{key}", str(fix))
    corrupted = dpc.home / "corrupted.csv"
    corrupted.write_bytes(fix.read_bytes()[:-7])
    dpc.aws("s3", "cp", str(corrupted), f"s3://{BUCKET}/{key}")
    before = dpc.shop.rows()
    execution = dpc.start(OTHER_DAY)
    assert execution.end()["status"] == "FAILED"
    assert dpc.shop.rows() == before
    dpc.becomes("dpc-pipeline-failed", "ALARM")
    history = dpc.json("stepfunctions", "get-execution-history", "--execution-arn", execution.arn)
    assert any(event["type"] == "ExecutionFailed" for event in history["events"])

    dpc.aws("s3", "cp", "fix.csv", f"s3://{BUCKET}/{key}", folder=dpc.home)
    assert dpc.start(OTHER_DAY).end()["status"] == "SUCCEEDED"
    wanted = {*before["raw.orders"], *rows_of(2, OTHER_DAY, orders=12)["raw.orders"]}
    assert set(dpc.shop.rows()["raw.orders"]) == wanted
    dpc.becomes("dpc-pipeline-failed", "OK")
    assert dpc.changes("dpc-pipeline-failed") == ["OK", "ALARM", "OK"]
    raised = dpc.heard("dpc-pipeline-failed")[1]
    assert (raised["OldStateValue"], raised["NewStateValue"]) == ("OK", "ALARM")
    assert raised["AlarmArn"].endswith(":alarm:dpc-pipeline-failed")
    trigger = raised["Trigger"]
    assert trigger["Dimensions"] == [{"value": dpc.site.machine, "name": "StateMachineArn"}]
    assert (trigger["Namespace"], trigger["MetricName"]) == ("AWS/States", "ExecutionsFailed")


def test_a_deleted_data_file_comes_back(dpc: Dpc) -> None:
    """The three commands of "S3 Data Recovery", on a file of a published table."""
    key = _data_file(dpc, "raw.orders")
    good = dpc.shop.rows()
    versions = ["s3api", "list-object-versions", "--bucket", BUCKET, "--prefix", key]
    (version,) = dpc.json(*versions)["Versions"]
    s3_client(dpc.cloud.connection).delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(duckdb.HTTPException, match="404"):
        Shop(dpc.shop.root).rows()
    marker = dpc.json(*versions, "--query", "DeleteMarkers[?IsLatest==`true`]")[0]
    assert marker["Key"] == key
    words = ["--bucket", BUCKET, "--key", key]
    dpc.aws("s3api", "delete-object", *words, "--version-id", marker["VersionId"])
    assert Shop(dpc.shop.root).rows() == good

    s3_client(dpc.cloud.connection).put_object(Bucket=BUCKET, Key=key, Body=b"scribbled over")
    with pytest.raises(duckdb.Error):
        Shop(dpc.shop.root).rows()
    source = f"{BUCKET}/{key}?versionId={version['VersionId']}"
    dpc.aws("s3api", "copy-object", *words, "--copy-source", source)
    assert Shop(dpc.shop.root).rows() == good


def _data_file(dpc: Dpc, table: str) -> str:
    """The key of one data file of the table as it is published."""
    project = dpc.shop.project
    with project.session(project.pin()) as connection:
        location = project.pin().tables[table]
        found = connection.execute(f"FROM iceberg_metadata('{location}')").fetchdf().file_path
    return str(found[0]).removeprefix(f"s3://{BUCKET}/")


def test_an_earlier_terraform_state_is_restored(dpc: Dpc) -> None:
    """The state is an object like any other: `list-object-versions`, `get-object`, `s3 cp`."""
    key, home = "iceberg-lakehouse/prod/terraform.tfstate", dpc.home
    client = s3_client(dpc.cloud.connection)
    for serial in (1, 2):
        client.put_object(Bucket=BUCKET, Key=key, Body=json.dumps({"serial": serial}).encode())
    words = ["--bucket", BUCKET]
    found = dpc.json("s3api", "list-object-versions", *words, "--prefix", key)["Versions"]
    old = next(each["VersionId"] for each in found if not each["IsLatest"])
    get = ["s3api", "get-object", *words, "--key", key, "--version-id", old]
    dpc.aws(*get, "restored-state.tfstate", folder=home)
    dpc.aws("s3", "cp", "restored-state.tfstate", f"s3://{BUCKET}/{key}", folder=home)
    assert client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b'{"serial": 1}'


def test_nessie_is_scaled_to_zero_and_back(dpc: Dpc) -> None:
    """Containment, then "Nessie Unreachable", then the way back; and who did it. Its data lie in
    DynamoDB all the while."""
    tables = dpc.json("dynamodb", "list-tables")["TableNames"]
    assert {f"{NESSIE}_objs", f"{NESSIE}_refs"} <= set(tables)
    good = dpc.shop.rows()
    first, begun = listener(dpc.nessie_port), datetime.now(UTC) - timedelta(seconds=1)
    wait_for(lambda: dpc.target_health() == ["healthy"])
    service = ["--cluster", CLUSTER, "--service", NESSIE]
    dpc.aws("ecs", "update-service", *service, "--desired-count", "0")
    wait_for(lambda: is_gone(first))
    query = "services[0].{desired:desiredCount,running:runningCount,events:events[:3]}"
    describe = ["ecs", "describe-services", "--cluster", CLUSTER, "--services", NESSIE]
    told = dpc.json(*describe, "--query", query)
    assert (told["desired"], told["running"]) == (0, 0)
    assert dpc.target_health() == []
    assert "Listening on" in dpc.aws("logs", "tail", f"/ecs/{NESSIE}", "--since", "30m")

    refused = dpc.lakewarden("query", "select 1")
    assert refused.returncode == 75, refused.stderr
    assert "Look whether Nessie is up" in refused.stderr
    assert "Traceback" not in refused.stderr
    part = next(one for one in cloud.status(dpc.cloud.asked).parts if one.name == "Nessie")
    assert (part.up, part.detail) == (False, "its service's desired count is 0")

    dpc.aws("ecs", "update-service", *service, "--desired-count", "1")
    wait_for(lambda: nessie.is_ready(dpc.nessie_port), 90)
    wait_for(lambda: dpc.target_health() == ["healthy"])
    assert Shop(dpc.shop.root).rows() == good
    window = ["--start-time", begun.isoformat(), "--end-time", datetime.now(UTC).isoformat()]
    name = "AttributeKey=EventName,AttributeValue=UpdateService"
    trail = ["cloudtrail", "lookup-events", *window, "--lookup-attributes", name]
    calls = [json.loads(event["CloudTrailEvent"]) for event in dpc.json(*trail)["Events"]]
    counts = [each["requestParameters"]["desiredCount"] for each in calls]
    assert counts == [1, 0]  # the newest first


def test_keys_and_permissions_are_those_of_the_runbook(dpc: Dpc) -> None:
    """Rotation, and "S3 403 Forbidden": nothing is enforced here, but answered and recorded."""
    role = ["iam", "create-role", "--role-name", "reader", "--assume-role-policy-document", "{}"]
    arn = dpc.json(*role)["Role"]["Arn"]
    text = json.dumps(filled(json.loads(text_of("reader")), {**PLACES, "Bucket": BUCKET}))
    name = ["--role-name", "reader", "--policy-name", "reader", "--policy-document", text]
    dpc.aws("iam", "put-role-policy", *name)
    asked = ["--action-names", "s3:GetObject", "s3:PutObject"]
    where = ["--resource-arns", f"arn:aws:s3:::{BUCKET}/warehouse/raw/orders/data/a.parquet"]
    told = dpc.json("iam", "simulate-principal-policy", "--policy-source-arn", arn, *asked, *where)
    decisions = {each["EvalActionName"]: each["EvalDecision"] for each in told["EvaluationResults"]}
    assert decisions == {"s3:GetObject": "allowed", "s3:PutObject": "implicitDeny"}

    user = ["--user-name", "nessie-client"]
    dpc.aws("iam", "create-user", *user)
    made = dpc.json("iam", "create-access-key", *user)["AccessKey"]
    dpc.aws("iam", "delete-access-key", *user, "--access-key-id", made["AccessKeyId"])
    assert dpc.json("iam", "list-access-keys", *user)["AccessKeyMetadata"] == []
    by_name = "AttributeKey=EventName,AttributeValue=CreateAccessKey"
    lookup = ["cloudtrail", "lookup-events", "--lookup-attributes", by_name]
    (event,) = dpc.json(*lookup)["Events"]
    assert made["SecretAccessKey"] not in json.dumps(event)


def test_a_nessie_that_is_silent_is_unhealthy_and_an_alarm(dpc: Dpc) -> None:
    wait_for(lambda: dpc.target_health() == ["healthy"])
    held = listener(dpc.nessie_port)
    os.kill(held, signal.SIGSTOP)
    try:
        wait_for(lambda: dpc.target_health() == ["unhealthy"])
        dpc.becomes("nessie-health-check-failed", "ALARM")
    finally:
        os.kill(held, signal.SIGCONT)
    wait_for(lambda: dpc.target_health() == ["healthy"])
    dpc.becomes("nessie-health-check-failed", "OK")


def test_a_service_that_was_stopped_is_no_alarm(dpc: Dpc) -> None:
    number, ecs = port(dpc.cloud.info.dagster), dpc.site.client("ecs")
    first = listener(number)
    ecs.update_service(cluster=CLUSTER, service=DAGSTER, desiredCount=0)
    wait_for(lambda: is_gone(first))
    ecs.update_service(cluster=CLUSTER, service=DAGSTER, desiredCount=1)
    assert listener(number) != first
    assert dpc.state("dagster-task-stopped") == "OK"


def test_alarms_go_to_alarm_and_back_for_their_causes(dpc: Dpc) -> None:
    """At the same time, since each takes its periods: a Nessie that was given little CPU starts
    and is asked much, a Dagster is killed, and a delivery that is due comes at last."""
    dagster = port(dpc.cloud.info.dagster)
    first = listener(dagster)
    give_less_cpu(dpc)
    with busy(dpc.nessie_port):
        os.kill(first, signal.SIGKILL)
        dpc.becomes("dagster-task-stopped", "ALARM")
        dpc.becomes("nessie-cpu-high", "ALARM", 120)
    assert listener(dagster) != first
    dpc.becomes(LATE, "ALARM", 120)
    (batch,) = missing(dpc)
    dpc.shop.deliver(9, batch)
    for alarm in ("nessie-cpu-high", "dagster-task-stopped", LATE):
        dpc.becomes(alarm, "OK", 120)
    assert missing(dpc) == []
    assert dpc.changes("dagster-task-stopped") == ["OK", "ALARM", "OK"]
    assert dpc.changes(LATE) == ["ALARM", "OK"]
    assert "ALARM" in dpc.changes("nessie-cpu-high")
    events = [each for each in dpc.heard() if each.get("detail-type") == "ECS Task State Change"]
    (stopped,) = (each["detail"] for each in events)
    assert stopped["containers"][0]["exitCode"] == 137
    assert stopped["group"] == f"service:{DAGSTER}"


def test_the_topic_is_told_of_every_change_once(dpc: Dpc) -> None:
    """All that an alarm did until here."""
    alarms = [*names_of("pipeline", PARTS, [DATASET]), *names_of("nessie", PARTS, [])]
    for alarm in [*alarms, *names_of("dagster", PARTS, [])]:
        wait_for(lambda of=alarm: told_of(dpc, of) == dpc.changes(of))  # type: ignore[misc]  # a default is not inferred
    assert "ALARM" in told_of(dpc, "nessie-health-check-failed")


def told_of(dpc: Dpc, alarm: str) -> list[str]:
    return [str(each["NewStateValue"]) for each in dpc.heard(alarm)]


def give_less_cpu(dpc: Dpc) -> None:
    """Nessie's service, an eighth of a core in place of half of one: what keeps that busy, the
    busiest machine has left."""
    ecs = dpc.site.client("ecs")
    given = ecs.describe_task_definition(taskDefinition=NESSIE)["taskDefinition"]
    kept = ("family", "memory", "networkMode", "requiresCompatibilities", "containerDefinitions")
    ecs.register_task_definition(cpu="128", **{name: given[name] for name in kept})
    first = listener(dpc.nessie_port)
    ecs.update_service(cluster=CLUSTER, service=NESSIE, taskDefinition=NESSIE)
    wait_for(lambda: is_gone(first))
    wait_for(lambda: nessie.is_ready(dpc.nessie_port), 90)


def missing(dpc: Dpc) -> list[str]:
    """What the scheduled check finds."""
    told = dpc.site.call(dpc.site.names.check_deliveries, {"kind": "check"})["missing"]
    return [one.removeprefix(f"{DATASET} ") for one in told]


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Clients that ask Nessie without end."""
    stop = threading.Event()

    def ask() -> None:
        connection = HTTPConnection("127.0.0.1", number, timeout=30)
        while not stop.is_set():
            connection.request("GET", "/api/v2/trees/main/entries?content=true")
            connection.getresponse().read()
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_killed_nessie_is_replaced(dpc: Dpc) -> None:
    first = listener(dpc.nessie_port)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: listener(dpc.nessie_port) != first, 90)
    wait_for(lambda: nessie.is_ready(dpc.nessie_port), 90)
    assert dpc.lakewarden("query", "select count(*) from raw.orders").returncode == 0


def test_down_and_up_keep_what_was_there(dpc: Dpc) -> None:
    good = dpc.shop.rows()
    dpc.site.client("sns").create_topic(Name="kept")
    assert cloud.down(dpc.cloud.asked)
    assert not any(part.up for part in cloud.status(dpc.cloud.asked).parts)
    again = dpc.cloud.again(dagster=in_place_of_dagster)
    assert all(part.up for part in cloud.status(dpc.cloud.asked).parts)
    topics = again.client("sns").list_topics()["Topics"]
    assert any(topic["TopicArn"].endswith(":kept") for topic in topics)
    assert Shop(dpc.shop.root).rows() == good
