"""What the people on call are told. Pure.

A message is one JSON object. It has names, codes and hints, and no value of the data.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from lakewarden.dagster_defs.failures import BATCH, CODE, DATASET, HINT
from lakewarden.tables.drift import Finding

_FORMAT = 1
_TABLES = 50  # that a message names; SNS takes 256 KiB


@dataclass(frozen=True)
class Alert:
    subject: str
    body: Mapping[str, object]

    @property
    def message(self) -> str:
        return json.dumps({"format": _FORMAT, **self.body}, ensure_ascii=False)


@dataclass(frozen=True)
class FailedStep:
    """A step of a run that failed, and what it said of it."""

    step: str
    metadata: Mapping[str, dg.MetadataValue]

    def text(self, name: str) -> str | None:
        found = self.metadata.get(name)
        return str(found.value) if found else None


def of_failure(
    project: str, job: str, run: str, dataset: str, batch: str | None, step: FailedStep | None
) -> Alert:
    """A run that failed. step: None where the run ended without saying why, killed for instance."""
    code = (step and step.text(CODE)) or "run-ended"
    named = (step and step.text(BATCH)) or batch
    hint = (step and step.text(HINT)) or f"Look at Dagster's run {run}: it ended without an error."
    told = (step and step.text(DATASET)) or dataset
    body = {
        "kind": "run-failed",
        "project": project,
        "job": job,
        "run": run,
        "dataset": told,
        "batch": named,
        "error": code,
        "hint": hint,
    }
    return Alert(f"{project}: {told} {named or ''} failed: {code}", body)


def of_drift(project: str, found: Mapping[str, Sequence[Finding]]) -> Alert:
    """What differs from the templates now; nothing, where it is all put right."""
    lines = {name: [one.describe() for one in found[name]] for name in sorted(found)[:_TABLES]}
    body = {
        "kind": "schema-drift",
        "project": project,
        "tables": len(found),
        "findings": lines,
        "hint": "lakewarden table drift" if found else "",
    }
    tables = "1 table" if len(found) == 1 else f"{len(found)} tables"
    what = f"{tables} drifted" if found else "no table drifts any more"
    return Alert(f"{project}: {what}", body)


def digest(found: Mapping[str, Sequence[Finding]]) -> str:
    """Equal for equal findings; empty where there are none."""
    if not found:
        return ""
    lines = sorted([name, one.describe()] for name, each in found.items() for one in each)
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:32]
