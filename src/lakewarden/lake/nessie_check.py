"""Whether a Nessie answers, and whether its warehouse is ours. Nothing is made or changed."""

import time

from lakewarden.checkup import Answer
from lakewarden.lake.nessie_api import NessieApi
from lakewarden.lake.nessie_keys import HEAD, ROOT, check_format, version_of

_MAY_WRITE = "whether we may write: Nessie says so only when it is tried"


def check_nessie(
    uri: str, token: str | None, *, main: str, warehouse: str, bucket: str, writes: bool = True
) -> Answer:
    """writes: whether we are to write it. Raises CatalogUnavailable, CatalogDenied, CatalogRefused,
    CatalogFormatUnknown and, for an address that is none, WrongUsage."""
    begun = time.monotonic()
    api = NessieApi(uri, token)
    try:
        at = api.reference(main)
        found = api.contents(main, at.hash, [ROOT, HEAD]) if at else {}
        location = api.warehouse(main, warehouse) if at else None
    finally:
        api.close()
    check_format(found.get(ROOT))
    missing = []
    if at is None:
        missing.append(f"no branch {main}")
    elif location is None:
        missing.append(f"no warehouse {warehouse}")
    elif not location.startswith(f"s3://{bucket}/"):
        missing.append(f"warehouse {warehouse} lies in {location}, outside of the bucket {bucket}")
    return Answer(
        f"Nessie, version {version_of(found.get(HEAD))}",
        missing=tuple(missing),
        unknown=(_MAY_WRITE,) if writes else (),
        hint="Correct the catalog in lakewarden.toml, or Nessie's own settings."
        if missing
        else None,
        latency=time.monotonic() - begun,
    )
