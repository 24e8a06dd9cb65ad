"""The alarms that definitions/alarms.json describes."""

from dataclasses import asdict

import botocore.session
import pytest
from botocore.validate import ParamValidator

from lakewarden.aws.alarms import TAG, Alarm, AlarmIncomplete, Seen, alarms, filled, procedure_for
from lakewarden.aws.definitions import names
from lakewarden.stepfunctions import arrivals

PLACES = {
    **asdict(names("dpc", "prod")),
    "project": "dpc",
    "env": "prod",
    "dataset": "claims",
    "pipeline_arn": "arn:aws:states:us-east-1:000000000000:stateMachine:dpc-pipeline",
    "target_group": "targetgroup/dpc-prod-nessie/1",
    "load_balancer": "app/dpc-prod-nessie/2",
    "dagster_stopped_rule": "dpc-prod-dagster-stopped",
}


def test_every_alarm_of_the_runbooks_is_there() -> None:
    found = [filled(alarm, PLACES, [])["AlarmName"] for alarm in alarms()]
    assert len(set(found)) == len(found)
    assert {
        "nessie-health-check-failed",
        "nessie-cpu-high",
        "dagster-task-stopped",
        "nessie-read-throttled",
        "nessie-write-throttled",
        "dpc-pipeline-failed",
        "dpc-pipeline-delay",
        "dpc-late-delivery-claims",
        "dpc-copy-errors",
        "dpc-redshift-capacity",
    } == set(found)


@pytest.mark.parametrize("alarm", alarms(), ids=lambda alarm: str(alarm.name))
def test_cloudwatch_would_take_it(alarm: Alarm) -> None:
    model = botocore.session.get_session().get_service_model("cloudwatch")
    shape = model.operation_model("PutMetricAlarm").input_shape
    assert shape is not None
    report = ParamValidator().validate(filled(alarm, PLACES, ["arn:aws:sns:x:1:t"]), shape)
    assert not report.has_errors(), report.generate_report()


@pytest.mark.parametrize("alarm", alarms(), ids=lambda alarm: str(alarm.name))
def test_each_is_like_itself(alarm: Alarm) -> None:
    told = filled(alarm, PLACES, [])
    assert procedure_for(Seen(str(told["AlarmName"]))) == alarm.procedure


def test_a_name_that_is_not_known_is_told() -> None:
    with pytest.raises(AlarmIncomplete, match="pipeline"):
        filled(next(each for each in alarms() if each.part == "pipeline"), {}, [])


@pytest.mark.parametrize(
    ("seen", "procedure"),
    [
        (Seen("prod Nessie UNHEALTHY hosts"), "nessie-unreachable"),
        (Seen("x", metric="UnHealthyHostCount"), "nessie-unreachable"),
        (Seen("x", "CPUUtilization", ("prod", "prod-nessie")), "nessie-cpu-high"),
        (Seen("x", "CPUUtilization", ("prod", "prod-web")), None),
        (Seen("our-dagster-oom"), "dagster-task-stopped"),
        (Seen("x", tags=((TAG, "late-delivery"),)), "late-delivery"),
        (Seen("nessie-cpu", tags=(("team", "a"), (TAG, "other"))), "other"),
        (Seen("billing"), None),
    ],
)
def test_another_alarm_is_mapped(seen: Seen, procedure: str | None) -> None:
    assert procedure_for(seen) == procedure


def test_what_the_check_counts_is_what_the_alarm_looks_at() -> None:
    late = next(alarm for alarm in alarms() if alarm.metric == arrivals.METRIC)
    asked, told = filled(late, PLACES, []), arrivals.datum("dpc", "prod", "claims", 1)
    assert late.namespace == arrivals.NAMESPACE
    assert asked["Dimensions"] == told["Dimensions"]
