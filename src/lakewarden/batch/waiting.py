"""Deliveries that lie there whole and are not published yet: for whoever starts runs by itself.

A delivery that was refused counts as well, once: what is wrong with it is for a run to tell.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from lakewarden.aws.objects import Objects, ObjectVersion
from lakewarden.batch.delivery.inventory import PartMissing
from lakewarden.batch.delivery.keys import batch_of, roots_of
from lakewarden.batch.delivery.manifest import ManifestMissing
from lakewarden.batch.model import Dataset
from lakewarden.batch.published import newest_of_each
from lakewarden.batch.receipts import ReceiptUnreadable, RunUnknown, receipts_of
from lakewarden.batch.receive import BatchUnknown, NotReady, receive
from lakewarden.errors import Refused
from lakewarden.lake.model import Lake, Publication
from lakewarden.records.stream import StreamBroken

# Of a delivery that is still on its way: more files, or its manifest, are to come.
_ON_ITS_WAY = (NotReady, BatchUnknown, PartMissing, ManifestMissing)


@dataclass(frozen=True)
class Lying:
    """What lies in a batch's landing prefix. `hash`: of its delivery, or of what is wrong with it;
    None while it is on its way. `published`: by this very delivery, or by one that somebody took
    out of main again."""

    batch: str
    hash: str | None
    published: bool = False

    @property
    def waits(self) -> bool:
        return self.hash is not None and not self.published


def landed(objects: Objects, dataset: Dataset) -> Mapping[str, str]:
    """A digest of what lies there, by batch in order: it is another when anything changed.

    Lists everything under the dataset's landing prefix. Raises StorageUnavailable."""
    found: dict[str, list[ObjectVersion]] = {}
    for root in roots_of(dataset):
        for version in objects.list(root):
            if batch := batch_of(dataset, version.key):
                found.setdefault(batch, []).append(version)
    return {batch: _digest(found[batch]) for batch in sorted(found)}


def look(
    objects: Objects, lake: Lake, dataset: Dataset, digests: Mapping[str, str], now: datetime
) -> Iterator[Lying]:
    """Look at batches, of which `landed` told. Raises StorageUnavailable, CatalogUnavailable."""
    published = lake.publications(dataset.name)
    held = newest_of_each(one for one in published if not one.contribution.withdrawn)
    for batch, digest in digests.items():
        try:
            hash = receive(objects, dataset, batch, now=now).hash
        except _ON_ITS_WAY:
            yield Lying(batch, None)
            continue
        except Refused:
            hash = digest
        yield Lying(batch, hash, _made_of(objects, held.get(batch), hash))


def _made_of(objects: Objects, publication: Publication | None, hash: str) -> bool:
    """Whether a publication was made of this delivery. What cannot be told is run again, which
    does nothing where nothing is to be done."""
    if publication is None:
        return False
    held = publication.contribution
    try:
        receipts = receipts_of(objects, held.dataset or "", publication.run)
    except (RunUnknown, ReceiptUnreadable, StreamBroken):
        return False
    return any(
        one.batch == held.batch and one.delivery_hash == hash
        for receipt in receipts
        for one in receipt.batches
    )


def _digest(versions: list[ObjectVersion]) -> str:
    lines = sorted([one.key, one.etag, str(one.size)] for one in versions)
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:32]
