"""Copy a delivery from where a producer put it to where the dataset lands: inside of the store.

Only whole deliveries are copied, at pinned versions. As when a folder is delivered (deliver.py) the
manifests that lie there go first and the new ones come last, so a copy that was cut off is
incomplete, never a mixture of two. What lies there already is not copied again, so that it can be
repeated; an equal entity tag and size tell, and what S3 gives another tag is copied anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache

from lakewarden.aws.objects import Objects, ObjectVersion
from lakewarden.batch.delivery.inventory import is_folder, is_manifest, promise_of
from lakewarden.batch.delivery.keys import Landing, landings_of, name_fault, quoted
from lakewarden.batch.delivery.manifest import MANIFEST, ManifestRefused, write
from lakewarden.batch.model import Dataset
from lakewarden.batch.receive import receive
from lakewarden.errors import WrongUsage


class SourceInvalid(WrongUsage):
    """What is to be copied is no prefix of a bucket, or the landing itself."""


@dataclass(frozen=True)
class Copied:
    """Files that were copied, and their bytes; `equal`: those that lay there already."""

    files: int
    bytes: int
    equal: int


@dataclass(frozen=True)
class Source:
    """A prefix of a bucket; it ends with a slash, or is empty."""

    bucket: str
    prefix: str


def parse_source(text: str) -> Source:
    """s3://bucket/prefix/; raises SourceInvalid."""
    scheme, _, path = text.partition("://")
    bucket, _, prefix = path.partition("/")
    prefix = f"{prefix.removesuffix('/')}/" if prefix.strip("/") else ""
    fault = name_fault(prefix.removesuffix("/")) if prefix else None
    if scheme != "s3" or not bucket or not bucket.isascii() or fault:
        raise SourceInvalid(
            f"{quoted(text)} is not a prefix in a bucket{f': {fault}' if fault else ''}",
            hint="Write it like s3://bucket/prefix/.",
        )
    return Source(bucket, prefix)


def places_at(source: Source, dataset: Dataset, batch: str, bucket: str) -> Sequence[Landing]:
    """Where a batch lies at its producer's: one subfolder a part, where there are parts. `bucket`:
    ours. Raises SourceInvalid and as `landings_of` does."""
    landings = landings_of(dataset, batch, bucket)
    places = [
        replace(
            landing,
            bucket=source.bucket,
            prefix=f"{source.prefix}{landing.part}/" if landing.part else source.prefix,
        )
        for landing in landings
    ]
    for place in places:
        for landing in landings:
            if place.bucket == bucket and _meet(place.prefix, landing.prefix):
                raise SourceInvalid(
                    f"s3://{place.bucket}/{place.prefix} is where the batch lands",
                    hint="Leave out the source: what lies there already is not to be copied.",
                )
    return places


def _meet(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def copy_delivery(
    source: Objects,
    places: Sequence[Landing],
    objects: Objects,
    dataset: Dataset,
    batch: str,
    *,
    now: datetime,
) -> Copied:
    """Bring a whole delivery into its landing, in place of what lies there.

    Raises what `receive` raises of the source, before anything is changed."""
    receive(source, dataset, batch, now=now, places=places)
    marker = dataset.complete.marker
    landings = landings_of(dataset, batch, objects.bucket)
    parcels = [
        _pack(source, place, objects, landing, marker)
        for place, landing in zip(places, landings, strict=True)
    ]
    equal = sum(len(parcel.data) for parcel in parcels)
    if all(parcel.is_done for parcel in parcels):
        return Copied(0, 0, equal)
    for parcel in parcels:
        for name in parcel.lying:
            if parcel.is_last(name):
                objects.delete(parcel.landing.prefix + name)
    copied = [version for parcel in parcels for version in _send(source, objects, parcel)]
    for parcel in parcels:
        for name in parcel.lying.keys() - parcel.data.keys():
            if not parcel.is_last(name):
                objects.delete(parcel.landing.prefix + name)
    for parcel in parcels:
        for name, body in parcel.last.items():
            objects.put(parcel.landing.key(name), body)
    size = sum(version.size for version in copied)
    return Copied(len(copied), size, equal - len(copied))


@dataclass(frozen=True)
class _Parcel:
    """One landing: what is to lie there, what lies there, and what comes last: manifests and a
    marker, with their bytes."""

    landing: Landing
    marker: str | None
    data: Mapping[str, ObjectVersion]
    lying: Mapping[str, ObjectVersion]
    last: Mapping[str, bytes]
    is_done: bool

    def is_last(self, name: str) -> bool:
        return is_manifest(name) or name == self.marker


def _pack(
    source: Objects, place: Landing, objects: Objects, landing: Landing, marker: str | None
) -> _Parcel:
    found = _files(source, place)
    lying = _files(objects, landing)
    data = {n: v for n, v in found.items() if not (is_manifest(n) or n == marker)}
    last = _manifests(source, found, place, landing)
    if marker and marker in found:
        last[marker] = source.get(found[marker].key, found[marker].version_id).body
    done = (
        data.keys() | last.keys() == lying.keys()
        and all(_equal(version, lying[name]) for name, version in data.items())
        and all(objects.get(lying[name].key).body == body for name, body in last.items())
    )
    return _Parcel(landing, marker, data, lying, last, done)


def _files(objects: Objects, place: Landing) -> dict[str, ObjectVersion]:
    return {place.name(v.key): v for v in objects.list(place.prefix) if not is_folder(v)}


def _manifests(
    source: Objects, found: Mapping[str, ObjectVersion], place: Landing, landing: Landing
) -> dict[str, bytes]:
    """The producer's manifests as they are; ours in their place where they name the files by
    addresses at the producer's."""
    if not any(map(is_manifest, found)):
        return {}

    @cache
    def read(name: str) -> bytes:
        return source.get(found[name].key, found[name].version_id).body

    try:
        promise = promise_of(found, read, landing, where=lambda name: place.prefix + name)
    except ManifestRefused:
        promise = promise_of(found, read, place, where=lambda name: place.prefix + name)
        return {MANIFEST: write(promise.manifest)}
    return {name: read(name) for name in promise.sources}


def _send(source: Objects, objects: Objects, parcel: _Parcel) -> Sequence[ObjectVersion]:
    wanted = {
        name: version
        for name, version in parcel.data.items()
        if name not in parcel.lying or not _equal(version, parcel.lying[name])
    }
    for name, version in wanted.items():
        objects.copy(source, version, parcel.landing.key(name))
    return list(wanted.values())


def _equal(one: ObjectVersion, other: ObjectVersion) -> bool:
    return (one.etag, one.size) == (other.etag, other.size)
