"""What the stack has beside S3, as `up` was told; kept in a file for the stack's own processes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lakewarden.local.layout import Layout, write_private


@dataclass(frozen=True)
class CloudConfig:
    """One project in one environment."""

    project: str
    env: str
    region: str
    bucket: str
    warehouse: str = "warehouse"  # prefix of the tables within the bucket
    names: Mapping[str, str] = field(default_factory=dict)  # in place of some of ours, by key
    datasets: tuple[str, ...] = ()
    landings: tuple[str, ...] = ()  # prefixes below which deliveries arrive
    nessie: bool = False
    dagster: bool = False


class _Stored(BaseModel):
    model_config = ConfigDict(extra="ignore")
    format: int
    cloud: CloudConfig


_CLOUD = TypeAdapter(CloudConfig)


def write(layout: Layout, config: CloudConfig) -> None:
    write_private(layout.cloud, {"format": 1, "cloud": _CLOUD.dump_python(config, mode="json")})


def read(layout: Layout) -> CloudConfig | None:
    """None where the stack has S3 only."""
    try:
        return _Stored.model_validate_json(layout.cloud.read_bytes()).cloud
    except (FileNotFoundError, ValidationError):
        return None
