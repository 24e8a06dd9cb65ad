"""What stands in lakewarden/definitions, as the program reads it."""

import json

import pytest

from lakewarden.aws.definitions import KEYS, NameInvalid, definition, names


def test_the_names_of_dpc_are_those_of_its_runbook() -> None:
    found = names("dpc", "prod")
    assert found.pipeline == "dpc-pipeline"
    assert found.topic == "dpc-learning-alerts"
    assert found.validate_manifest == "dpc-validate-manifest"
    assert found.copy_raw == "dpc-copy-raw"
    assert found.notify == "dpc-notify"
    assert found.runner == "dpc-dbt-runner"
    assert found.runner_container == "dbt-runner"
    assert found.runner_log_group == "/aws/ecs/dpc-dbt-runner"
    assert found.function_log_group(found.copy_raw) == "/aws/lambda/dpc-copy-raw"


def test_the_names_of_the_lakehouse_are_those_of_its_runbook() -> None:
    found = names("myproject", "prod")
    assert found.cluster == "myproject-prod"
    assert found.nessie_service == found.nessie_target_group == "myproject-prod-nessie"
    assert found.nessie_log_group == "/ecs/myproject-prod-nessie"
    assert found.dagster_service == "myproject-prod-dagster"
    assert found.dagster_log_group == "/ecs/myproject-prod-dagster"


def test_the_file_and_the_class_have_the_same_names() -> None:
    assert tuple(json.loads(definition("names.json"))["names"]) == KEYS


def test_an_override_is_a_template_too_and_others_follow_it() -> None:
    found = names("dpc", "prod", {"nessie_service": "catalog-{env}"})
    assert found.nessie_service == "catalog-prod"
    assert found.nessie_log_group == "/ecs/catalog-prod"


@pytest.mark.parametrize(
    "template",
    ["{nobody}", "{pipeline}", "{topic}-x", "", "a b", "{project.__class__}", "x\ny", "-x"],
)
def test_a_name_that_cannot_be_is_refused(template: str) -> None:
    with pytest.raises(NameInvalid):
        names("dpc", "prod", {"pipeline": template, "topic": "{pipeline}"})


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ({"copy_raw": "x" * 65}, "64"),
        ({"pipeline": "x" * 81}, "80"),
        ({"pipeline": "a.b"}, "80"),
        ({"topic": "a/b"}, "256"),
    ],
)
def test_a_name_that_aws_would_not_take_is_told_before_it_is_used(
    override: dict[str, str], hint: str
) -> None:
    with pytest.raises(NameInvalid) as raised:
        names("dpc", "prod", override)
    assert hint in (raised.value.hint or "")
