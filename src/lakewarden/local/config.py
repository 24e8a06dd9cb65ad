"""What the stack has beside S3, as `up` was told; kept in a file for the stack's own processes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lakewarden.errors import WrongUsage
from lakewarden.local.layout import Layout, write_private


class NessieStore(StrEnum):
    """Where Nessie keeps its data: a folder of its own, or two tables of the control plane's
    DynamoDB, as it does at AWS."""

    ROCKSDB = "rocksdb"
    DYNAMODB = "dynamodb"


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
    nessie_store: NessieStore | None = None  # None: where its data lie, at first ROCKSDB
    dagster: bool = False


class NessieStoreDiffers(WrongUsage):
    """Nessie's data of this project lie elsewhere than wanted, or nobody knows where."""


class _Stored(BaseModel):
    model_config = ConfigDict(extra="ignore")
    format: int
    cloud: CloudConfig


class _Kept(BaseModel):
    model_config = ConfigDict(extra="ignore")
    store: NessieStore


_CLOUD = TypeAdapter(CloudConfig)


def write(layout: Layout, config: CloudConfig) -> None:
    write_private(layout.cloud, {"format": 1, "cloud": _CLOUD.dump_python(config, mode="json")})


def read(layout: Layout) -> CloudConfig | None:
    """None where the stack has S3 only."""
    try:
        return _Stored.model_validate_json(layout.cloud.read_bytes()).cloud
    except (FileNotFoundError, ValidationError):
        return None


def beside(wanted: CloudConfig, runs: CloudConfig | None) -> CloudConfig:
    """What is wanted, and whatever runs already: who wants more takes nothing away."""
    if runs is None:
        return wanted
    return replace(
        wanted, nessie=wanted.nessie or runs.nessie, dagster=wanted.dagster or runs.dagster
    )


def store_of(layout: Layout, wanted: NessieStore | None) -> NessieStore:
    """Where Nessie keeps its data: where they lie, or else where it is wanted. They never move,
    since a catalog that begins anew looks like one that lost every table. Raises
    NessieStoreDiffers."""
    anew = f"begin with an empty catalog: `lakewarden local down`, and remove {layout.nessie}."
    try:
        kept = _Kept.model_validate_json(layout.nessie_store.read_bytes()).store
    except FileNotFoundError:
        return wanted or NessieStore.ROCKSDB
    except ValidationError:
        raise NessieStoreDiffers(
            f"{layout.nessie_store} does not tell where Nessie keeps its data",
            hint=f'Write {{"store": "rocksdb"}} there, or "dynamodb", as it was; or {anew}',
        ) from None
    if wanted not in (None, kept):
        raise NessieStoreDiffers(
            f"this project's Nessie keeps its data in {kept.value}, not in {wanted}",
            hint=f"Leave the option out; or {anew}",
        )
    return kept


def keep_store(layout: Layout, store: NessieStore) -> None:
    """From now on Nessie's data lie there."""
    layout.nessie.mkdir(mode=0o700, exist_ok=True)
    write_private(layout.nessie_store, {"store": store.value})
