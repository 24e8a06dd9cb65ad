"""Least privilege, as data: every statement says why, and what the code calls is allowed."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

import lakewarden
from tests.policies import PLACES, policy, policy_names, text_of

PACKAGE = Path(lakewarden.__file__).parent

# AWS knows no resource for these (or none before what it lists): Service Authorization Reference.
WITHOUT_RESOURCE = {
    "cloudtrail:LookupEvents",
    "cloudwatch:DescribeAlarms",
    "cloudwatch:DescribeAlarmHistory",
    "cloudwatch:GetMetricData",
    "cloudwatch:PutMetricData",
    "ecs:DescribeTaskDefinition",
    "ecs:ListTasks",
    "elasticloadbalancing:DescribeLoadBalancers",
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeTargetHealth",
    "logs:DescribeLogGroups",
}
# Where IAM's name of a service is not botocore's.
SERVICES = {"states": "stepfunctions", "elasticloadbalancing": "elbv2"}
# S3 has actions that are no operations.
OF_S3 = {
    "HeadObject": {"s3:GetObject", "s3:GetObjectVersion"},
    "GetObject": {"s3:GetObject", "s3:GetObjectVersion"},
    "HeadBucket": {"s3:ListBucket"},
    "ListObjectsV2": {"s3:ListBucket"},
    "ListObjectVersions": {"s3:ListBucketVersions"},
    "PutObject": {"s3:PutObject"},
    "DeleteObject": {"s3:DeleteObject"},
    "GetBucketVersioning": {"s3:GetBucketVersioning"},
    "GetPublicAccessBlock": {"s3:GetBucketPublicAccessBlock"},
    "GetObjectLockConfiguration": {"s3:GetBucketObjectLockConfiguration"},
}
# What one call of boto3's own helpers comes to.
MANAGED = {
    "upload_fileobj": {"s3:PutObject", "s3:AbortMultipartUpload"},
    "copy": {"s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTagging", "s3:PutObject"},
}
# By whom each module's calls are made; together their policies have to allow them. STS needs none.
CALLERS = {
    "adoption/landing.py": ["reader"],  # a survey only reads
    "aws/s3.py": ["runner", "deliverer", "copy-raw"],
    "aws/secrets.py": ["runner"],
    "aws/topics.py": ["dagster", "notify"],
    "aws/check.py": ["operator", "runner"],
    "aws/check_control.py": ["operator"],
    "stepfunctions/arrivals.py": ["check-deliveries"],
    "stepfunctions/containers.py": ["runner"],
    "stepfunctions/line.py": ["runner"],
}
ON_THIS_MACHINE = ("local/", "faults/")  # keys of the local stack, which may do everything


@pytest.mark.parametrize("name", policy_names())
def test_every_statement_says_why_and_asks_for_no_more(name: str) -> None:
    statements = policy(name)
    assert len({one.sid for one in statements}) == len(statements)
    for one in statements:
        assert re.fullmatch(r"([A-Z][a-z]*){3,}", one.sid), "a Sid is a short sentence"
        assert not [action for action in one.actions if "*" in action]
        assert not [action for action in one.actions if not re.fullmatch(r"[a-z0-9-]+:\w+", action)]
        if "*" in one.resources:
            assert set(one.actions) <= WITHOUT_RESOURCE
            assert one.resources == ("*",)
            if {"ecs:ListTasks", "cloudwatch:PutMetricData"} & set(one.actions):
                assert one.conditioned or name == "operator"


@pytest.mark.parametrize("name", policy_names())
def test_every_place_is_one_that_is_filled_in(name: str) -> None:
    places = set(re.findall(r"\$\{([^}]*)\}", text_of(name)))
    assert places <= set(PLACES)
    assert all(one["Effect"] == "Allow" for one in json.loads(text_of(name))["Statement"])
    assert len(re.sub(r"\s", "", text_of(name))) < 6144, "AWS's limit of a managed policy"


@pytest.mark.parametrize("name", policy_names())
def test_every_action_exists(name: str) -> None:
    session = botocore.session.Session()
    for action in {action for one in policy(name) for action in one.actions}:
        service, _, operation = action.partition(":")
        if service == "s3":
            known = set().union(*OF_S3.values(), *MANAGED.values(), _MORE_OF_S3)
            assert action in known
        else:
            model = session.get_service_model(SERVICES.get(service, service))
            assert operation in model.operation_names


_MORE_OF_S3 = {
    "s3:GetBucketLocation",
    "s3:GetBucketPolicy",
    "s3:GetLifecycleConfiguration",
    "s3:GetObjectVersionTagging",
    "s3:PutObjectTagging",
}


def test_nobody_who_only_looks_may_change_anything() -> None:
    for name in ("reader", "operator"):
        verbs = {action.partition(":")[2] for one in policy(name) for action in one.actions}
        looks = ("Get", "List", "Describe", "Lookup", "Filter", "Simulate", "Decrypt")
        assert [verb for verb in verbs if not verb.startswith(looks)] == []


def test_rows_are_for_those_who_work_with_them() -> None:
    """Deliveries, tables and the quarantine hold rows."""
    for name in ("operator", "notify"):
        places = [
            place
            for one in policy(name)
            if "s3:GetObject" in one.actions
            for place in one.resources
        ]
        assert not [p for p in places if "raw/" in p or "quarantine" in p or p.endswith("lake/*")]
        assert not [place for place in places if place.endswith("warehouse/*")]


# ── what the code calls ─────────────────────────────────────────────────────────────────────────


def called(path: Path) -> Iterator[tuple[str, str]]:
    """(service, method) of every call on a client in a module: on something whose name ends with
    client, or is the service's. Which services it speaks to is told by the clients that it asks
    for, and by the stubs that it imports."""
    tree = ast.parse(path.read_bytes())
    services = set(_services(tree, path.read_text("utf-8")))
    services.discard("sts")  # who we are may always be asked
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        receiver = _name(call.func.value)
        if not (receiver.lower().endswith("client") or receiver in services):
            continue
        method = call.func.attr
        if method == "get_paginator" and isinstance(call.args[0], ast.Constant):
            method = str(call.args[0].value)
        yield from ((service, method) for service in services if method in _methods(service))


def _services(tree: ast.AST, text: str) -> Iterator[str]:
    if "s3_client" in text:
        yield "s3"
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if module.startswith("mypy_boto3_"):
                yield module.partition(".")[0].removeprefix("mypy_boto3_")
            case ast.Call(func=func, args=args) if _name(func) in ("control_client", "client"):
                for one in args:
                    if isinstance(one, ast.Constant) and isinstance(one.value, str):
                        yield one.value


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(attr=name):
            return name
        case ast.Call(func=inner):
            return _name(inner)
    return ""


@cache
def _methods(service: str) -> dict[str, str | None]:
    model = botocore.session.Session().get_service_model(service)
    own: dict[str, str | None] = {xform_name(name): name for name in model.operation_names}
    return own | (dict.fromkeys(MANAGED) if service == "s3" else {})


def modules() -> list[str]:
    found = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")]
    return sorted(name for name in found if not name.startswith(ON_THIS_MACHINE))


CALLING = [name for name in modules() if any(called(PACKAGE / name))]


def test_every_module_that_calls_aws_says_for_whom() -> None:
    assert set(CALLING) <= set(CALLERS)


@pytest.mark.parametrize("module", CALLING)
def test_what_is_called_is_allowed_to_who_calls(module: str) -> None:
    allowed = {action for name in CALLERS[module] for one in policy(name) for action in one.actions}
    prefixes = {service: prefix for prefix, service in SERVICES.items()}
    for service, method in called(PACKAGE / module):
        if method in MANAGED:
            needed = MANAGED[method]
        else:
            operation = _methods(service)[method] or ""
            own = {f"{prefixes.get(service, service)}:{operation}"}
            needed = OF_S3[operation] if service == "s3" else own
        assert needed <= allowed, f"{service}.{method}"
