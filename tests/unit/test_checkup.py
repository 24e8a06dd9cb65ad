"""Parts are asked side by side; one that hangs or fails hides no other."""

from collections.abc import Iterator
from threading import Barrier, Event
from time import monotonic

import pytest

from lakewarden.aws.check import Access, BucketFacts, Prefix, judge
from lakewarden.checkup import Answer, Part, Question, check, exit_code
from lakewarden.errors import Failed, TryAgain


@pytest.fixture
def never() -> Iterator[Event]:
    event = Event()
    yield event
    event.set()


def hanging(never: Event) -> Answer:
    never.wait(60)
    return Answer("at last")


def failing(error: Exception) -> Answer:
    raise error


def test_what_hangs_or_fails_hides_no_other(never: Event) -> None:
    begun = monotonic()
    hung, away, bad, bug, well = check(
        [
            Question("hung", lambda: hanging(never), limit=0.2),
            Question("away", lambda: failing(TryAgain("it is away", hint="later"))),
            Question("bad", lambda: failing(Failed("it is broken", hint="mend it"))),
            Question("bug", lambda: failing(ValueError("a secret"))),
            Question("well", lambda: Answer("here", who="me")),
        ]
    )
    assert monotonic() - begun < 10
    assert hung.answer.missing == ("no answer within 0 s",)
    assert hung.answer.again
    assert (away.answer.missing, away.answer.hint) == (("it is away",), "later")
    assert (bad.answer.missing, bad.answer.again) == (("it is broken",), False)
    assert bug.answer.missing == ("an error that Lakewarden does not know: builtins.ValueError",)
    assert well.well
    assert well.answer.who == "me"


def test_all_are_asked_at_once() -> None:
    """Each waits for the others: one after the other they would never answer."""
    together = Barrier(4)

    def ask() -> Answer:
        together.wait(10)
        return Answer("here")

    parts = check([Question(str(number), ask) for number in range(4)])
    assert [part.name for part in parts] == ["0", "1", "2", "3"]
    assert all(part.well for part in parts)


def part(*missing: str, again: bool = False) -> Part:
    return Part("it", Answer("told", missing=missing, again=again), 0.0)


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([part(), part()], 0),
        ([part(again=True)], 0),
        ([part(), part("away", again=True)], 75),
        ([part("broken"), part("away", again=True)], 1),
    ],
)
def test_the_exit_code_says_whether_to_wait_or_to_mend(parts: list[Part], code: int) -> None:
    assert exit_code(parts) == code


# ── the bucket ──────────────────────────────────────────────────────────────────────────────────

OPS = Prefix("operations", "ops/")
ALL = BucketFacts("eu-west-1", versioned=True, public_blocked=True, locked=False)


def test_a_bucket_that_is_as_it_has_to_be() -> None:
    answer = judge("eu-west-1", "lake", ALL, [Access(OPS, list=True, read=True, write=True)])
    assert answer == Answer("bucket lake, eu-west-1, keeps versions")


@pytest.mark.parametrize(
    ("facts", "access", "word"),
    [
        (BucketFacts("us-east-1", True, True, False), [], "in us-east-1"),
        (BucketFacts(None, False, True, False), [], "versions"),
        (BucketFacts(None, True, False, False), [], "public access"),
        (ALL, [Access(OPS, list=False, read=True, write=True)], "may not list ops/"),
        (ALL, [Access(OPS, list=True, read=False, write=True)], "may not read ops/"),
        (ALL, [Access(OPS, list=True, read=True, write=False)], "may not write ops/"),
    ],
)
def test_what_is_missing_is_named(facts: BucketFacts, access: list[Access], word: str) -> None:
    answer = judge("eu-west-1", "lake", facts, access)
    (missing,) = answer.missing
    assert word in missing
    assert answer.hint
    assert answer.unknown == ()


def test_what_cannot_be_known_is_told_as_that() -> None:
    facts = BucketFacts(None, versioned=None, public_blocked=None, locked=None)
    access = [Access(OPS, list=False, read=None, write=None)]
    answer = judge("eu-west-1", "lake", facts, access)
    assert answer.missing == ("we may not list ops/ (operations)",)
    assert len(answer.unknown) == 4


def test_what_we_need_not_do_is_not_asked_for() -> None:
    looking = Prefix("deliveries", "raw/", read=False, write=False)
    answer = judge("eu-west-1", "lake", ALL, [Access(looking, True, None, None)])
    assert (answer.missing, answer.unknown) == ((), ())
