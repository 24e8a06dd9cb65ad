"""The ways in which the demonstration brings a delivery to main, and how each ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lakewarden.errors import Failed, Refused

if TYPE_CHECKING:
    from lakewarden.batch.conductor import Outcome, StageDone
    from lakewarden.lake.model import Publication
    from lakewarden.wiring import Project

Tell = Callable[[str], None]  # where a run is, in a word or two


class DemoBroken(Failed):
    """The demonstration did not do what it tells."""


@dataclass(frozen=True)
class Note:
    """What a way has to tell besides: a line."""

    word: str
    text: str


@dataclass(frozen=True)
class Published:
    publication: "Publication"
    notes: Sequence[Note] = ()


@dataclass(frozen=True)
class Stopped:
    """Refused; nothing that is published has changed."""

    code: str
    message: str
    notes: Sequence[Note] = ()


class Way(Protocol):
    def run(self, dataset: str, batch: str, tell: Tell) -> Published | Stopped:
        """Bring what was delivered to main, or not."""
        ...

    def replay(self, dataset: str, batch: str, tell: Tell) -> Published | Stopped:
        """The same batch again, whole, with its mends."""
        ...


_NEXT = {
    "receive": "load",
    "load": "transform and test",
    "transform": "audit",
    "audit": "publish",
    "publish": "done",
}


class InProcess:
    """As `lakewarden batch run` does it."""

    def __init__(self, project: "Project") -> None:
        self._project = project

    def run(self, dataset: str, batch: str, tell: Tell) -> Published | Stopped:
        tell("receive")

        def done(stage: "StageDone") -> None:
            tell(_NEXT[stage.stage])

        try:
            return _published(self._project.run(dataset, batch, tell=done))
        except Refused as error:
            return Stopped(error.code, error.message)

    def replay(self, dataset: str, batch: str, tell: Tell) -> Published | Stopped:
        tell("replay")
        return _published(self._project.replay(dataset, batch))


def _published(outcome: "Outcome") -> Published:
    if outcome.publication is None:
        raise DemoBroken(f"{outcome.run.dataset} {outcome.run.span} was not published")
    return Published(outcome.publication)
