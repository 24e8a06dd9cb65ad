"""What our definitions are called: names that do not meet those of the code location we are in."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

DRIFT = "schema_drift_sensor"  # the runbook's name


@dataclass(frozen=True)
class Naming:
    """`prefix` stands before every key, and in every name."""

    prefix: tuple[str, ...] = ()

    def key(self, key: Sequence[str]) -> dg.AssetKey:
        return dg.AssetKey([*self.prefix, *key])

    def group(self, dataset: str) -> str:
        return self._joined(_word(dataset))

    def op(self, dataset: str) -> str:
        """The step that runs a dataset's batches."""
        return self._joined("lakewarden", _word(dataset))

    def job(self, dataset: str) -> str:
        return self._joined("lakewarden", _word(dataset), "batches")

    def deliveries(self, dataset: str) -> str:
        return self._joined("lakewarden", _word(dataset), "deliveries")

    def due(self, dataset: str) -> str:
        return self._joined("lakewarden", _word(dataset), "due")

    @property
    def drift(self) -> str:
        return self._joined(DRIFT)

    @property
    def failures(self) -> str:
        return self._joined("lakewarden", "failures")

    def _joined(self, *words: str) -> str:
        return "_".join([*self.prefix, *words])


def _word(dataset: str) -> str:
    """Dagster's names have no hyphens."""
    return dataset.replace("-", "_")
