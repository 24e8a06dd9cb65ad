"""The pipeline of a project for its local stack: zips, state machine and rules from definitions.

Beside `cli/local.py`, because it needs both the stack and the pipeline, which are strangers.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from lakewarden.aws.definitions import Machine, functions, runner_task, start_rules, state_machine

if TYPE_CHECKING:
    from lakewarden.aws.clients import Connection
    from lakewarden.local.provision import Pipeline
    from lakewarden.wiring import Project

HEARTBEAT_SECONDS = 30  # of the runner; a person who rehearses does not wait five minutes
RETRY_SECONDS = 2
WAIT_SECONDS = 5


def local_pipeline(
    project: "Project", landings: tuple[str, ...], *, heartbeat: int = HEARTBEAT_SECONDS
) -> "Callable[[Connection], Pipeline]":
    """What makes the pipeline, once it is known where the stack answers. The functions' zip is
    made anew each time, of this Python's own packages, which are those that run it here."""
    from lakewarden.local.provision import Function, Pipeline, Rule
    from lakewarden.stepfunctions.bundle import bundle

    called, region = project.names, project.env.region

    def made(connection: "Connection") -> "Pipeline":
        zipped = project.root / ".lakewarden" / "local" / "functions.zip"
        bundle(project.root, zipped)
        seen = {"LAKEWARDEN_PROJECT": str(project.root), "LAKEWARDEN_ENV": project.env_name}
        each = {function.key: str(getattr(called, function.key)) for function in functions()}
        machine = Machine(
            validate_manifest=each["validate_manifest"],
            copy_raw=each["copy_raw"],
            notify=each["notify"],
            cluster=called.cluster,
            runner=called.runner,
            runner_container=called.runner_container,
            subnets=("subnet-00000000000000001",),
            heartbeat_seconds=heartbeat,
            retry_seconds=RETRY_SECONDS,
            wait_seconds=WAIT_SECONDS,
        )
        return Pipeline(
            definition=json.dumps(state_machine(machine)),
            functions=tuple(
                Function(
                    name=each[function.key],
                    zip=zipped,
                    handler=function.handler,
                    environment=seen,
                    timeout=function.timeout,
                    memory=function.memory_mib,
                )
                for function in functions()
            ),
            runner=runner_task(called, called.runner, region, {}),
            rules=tuple(
                Rule(
                    name=rule["name"],
                    target=rule["target"],
                    pattern=rule.get("pattern"),
                    schedule=rule.get("schedule"),
                    input=rule.get("input"),
                )
                for rule in start_rules(called, project.env.bucket, landings)
            ),
        )

    return made
