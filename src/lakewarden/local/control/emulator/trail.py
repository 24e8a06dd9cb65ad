"""Stands in for the names of calls in CloudTrail, where a service has them in the request's body.

ministack records a call of IAM, SNS, STS, EC2 or a load balancer as `POST.iam` and the like, so
that nobody finds who made an access key.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs


def mend() -> None:
    from ministack import app

    app._maybe_record_cloudtrail = naming(app._maybe_record_cloudtrail)


def naming(record: Callable[..., None]) -> Callable[..., None]:
    """`record`, told of the action that the body names as if the query did."""

    def record_named(
        service: str,
        method: str,
        path: str,
        headers: Any,
        body: bytes,
        query: Mapping[str, Any],
        *more: Any,
    ) -> None:
        found = action_of(str(headers.get("content-type", "")), body)
        told = {**query, "Action": [found]} if found else query
        record(service, method, path, headers, body, told, *more)

    return record_named


def action_of(kind: str, body: bytes) -> str | None:
    """The `Action` of a form; None where it is none, or has none."""
    if "form" not in kind:
        return None
    return next(iter(parse_qs(body.decode("utf-8", errors="replace")).get("Action", [])), None)
