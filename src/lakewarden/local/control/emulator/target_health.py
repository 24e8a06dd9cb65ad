"""Stands in for a load balancer's health checks: each target is really asked.

ministack calls every registered target healthy. The rules here: "Health checks for Application
Load Balancer target groups": so many answers in a row make a target healthy, so many failures
unhealthy, at the group's own interval.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from typing import Any
from xml.sax.saxutils import escape

_LOOK_SECONDS = 1.0
_RECORD_SECONDS = 4.0


@dataclass(frozen=True)
class Health:
    """What is known of a target."""

    state: str = "initial"  # initial | healthy | unhealthy
    in_a_row: int = 0  # answers (positive) or failures (negative)
    asked: float = float("-inf")  # monotonic seconds


@dataclass(frozen=True)
class Check:
    path: str
    port: int
    seconds: float  # of patience
    interval: float
    healthy: int  # answers in a row
    unhealthy: int  # failures in a row


def check_of(group: Mapping[str, Any], port: int) -> Check:
    named = str(group.get("HealthCheckPort", "traffic-port"))
    return Check(
        path=str(group.get("HealthCheckPath") or "/"),
        port=int(named) if named.isdigit() else port,
        seconds=float(group.get("HealthCheckTimeoutSeconds") or 5),
        interval=float(group.get("HealthCheckIntervalSeconds") or 30),
        healthy=int(group.get("HealthyThresholdCount") or 5),
        unhealthy=int(group.get("UnhealthyThresholdCount") or 2),
    )


def after(health: Health, check: Check, *, answered: bool, now: float) -> Health:
    """What is known after one more look."""
    row = max(health.in_a_row, 0) + 1 if answered else min(health.in_a_row, 0) - 1
    state = health.state
    if row >= check.healthy or (answered and state == "initial"):  # the first answer will do
        state = "healthy"
    elif -row >= check.unhealthy:
        state = "unhealthy"
    return Health(state, row, now)


def ask(host: str, check: Check) -> bool:
    """Whether a target on this machine answers with success; others are never asked."""
    with suppress(ValueError):
        if ip_address(host).is_loopback:
            connection = HTTPConnection(host, check.port, timeout=check.seconds)
            try:
                connection.request("GET", check.path)
                return 200 <= connection.getresponse().status < 400
            except (OSError, HTTPException):
                return False
            finally:
                connection.close()
    return False


def mend() -> None:
    from ministack.core.responses import request_scope
    from ministack.services import alb, cloudwatch

    known: dict[tuple[str, str, int], Health] = {}

    def look() -> None:
        recorded = 0.0
        while True:
            time.sleep(_LOOK_SECONDS)
            due = time.monotonic() - recorded >= _RECORD_SECONDS
            recorded = time.monotonic() if due else recorded
            for (account, region, arn), group in list(alb._tgs.all_items()):
                with request_scope(account, region):
                    targets = list(_targets(alb, arn, group))
                    for host, port in targets:
                        _look_at(known, arn, host, check_of(group, port), port)
                    if due:
                        _record(cloudwatch, known, arn, group, targets)

    def describe(params: Any) -> Any:
        arn = alb._p(params, "TargetGroupArn")
        if arn not in alb._tgs:
            return plain(params)
        wanted = {each["Id"] for each in alb._parse_targets_param(params)}
        members = [
            _member(host, port, known.get((arn, host, port), Health()))
            for host, port in _targets(alb, arn, alb._tgs[arn])
            if not wanted or host in wanted
        ]
        body = f"<TargetHealthDescriptions>{''.join(members)}</TargetHealthDescriptions>"
        return alb._xml(200, "DescribeTargetHealth", body)

    plain = alb._describe_target_health
    for name, handler in list(alb._ACTION_MAP.items()):
        if handler is plain:
            alb._ACTION_MAP[name] = describe
    threading.Thread(target=look, name="target health", daemon=True).start()


def _targets(alb: Any, arn: str, group: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for target in alb._targets.get(arn) or []:
        yield str(target["Id"]), int(target.get("Port") or group.get("Port") or 80)


def _look_at(
    known: dict[tuple[str, str, int], Health], arn: str, host: str, check: Check, port: int
) -> None:
    health, now = known.get((arn, host, port), Health()), time.monotonic()
    if now - health.asked >= check.interval:
        known[arn, host, port] = after(health, check, answered=ask(host, check), now=now)


def _record(
    cloudwatch: Any,
    known: Mapping[tuple[str, str, int], Health],
    arn: str,
    group: Mapping[str, Any],
    targets: list[tuple[str, int]],
) -> None:
    """HealthyHostCount and UnHealthyHostCount, for each load balancer of the group."""
    states = [known.get((arn, host, port), Health()).state for host, port in targets]
    counts = {
        "HealthyHostCount": states.count("healthy"),
        "UnHealthyHostCount": states.count("unhealthy"),
    }
    for balancer in group.get("LoadBalancerArns") or []:
        named = {
            "TargetGroup": arn.rsplit(":", 1)[-1],
            "LoadBalancer": balancer.partition(":loadbalancer/")[2],
        }
        for name, count in counts.items():
            cloudwatch.record_metric("AWS/ApplicationELB", name, count, "Count", named)


def _member(host: str, port: int, health: Health) -> str:
    reasons = {
        "initial": "<Reason>Elb.InitialHealthChecking</Reason>"
        "<Description>Initial health checks in progress</Description>",
        "unhealthy": "<Reason>Target.FailedHealthChecks</Reason>"
        "<Description>Health checks failed</Description>",
    }
    told = f"<State>{health.state}</State>{reasons.get(health.state, '')}"
    target = f"<Target><Id>{escape(host)}</Id><Port>{port}</Port></Target>"
    check = f"<HealthCheckPort>{port}</HealthCheckPort>"
    return f"<member>{target}{check}<TargetHealth>{told}</TargetHealth></member>"
