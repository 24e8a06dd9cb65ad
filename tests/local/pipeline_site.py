"""A project's pipeline on an emulator of AWS: its functions, its state machine, and an agent that
runs its ECS tasks as processes on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import boto3

from lakewarden.aws.definitions import Machine, Names, functions, names, runner_task, state_machine
from lakewarden.stepfunctions.bundle import bundle
from tests import needs

REGION = "us-east-1"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
HEARTBEAT = 5
_OVER = {"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"}


@dataclass(frozen=True)
class Emulator:
    """The control plane."""

    endpoint: str

    def client(self, service: str) -> Any:
        make: Any = boto3.client  # its overloads want the name of each service
        return make(service, endpoint_url=self.endpoint, region_name=REGION, **KEYS)


@contextmanager
def emulator(folder: Path) -> Iterator[Emulator]:
    """One that is up, and ended afterwards."""
    python = needs.ministack()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    data = folder / "ministack"
    data.mkdir(parents=True)
    told = {
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "STATE_DIR": str(data),
        "S3_DATA_DIR": str(data),
        "TMPDIR": str(data),
        "PATH": os.environ["PATH"],
        "HOME": str(data),
    }
    with (folder / "ministack.log").open("wb") as log:
        process = subprocess.Popen(
            [str(python), "-m", "ministack"],
            env=told,
            stdout=log,
            stderr=log,
            cwd=data,
            start_new_session=True,
        )
    try:
        found = Emulator(f"http://127.0.0.1:{port}")
        wait_for(lambda: _answers(f"{found.endpoint}/_ministack/health"), 30)
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - our own emulator
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_for(true: Callable[[], Any], seconds: float = 60) -> Any:
    """What it gave, once that is something."""
    end = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > end:
            raise TimeoutError(true)
        time.sleep(0.05)
    return found


@dataclass
class Execution:
    site: "Site"
    arn: str

    def end(self, seconds: float = 200) -> Mapping[str, Any]:
        """How it ended."""

        def ended() -> Mapping[str, Any] | None:
            told: Mapping[str, Any] = self.site.sfn.describe_execution(executionArn=self.arn)
            return told if told["status"] in _OVER else None

        found: Mapping[str, Any] = wait_for(ended, seconds)
        return found

    def states(self) -> list[str]:
        """Those that it entered, in order."""
        pages = self.site.sfn.get_paginator("get_execution_history").paginate(executionArn=self.arn)
        return [
            event["stateEnteredEventDetails"]["name"]
            for page in pages
            for event in page["events"]
            if event["type"].endswith("StateEntered")
        ]


@dataclass
class Site:
    """One project's pipeline. `extra`: variables of the runner's process, by action."""

    root: Path
    emulator: Emulator
    names: Names
    bucket: str
    machine: str = ""
    queue: str = ""
    extra: dict[str, Mapping[str, str]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)  # by task
    orders: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    logs: list[Path] = field(default_factory=list)
    watchers: list[Thread] = field(default_factory=list)

    @property
    def sfn(self) -> Any:
        return self.emulator.client("stepfunctions")

    def start(self, dataset: str, batch: str, source: str | None = None) -> Execution:
        payload = {"dataset": dataset, "batch": batch, **({"source": source} if source else {})}
        answer = self.sfn.start_execution(stateMachineArn=self.machine, input=json.dumps(payload))
        return Execution(self, answer["executionArn"])

    def notices(self) -> list[Mapping[str, Any]]:
        """What was told since this was last asked."""
        sqs = self.emulator.client("sqs")
        found: list[Mapping[str, Any]] = []
        while messages := sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get(
            "Messages", []
        ):
            for message in messages:
                envelope = json.loads(message["Body"])
                told = json.loads(envelope["Message"])
                found.append({"subject": envelope.get("Subject"), **told})
                sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    def running(self, action: str) -> subprocess.Popen[bytes] | None:
        """The process of a task under way."""
        for arn, process in self.processes.items():
            if self.orders[arn]["action"] == action and process.poll() is None:
                return process
        return None


def make_site(root: Path, control: Emulator, bucket: str) -> Site:
    """Everything that AWS would have of a project, from its definitions."""
    _add_control(root, control)
    settings = (root / "lakewarden.toml").read_text()
    project = settings.partition('project = "')[2].partition('"')[0]
    site = Site(root, control, names(project, "dev"), bucket)
    topic = control.client("sns").create_topic(Name=site.names.topic)["TopicArn"]
    sqs = control.client("sqs")
    site.queue = sqs.create_queue(QueueName=f"{bucket}-notices")["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=site.queue, AttributeNames=["QueueArn"])
    control.client("sns").subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=queue_arn["Attributes"]["QueueArn"]
    )
    arns = _make_functions(site)
    environment = {"LAKEWARDEN_PROJECT": str(root), "LAKEWARDEN_ENV": "dev"}
    ecs = control.client("ecs")
    ecs.create_cluster(clusterName=site.names.cluster)
    ecs.register_task_definition(**runner_task(site.names, site.names.runner, REGION, environment))
    machine = Machine(
        validate_manifest=arns["validate_manifest"],
        copy_raw=arns["copy_raw"],
        notify=arns["notify"],
        cluster=site.names.cluster,
        runner=site.names.runner,
        runner_container=site.names.runner_container,
        subnets=("subnet-1",),
        heartbeat_seconds=HEARTBEAT,
        retry_seconds=1,
        wait_seconds=1,
        waits=1,
    )
    site.machine = site.sfn.create_state_machine(
        name=site.names.pipeline,
        definition=json.dumps(state_machine(machine)),
        roleArn="arn:aws:iam::000000000000:role/pipeline",
    )["stateMachineArn"]
    return site


def _add_control(root: Path, control: Emulator) -> None:
    file = root / ".lakewarden" / "local" / "endpoint.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "control": control.endpoint}))


def _make_functions(site: Site) -> dict[str, str]:
    zipped = site.root / ".lakewarden" / "lambda.zip"
    bundle(site.root, zipped)
    client = site.emulator.client("lambda")
    return {
        function.key: client.create_function(
            FunctionName=getattr(site.names, function.key),
            Runtime="python3.11",
            Role="arn:aws:iam::000000000000:role/pipeline",
            Handler=function.handler,
            Code={"ZipFile": zipped.read_bytes()},
            Timeout=function.timeout,
            MemorySize=function.memory_mib,
            Environment={
                "Variables": {"LAKEWARDEN_PROJECT": str(site.root), "LAKEWARDEN_ENV": "dev"}
            },
        )["FunctionArn"]
        for function in functions()
    }


@contextmanager
def agent(site: Site) -> Iterator[None]:
    """Runs what ECS is asked to run, each task as a process; and does what the emulator does not:
    where a process ended without an answer, the heartbeat that is missing ends the wait."""
    stop = Event()
    thread = Thread(target=_serve, args=(site, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
        for process in site.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        for watcher in site.watchers:
            watcher.join(10)


def _serve(site: Site, stop: Event) -> None:
    ecs = site.emulator.client("ecs")
    while not stop.wait(0.1):
        arns = ecs.list_tasks(cluster=site.names.cluster, family=site.names.runner)["taskArns"]
        for task in _new(site, ecs, arns):
            _begin(site, task)
            thread = Thread(target=_see_to, args=(site, task["taskArn"], stop), daemon=True)
            thread.start()
            site.watchers.append(thread)


def _new(site: Site, ecs: Any, arns: list[str]) -> list[Mapping[str, Any]]:
    unknown = [arn for arn in arns if arn not in site.processes]
    if not unknown:
        return []
    tasks: list[Mapping[str, Any]] = ecs.describe_tasks(cluster=site.names.cluster, tasks=unknown)[
        "tasks"
    ]
    return [task for task in tasks if task["lastStatus"] != "STOPPED"]


def _variables(task: Mapping[str, Any]) -> dict[str, str]:
    (override,) = task["overrides"]["containerOverrides"]
    return {each["name"]: each["value"] for each in override["environment"]}


def _begin(site: Site, task: Mapping[str, Any]) -> None:
    variables = _variables(task)
    order = json.loads(variables["LAKEWARDEN_TASK"])
    log = site.root / f"task-{len(site.logs)}-{order['action']}.log"
    site.logs.append(log)
    site.orders[task["taskArn"]] = order
    site.tokens[task["taskArn"]] = variables["LAKEWARDEN_TASK_TOKEN"]
    with log.open("wb") as out:
        site.processes[task["taskArn"]] = subprocess.Popen(
            [sys.executable, "-m", "lakewarden.stepfunctions.task"],
            env={
                "PATH": os.environ["PATH"],
                "LAKEWARDEN_PROJECT": str(site.root),
                "LAKEWARDEN_ENV": "dev",
                **site.extra.get(order["action"], {}),
                **variables,
            },
            stdout=out,
            stderr=out,
            cwd=site.root,
        )


def _see_to(site: Site, arn: str, stop: Event) -> None:
    process, sfn, ecs = site.processes[arn], site.sfn, site.emulator.client("ecs")
    process.wait()
    if stop.is_set():
        return
    ecs.stop_task(cluster=site.names.cluster, task=arn, reason="ended")
    if process.returncode < 0 and not stop.wait(HEARTBEAT):  # killed: it said nothing
        with suppress(sfn.exceptions.TaskDoesNotExist):
            sfn.send_task_failure(
                taskToken=site.tokens[arn], error="States.HeartbeatTimeout", cause=""
            )
