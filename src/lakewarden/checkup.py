"""Questions to the parts of an environment, asked side by side, and how they were answered.

Each room has its own questions, in a module `check` or beside what they ask; `doctor.py` puts them
together. A question only reads. One that hangs, fails or has a mistake hides no other.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread

from lakewarden.errors import LakewardenError, TryAgain

QUICK = 15.0  # seconds that a part may take to answer


@dataclass(frozen=True)
class Answer:
    """What a part says of itself. It is well when nothing is missing."""

    told: str  # what answered: a version, a place, how many
    who: str | None = None  # as whom it knows us
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()  # what cannot be said without changing something, or more rights
    hint: str | None = None  # what to do about what is missing
    again: bool = False  # what is missing may be there later
    latency: float | None = None  # seconds of one answer, where something else gave it


@dataclass(frozen=True)
class Question:
    """One part by its name; what `ask` raises is an answer too."""

    name: str
    ask: Callable[[], Answer]
    limit: float = QUICK  # seconds


@dataclass(frozen=True)
class Part:
    """One part, as it answered just now."""

    name: str
    answer: Answer
    seconds: float  # all that it took, our own start included

    @property
    def well(self) -> bool:
        return not self.answer.missing


def check(questions: Sequence[Question]) -> Sequence[Part]:
    """Ask all at once; returns in their order, after the longest limit at the latest."""
    begun = time.monotonic()
    # Not a pool: the interpreter would wait for its threads, and so for what hangs.
    asked = [_Asked(question) for question in questions]
    return [one.part(begun) for one in asked]


def exit_code(parts: Sequence[Part]) -> int:
    """0: all are well; 75: what is missing may be there later; 1: it has to be mended."""
    missing = [part.answer for part in parts if not part.well]
    if not missing:
        return 0
    return TryAgain.exit_code if all(answer.again for answer in missing) else 1


class _Asked:
    """A question that is being asked."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._part: Part | None = None
        self._thread = Thread(target=self._ask, name=f"check-{question.name}", daemon=True)
        self._thread.start()

    def part(self, begun: float) -> Part:
        name, limit = self._question.name, self._question.limit
        self._thread.join(max(0.0, begun + limit - time.monotonic()))
        answered = self._part
        return answered or Part(name, _silent(limit), time.monotonic() - begun)

    def _ask(self) -> None:
        begun = time.monotonic()
        try:
            answer = self._question.ask()
        except LakewardenError as error:
            answer = _raised(error)
        except Exception as error:
            # Its class only: the message of a library's error may quote a secret.
            name = f"{type(error).__module__}.{type(error).__qualname__}"
            answer = Answer("–", missing=(f"an error that Lakewarden does not know: {name}",))
        self._part = Part(self._question.name, answer, time.monotonic() - begun)


def _raised(error: LakewardenError) -> Answer:
    again = isinstance(error, TryAgain)
    return Answer("–", missing=(error.message,), hint=error.hint, again=again)


def _silent(limit: float) -> Answer:
    return Answer("–", missing=(f"no answer within {limit:.0f} s",), again=True)
