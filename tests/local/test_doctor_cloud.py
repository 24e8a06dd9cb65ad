"""lakewarden doctor on a local stack with a control plane: what the definitions name is there, and
secrets are where they are referred to."""

from dataclasses import asdict, replace

import pytest

from lakewarden.aws.alarms import names_of
from lakewarden.aws.check import check_identity
from lakewarden.aws.check_control import Expected, check_control, nessie, pipeline
from lakewarden.aws.definitions import names
from lakewarden.aws.secrets import ManagedSecret, Parameter, SecretMissing, Secrets
from tests.stack import CloudStack

VALUE = "hunter2-geheim"


def test_the_control_plane_says_who_we_are(cloud: CloudStack) -> None:
    assert check_identity(cloud.connection).told == "account 000000000000"


def test_what_was_made_is_found_and_what_was_not_is_named(cloud: CloudStack) -> None:
    called = names("dpc", "dev")
    # This stack has no state machine, and so no functions; the rest of the pipeline is made.
    made = [one for one in pipeline(called) if one.kind in ("topic", "cluster", "log group")]
    assert check_control(cloud.connection, made).missing == ()
    missing = check_control(cloud.connection, pipeline(called)).missing
    assert "there is no state machine dpc-pipeline" in missing
    assert f"there is no function {called.copy_raw}" in missing
    assert check_control(cloud.connection, nessie(called)).told == "not installed"
    wrong = replace(called, runner_log_group="/aws/ecs/dpc-dbt")  # a runbook that was not kept
    told = check_control(cloud.connection, pipeline(wrong)).missing
    assert "there is no log group /aws/ecs/dpc-dbt" in told


def test_an_alarm_is_found_by_its_name(cloud: CloudStack) -> None:
    cloud.client("cloudwatch").put_metric_alarm(
        AlarmName="doctor-looks-for-it",
        Namespace="Lakewarden",
        MetricName="Anything",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    looked = [Expected("alarm", "doctor-looks-for-it"), Expected("alarm", "nobody-made-it")]
    assert check_control(cloud.connection, looked).missing == ("there is no alarm nobody-made-it",)


def test_alarms_have_the_names_of_their_definitions() -> None:
    places = {**asdict(names("dpc", "dev")), "project": "dpc", "env": "dev"}
    assert names_of("nessie", places, ["dpc"])[0] == "nessie-health-check-failed"
    told = names_of("pipeline", places, ["claims", "cases"])
    assert {"dpc-pipeline-failed", "dpc-late-delivery-claims", "dpc-late-delivery-cases"} <= set(
        told
    )


def test_secrets_of_the_emulator_are_found(cloud: CloudStack) -> None:
    kept, parameters = cloud.client("secretsmanager"), cloud.client("ssm")
    kept.create_secret(Name="doctor/json", SecretString=f'{{"password": "{VALUE}"}}')
    parameters.put_parameter(Name="/doctor/password", Value=VALUE, Type="SecureString")
    secrets = Secrets(lambda: cloud.connection, {})
    assert secrets.value(ManagedSecret(secretsmanager="doctor/json", key="password")) == VALUE
    assert secrets.value(Parameter(ssm="/doctor/password")) == VALUE
    for missing in (ManagedSecret(secretsmanager="doctor/no"), Parameter(ssm="/doctor/no")):
        with pytest.raises(SecretMissing):
            secrets.value(missing)
