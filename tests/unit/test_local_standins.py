"""What the stand-ins decide: alarms, target health, heartbeats, shares."""

import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewarden.local.control.emulator import (
    alarm_messages,
    execution_metrics,
    saving,
    task_events,
    token_waits,
    trail,
)
from lakewarden.local.control.emulator.alarm_states import (
    MINIMUM,
    Rule,
    change_of,
    reason_of,
    rule_of,
    state_of,
    values_of,
)
from lakewarden.local.control.emulator.target_health import Check, Health, after, ask, check_of
from lakewarden.local.provision import has, hastened, heard_here
from lakewarden.local.standins.arrivals import detail_of
from lakewarden.local.standins.service_metrics import Used, shares_of
from lakewarden.local.standins.tasks import Task


def rule(periods: int = 1, breaching: int = 1, missing: str = "missing") -> Rule:
    return Rule(10, "GreaterThanThreshold", 60, periods, breaching, missing)


@pytest.mark.parametrize(
    ("asked", "values", "state"),
    [
        (rule(), [11.0], "ALARM"),
        (rule(), [10.0], "OK"),
        (rule(), [None], "INSUFFICIENT_DATA"),
        (rule(missing="notBreaching"), [None], "OK"),
        (rule(missing="breaching"), [None], "ALARM"),
        (rule(missing="ignore"), [None], None),
        (rule(3, 3), [11.0, 11.0, None], "OK"),
        (rule(3, 3), [11.0, 11.0, 11.0], "ALARM"),
        (rule(3, 2), [11.0, None, 11.0], "ALARM"),
        (rule(3, 3, "breaching"), [11.0, None, 11.0], "ALARM"),
        (rule(2, 2), [11.0, 1.0], "OK"),
    ],
)
def test_so_many_of_the_last_periods_make_an_alarm(
    asked: Rule, values: Sequence[float | None], state: str | None
) -> None:
    assert state_of(asked, values) == state


def test_each_period_has_its_own_statistic() -> None:
    points = [(999.0, 1), (995.0, 2), (939.0, 4), (700.0, 8), (1001.0, 16)]
    found = values_of(points, rule(3), 1000.0, lambda bucket: float(sum(bucket)))
    assert found == [3.0, 4.0, None]  # what lies in the future, or too far back, is not seen


@given(st.lists(st.floats(0, 999), max_size=30), st.integers(1, 9))
def test_no_point_is_counted_twice(moments: list[float], periods: int) -> None:
    points = [(moment, 1) for moment in moments]
    found = values_of(points, rule(periods), 1000.0, lambda bucket: float(len(bucket)))
    seen = sum(value for value in found if value is not None)
    assert seen == sum(1000.0 - moment < 60 * periods for moment in moments)


def test_alarms_run_faster_here() -> None:
    alarm = {
        "Threshold": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "Period": 900,
        "EvaluationPeriods": 2,
        "TreatMissingData": "notBreaching",
    }
    assert rule_of(alarm, 30) == Rule(1, "GreaterThanThreshold", 30, 2, 2, "notBreaching")
    assert rule_of({**alarm, "Period": 60}, 30).period == MINIMUM
    assert rule_of(alarm, 1).period == 900


def test_a_reason_reads_as_from_cloudwatch() -> None:
    assert reason_of(rule(2, 2), [11.0, 12.0], "ALARM").startswith(
        "Threshold Crossed: 2 out of the last 2 datapoints [11.0, 12.0] were"
    )
    assert "no datapoints" in reason_of(rule(), [None], "INSUFFICIENT_DATA")


def test_an_alarms_event_names_its_metric() -> None:
    alarm = {"Namespace": "N", "MetricName": "M", "Dimensions": [{"Name": "a", "Value": "b"}]}
    entry = change_of(alarm, "name", "OK", "ALARM", "why")
    assert entry["Source"] == "aws.cloudwatch"
    assert '"dimensions": {"a": "b"}' in entry["Detail"]


CHECK = Check("/", 80, 1, 5, healthy=3, unhealthy=2)


def look(*answers: bool) -> list[str]:
    health, states = Health(), []
    for number, answered in enumerate(answers):
        health = after(health, CHECK, answered=answered, now=number)
        states.append(health.state)
    return states


def test_a_target_changes_after_so_many_answers_in_a_row() -> None:
    assert look(True) == ["healthy"]
    assert look(False, False) == ["initial", "unhealthy"]
    assert look(True, False, True, False, False) == ["healthy"] * 4 + ["unhealthy"]
    assert look(True, False, False, True, True, True)[2:] == ["unhealthy"] * 3 + ["healthy"]


def test_only_this_machine_is_asked() -> None:
    assert not ask("192.0.2.1", CHECK)
    assert not ask("example.com", CHECK)


def test_a_check_is_as_the_group_has_it() -> None:
    group = {"HealthCheckPath": "/x", "HealthCheckPort": "traffic-port", "HealthyThresholdCount": 2}
    assert check_of(group, 8080) == Check("/x", 8080, 5, 30, 2, 2)
    assert check_of({"HealthCheckPort": "99"}, 8080).port == 99


class Wait(dict[str, Any]):
    """A wait for a token, as ministack keeps it."""

    def __init__(self) -> None:
        super().__init__(event=threading.Event(), result=None, error=None, heartbeat=None)


def test_a_wait_without_heartbeats_fails_and_one_without_the_setting_does_not() -> None:
    tokens: dict[str, Wait] = {}

    def invoke(resource: str, given: object, token: str, state: Mapping[str, object]) -> object:
        tokens[token] = wait = Wait()
        wait["event"].wait(2)
        return wait["error"]

    watched = token_waits.Waits(tokens).watching(invoke)
    told = watched("", {}, "t", {"HeartbeatSeconds": 0.3})
    assert told["Error"] == "States.HeartbeatTimeout"
    assert watched("", {}, "u", {}) is None


def test_an_execution_that_is_stopped_waits_no_longer_and_others_do() -> None:
    tokens: dict[str, Wait] = {}
    stopped, other = {"status": "RUNNING"}, {"status": "RUNNING"}
    waits = token_waits.Waits(tokens)
    stop = waits.stopping(lambda _: stopped.update(status="ABORTED"))

    def invoke(resource: str, given: object, token: str, state: object) -> object:
        tokens[token] = Wait()
        if token == "other":
            execute({}, "stopped", stopped, {})
        else:
            stop({})
        return tokens[token]["error"]

    watched = waits.watching(invoke)
    execute = waits.noting(lambda state, token, *_: watched("", {}, token, state))
    assert execute({}, "other", other, {}) is None
    assert tokens["stopped"]["error"]["Error"] == "States.Timeout"
    assert tokens["stopped"]["event"].is_set()


def test_an_execution_that_is_over_does_not_fail_any_more() -> None:
    failed: list[str] = []
    fail = token_waits.unless_over(lambda _, error, __: failed.append(error))
    fail({"status": "ABORTED"}, "States.Timeout", "")
    fail({"status": "RUNNING"}, "NotExported", "")
    assert failed == ["NotExported"]


def test_the_last_save_waits_for_ours_and_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both write the same drafts. A ministack that is asked to end amid a save of ours."""
    done: list[str] = []
    ours_began, last_began = threading.Event(), threading.Event()

    def save_all(services: str) -> None:
        done.append(f"{services} begins")
        if services == "last":
            last_began.set()
        else:
            ours_began.set()
            last_began.wait(0.3)  # so long it could begin, if it did not wait
        done.append(f"{services} ends")

    app, persistence, core = (ModuleType(name) for name in ("app", "persistence", "core"))
    persistence.__dict__.update(save_all=save_all, logger=logging.getLogger("persistence"))
    app.__dict__.update(
        save_all=save_all,
        _build_persistence_save_dict=lambda: "ours",
        _load_persisted_state=lambda: None,
    )
    package = ModuleType("ministack")
    package.__dict__.update(app=app)
    core.__dict__.update(persistence=persistence)
    monkeypatch.setitem(sys.modules, "ministack", package)
    monkeypatch.setitem(sys.modules, "ministack.core", core)
    monkeypatch.setattr(saving, "_SECONDS", 0.01)
    saving.mend()
    [saver] = [each for each in threading.enumerate() if each.name == "saving"]
    app._load_persisted_state()
    assert ours_began.wait(10)
    app.save_all("last")
    assert done[-4:] == ["ours begins", "ours ends", "last begins", "last ends"]
    saver.join(10)
    assert not saver.is_alive()


def test_executions_are_counted_once_by_how_they_ended() -> None:
    emitted: list[object] = []
    recorded: list[object] = []

    def record(*metric: object) -> None:
        recorded.append(metric[:3])

    emit = execution_metrics.counting(emitted.append, record, lambda moment: moment)
    emit({"status": "RUNNING", "stateMachineArn": "m", "startDate": 1})
    emit({"status": "FAILED", "stateMachineArn": "m", "startDate": 1, "stopDate": 5})
    assert recorded == [
        ("AWS/States", "ExecutionsStarted", 1),
        ("AWS/States", "ExecutionsFailed", 1),
        ("AWS/States", "ExecutionTime", 4),
    ]
    assert len(emitted) == 2


def test_executions_that_a_restart_ends_are_known_from_what_was_saved() -> None:
    class Saved:
        def all_items(self) -> list[tuple[tuple[str, str, str], dict[str, object]]]:
            return [
                (("0", "eu", "a"), {"status": "RUNNING"}),
                (("0", "eu", "b"), {"status": "FAILED", "error": "States.ServiceRestart"}),
                (("0", "eu", "c"), {"status": "RUNNING", "sync": True}),  # counted by nobody
            ]

    assert list(execution_metrics.running({"executions": Saved()})) == [("0", "eu", "a")]
    assert list(execution_metrics.running(None)) == []


def test_memory_is_told_as_the_reason_even_where_nothing_can_be_asked() -> None:
    task = {"_docker_ids": ["gone", "killed"], "containers": [{}, {}]}

    def inspect(container: str) -> Mapping[str, Any]:
        if container == "gone":
            raise KeyError(container)
        return {"OOMKilled": True}

    told: list[Mapping[str, Any]] = []
    mark = task_events.explaining(task_events.telling(lambda *_: True, told.append), inspect)
    assert mark("arn", task)
    assert task["containers"] == [{}, {"reason": task_events.OUT_OF_MEMORY}]
    assert told == [task]
    assert not task_events.telling(lambda *_: False, told.append)("arn", task)
    assert len(told) == 1


def test_shares_are_of_what_is_reserved() -> None:
    task = Task("cluster", "service", cpu=512, memory=1000)
    assert shares_of(task, Used(1, 0, 10), Used(2, 250, 12)) == (100.0, 25.0)
    assert shares_of(task, Used(9, 0, 10), Used(2, 0, 12))[0] == 0.0  # a child ended


def test_an_arrival_reads_as_from_s3() -> None:
    told = detail_of("b", "k", '"abc" 2026-01-01T00:00:00+00:00 12')
    when = "202601010000000000"
    assert told["object"] == {"key": "k", "size": 12, "etag": "abc", "sequencer": when}


def test_rules_about_s3_hear_the_stand_in_too() -> None:
    assert heard_here({"source": ["aws.s3"]})["source"] == ["aws.s3", "lakewarden.rehearsal"]
    assert heard_here({"source": ["aws.ecs"]}) == {"source": ["aws.ecs"]}


def test_what_is_wanted_is_there_when_aws_added_more() -> None:
    assert has({"a": [{"b": 1, "c": 2}], "d": 3}, {"a": [{"b": 1}]})
    assert not has({"a": [{"b": 1}, {}]}, {"a": [{"b": 1}]})
    assert not has({"a": 1}, {"a": 2})


@pytest.mark.parametrize(
    ("schedule", "here"),
    [
        ("rate(15 minutes)", "rate(1 minute)"),
        ("rate(1 minute)", "rate(1 minute)"),
        ("rate(90 minutes)", "rate(3 minutes)"),
        ("rate(1 hour)", "rate(1 hour)"),
        ("cron(0 18 * * ? *)", "cron(0 18 * * ? *)"),
    ],
)
def test_what_comes_every_so_many_minutes_comes_faster_here(schedule: str, here: str) -> None:
    assert hastened(schedule) == here


def test_a_topic_is_told_of_an_alarm_as_cloudwatch_tells_it() -> None:
    arn = "arn:aws:cloudwatch:us-east-1:000000000000:alarm:high"
    alarm = {
        "AlarmName": "high",
        "AlarmArn": arn,
        "AlarmDescription": "Too much.",
        "AlarmConfigurationUpdatedTimestamp": 1,
        "MetricName": "CPUUtilization",
        "Namespace": "AWS/ECS",
        "Statistic": "Average",
        "Dimensions": [{"Name": "ServiceName", "Value": "nessie"}],
        "Period": 300,
        "EvaluationPeriods": 3,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 70.0,
        "AlarmActions": ["a topic"],
        "TreatMissingData": "ignore",
    }
    at = datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)
    region = "US East (N. Virginia)"
    told = alarm_messages.message_of(alarm, "000000000000", region, "OK", "ALARM", "why", at)
    assert told == {
        "AlarmName": "high",
        "AlarmDescription": "Too much.",
        "AWSAccountId": "000000000000",
        "AlarmConfigurationUpdatedTimestamp": "1970-01-01T00:00:01.000+0000",
        "NewStateValue": "ALARM",
        "NewStateReason": "why",
        "StateChangeTime": "2026-01-02T03:04:05.678+0000",
        "Region": region,
        "AlarmArn": arn,
        "OldStateValue": "OK",
        "OKActions": [],
        "AlarmActions": ["a topic"],
        "InsufficientDataActions": [],
        "Trigger": {
            "MetricName": "CPUUtilization",
            "Namespace": "AWS/ECS",
            "StatisticType": "Statistic",
            "Statistic": "AVERAGE",
            "Unit": None,
            "Dimensions": [{"value": "nessie", "name": "ServiceName"}],
            "Period": 300,
            "EvaluationPeriods": 3,
            "DatapointsToAlarm": 3,
            "ComparisonOperator": "GreaterThanThreshold",
            "Threshold": 70.0,
            "TreatMissingData": "ignore",
            "EvaluateLowSampleCountPercentile": "",
        },
    }
    assert alarm_messages.name_of("us-east-1") == region
    assert alarm_messages.name_of("nowhere-1") == "nowhere-1"
    subject = alarm_messages.subject_of({"AlarmName": "x" * 200}, "us-east-1", "ALARM")
    assert len(subject) == 100


@pytest.mark.parametrize(
    ("kind", "body", "action"),
    [
        (
            "application/x-www-form-urlencoded; charset=utf-8",
            b"Action=CreateUser&U=a",
            "CreateUser",
        ),
        ("application/x-www-form-urlencoded", b"UserName=a", None),
        ("application/x-www-form-urlencoded", b"\xff\x00=", None),
        ("application/x-amz-json-1.1", b'{"Action": "X"}', None),
        ("", b"Action=CreateUser", None),
    ],
)
def test_a_call_is_named_by_the_action_in_its_form(
    kind: str, body: bytes, action: str | None
) -> None:
    seen: list[Mapping[str, Any]] = []

    def record(*given: Any) -> None:
        seen.append(given[5])

    trail.naming(record)("iam", "POST", "/", {"content-type": kind}, body, {"a": ["1"]}, "id", "r")
    assert seen == [{"a": ["1"], **({"Action": [action]} if action else {})}]
