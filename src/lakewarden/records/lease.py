"""A lease: one object that tells people who is running, so that nobody waits for the dead.

It is written by conditional puts, so of two that want it one gets it, whatever their clocks say.
It fences nothing: who was taken over learns it at the next renewal; what he must not do any
more is refused elsewhere (the run's record in the catalog).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event, Thread
from typing import Self

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from lakewarden.aws.objects import (
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    Objects,
)
from lakewarden.errors import Failed, LakewardenError, TryAgain
from lakewarden.records.processes import is_running, started

_log = structlog.get_logger()

LEASES = "ops/leases/"  # one a batch: <dataset>/<batch>.json
FORMAT = 1
DEAD_AFTER = timedelta(seconds=60)  # without a renewal, where we cannot see the process
RENEW_SECONDS = 10.0
_RELEASE_SECONDS = 10.0  # for that, and for a renewal that is under way
_INTERRUPTED_SECONDS = 2.0  # for the same, where somebody waits for it
_EACH_SECONDS = 0.1  # more, for each lease
_ATTEMPTS = 20  # races lost in a row
_RENEWALS = 2  # of ours: the one that is asked for, and one before it that was not answered

# Runs of this process that ended and could not release their lease. The process lives on, so that
# it would pass for the holder for ever.
_left: set[str] = set()


@dataclass(frozen=True)
class Holder:
    """Who runs. `started` tells the process from a later one with its pid (records.processes)."""

    run: str
    host: str
    pid: int
    started: str
    since: datetime


class LeaseHeld(TryAgain):
    """Somebody alive holds it. `holder` says who."""

    def __init__(self, message: str, *, holder: Holder, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.holder = holder


class LeaseUnreadable(Failed):
    """The object under the lease's key is not a lease."""


class _Holder(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)

    # A dead run's name leads its successor to what it left: no `..`, no path.
    run: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    host: str
    pid: int
    started: str
    since: AwareDatetime

    def told(self) -> Holder:
        return Holder(self.run, self.host, self.pid, self.started, self.since)


class _Content(BaseModel):
    """The object, as written."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    holder: _Holder
    renewed: AwareDatetime
    replaced: tuple[_Holder, ...] = ()  # dead ones, newest first, until somebody releases


class Lease:
    """A lease that was acquired. `predecessors` are the dead holders before us, newest first:
    more than one where a successor died too, perhaps before it had tidied up."""

    def __init__(self, objects: Objects, key: str, content: _Content, etag: str) -> None:
        self.key = key
        self._objects = objects
        self._content = content
        self._etag = etag
        self._lost = False

    @property
    def holder(self) -> Holder:
        return self._content.holder.told()

    @property
    def predecessors(self) -> tuple[Holder, ...]:
        return tuple(dead.told() for dead in self._content.replaced)

    @property
    def lost(self) -> bool:
        """Whether another took it, as of the last renewal."""
        return self._lost

    def renew(self, now: datetime) -> None:
        """Say that we live; sets `lost` where it is not ours any more."""
        content = self._content.model_copy(update={"renewed": now})

        def write() -> None:
            self._etag = self._objects.replace(self.key, _bytes(content), etag=self._etag).etag

        self._change(write)

    def leave(self) -> None:
        """Let go of it without a word to the store: whoever comes next finds a dead holder, and
        tidies up after us and after our predecessors."""
        _left.add(self.holder.run)

    def release(self) -> None:
        """Delete it, if it is still ours."""
        self._change(lambda: self._objects.delete(self.key, etag=self._etag))

    def _change(self, change: Callable[[], None]) -> None:
        for _ in range(_RENEWALS):
            if self._lost:
                return
            try:
                change()
            except ObjectChanged:
                self._lost = not self._was_renewed()
            else:
                return

    def _was_renewed(self) -> bool:
        """Whether what lies there is a renewal of ours whose answer was lost."""
        try:
            found, etag = _read(self._objects, self.key)
        except (ObjectMissing, LeaseUnreadable):
            return False
        self._etag = etag
        return found.holder == self._content.holder


def this_process(run: str, *, host: str, since: datetime) -> Holder:
    """This process as a holder."""
    pid = os.getpid()
    return Holder(run, host, pid, started(pid) or "", since)


def acquire(
    objects: Objects,
    key: str,
    holder: Holder,
    *,
    now: datetime,
    take_over: bool = False,
    of: Callable[[str], bool] = lambda run: True,
) -> Lease:
    """Take the lease where nobody alive has it; `take_over` takes it from the living too, if the
    holder's run is one `of` those that are meant.

    Raises LeaseHeld, and LeaseUnreadable where something else lies under the key."""
    overridden: Holder | None = None  # --take-over means who held it when it was asked
    for _ in range(_ATTEMPTS):
        try:
            found, etag = _read(objects, key)
        except ObjectMissing:
            content = _Content(holder=_Holder.model_validate(holder), renewed=now)
            try:
                return Lease(objects, key, content, objects.create(key, _bytes(content)).etag)
            except ObjectExists:
                continue
        current = found.holder.told()
        if current.run not in _left and is_alive(current, found.renewed, host=holder.host, now=now):
            overridden = overridden or (current if take_over and of(current.run) else None)
            if current != overridden:
                raise _held(current, key)
        content = _Content(
            holder=_Holder.model_validate(holder),
            renewed=now,
            replaced=(found.holder, *found.replaced),
        )
        try:
            written = objects.replace(key, _bytes(content), etag=etag)
        except ObjectChanged:
            continue
        return Lease(objects, key, content, written.etag)
    raise LeaseHeld(
        f"{key} changes hands all the time", holder=overridden or holder, hint="Try again."
    )


def holders(objects: Objects, prefix: str, *, host: str, now: datetime) -> Mapping[str, bool]:
    """The runs that leases under a prefix tell of, and whether each is alive: their holders, and
    the dead that nobody tidied up after. What is not a lease tells of none."""
    told: dict[str, bool] = {}
    for version in objects.list(prefix):
        try:
            found, _ = _read(objects, version.key)
        except ObjectMissing:  # released meanwhile
            continue
        except LeaseUnreadable as error:
            _log.warning(error.message, hint=error.hint)
            continue
        told |= dict.fromkeys((dead.run for dead in found.replaced), False)
        told[found.holder.run] = is_alive(found.holder.told(), found.renewed, host=host, now=now)
    return told


def is_alive(
    found: Holder,
    renewed: datetime,
    *,
    host: str,
    now: datetime,
    running: Callable[[int, str], bool] = is_running,
) -> bool:
    """On our own host the process tells; elsewhere, how long ago it was renewed."""
    if found.host == host:
        return running(found.pid, found.started)
    return now - renewed <= DEAD_AFTER


def _read(objects: Objects, key: str) -> tuple[_Content, str]:
    stored = objects.get(key)
    try:
        return _Content.model_validate_json(stored.body), stored.version.etag
    except ValidationError as error:
        raise LeaseUnreadable(
            f"s3://{objects.bucket}/{key} is not a lease that this release reads",
            hint="If nobody is running, delete that object.",
        ) from error


def _held(holder: Holder, key: str) -> LeaseHeld:
    since = holder.since.isoformat(timespec="seconds")
    return LeaseHeld(
        f"run {holder.run} holds {key}: process {holder.pid} on {holder.host}, since {since}",
        holder=holder,
        hint="Wait for it, or take over with --take-over if you know that it is gone.",
    )


def _bytes(content: _Content) -> bytes:
    return content.model_dump_json(indent=1).encode()


class Keeper:
    """Renews leases in the background, and releases them at the end.

    An object store that is away does not lose a lease: only another's hand on it does."""

    def __init__(
        self, *leases: Lease, now: Callable[[], datetime], every: float = RENEW_SECONDS
    ) -> None:
        self._leases = list(leases)
        self._now = now
        self._every = every
        self._end = Event()
        self._leaves = False
        self._thread = Thread(target=self._keep, name="lakewarden-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def hold(self, lease: Lease) -> None:
        """Keep one more from now on."""
        self._leases.append(lease)

    def leave(self) -> None:
        """Do not release them at the end: something is left for the next one to tidy up."""
        self._leaves = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """A lease that cannot be released now dies by itself: nothing is lost with it."""
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._end.set()
        usual = _RELEASE_SECONDS + _EACH_SECONDS * len(self._leases)
        self._thread.join(timeout=_INTERRUPTED_SECONDS if interrupted else usual)
        if self._thread.is_alive():
            for lease in self._leases:
                _leave(lease, "the store does not answer")

    def _keep(self) -> None:
        while not self._end.wait(self._every):
            for lease in tuple(self._leases):
                self._renew(lease)
        for lease in self._leases:
            self._let_go(lease)

    def _renew(self, lease: Lease) -> None:
        try:
            lease.renew(self._now())
        except LakewardenError as error:
            _log.warning("the lease was not renewed", key=lease.key, why=error.message)

    def _let_go(self, lease: Lease) -> None:
        try:
            if self._leaves:
                lease.leave()
            else:
                lease.release()
        except LakewardenError as error:
            _leave(lease, error.message)


def _leave(lease: Lease, why: str) -> None:
    lease.leave()
    _log.warning("the lease is left to run out", key=lease.key, why=why)
