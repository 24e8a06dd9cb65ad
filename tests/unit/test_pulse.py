"""Signs of life are given while work moves on, and not otherwise."""

from dataclasses import dataclass, field
from threading import Event

import pytest

from lakewarden.stepfunctions.pulse import LEAST_SHARE, Progress, Pulse, TokenLost


@dataclass
class Clock:
    at: float = 0.0
    cpu: float = 0.0


@dataclass
class Line:
    """Counts beats; `error` is what the next one meets."""

    beats: int = 0
    error: Exception | None = None
    beaten: Event = field(default_factory=Event)

    def beat(self) -> None:
        self.beats += 1
        self.beaten.set()
        if self.error:
            raise self.error


def progress(clock: Clock) -> Progress:
    return Progress(lambda: clock.cpu, lambda: clock.at)


def test_what_was_counted_is_progress_once() -> None:
    clock = Clock()
    found = progress(clock)
    found.since()
    clock.at = 10
    assert not found.since()
    found.moved(100)
    clock.at = 20
    assert found.since()
    clock.at = 30
    assert not found.since()


def test_computing_is_progress_and_waiting_is_not() -> None:
    clock = Clock()
    found = progress(clock)
    found.since()
    clock.at, clock.cpu = 100, 100 * LEAST_SHARE
    assert found.since()
    clock.at, clock.cpu = 200, 100 * LEAST_SHARE + 0.5
    assert not found.since()


def test_a_hung_step_gives_no_sign_and_one_that_works_does() -> None:
    clock, line = Clock(), Line()
    found = progress(clock)
    with Pulse(line, found, heartbeat_seconds=0.05):
        assert line.beats == 1  # that it began
        line.beaten.clear()
        clock.at += 1000  # and nothing was done
        assert not line.beaten.wait(0.2)
        found.moved()
        assert line.beaten.wait(5)


def test_a_token_that_is_lost_stops_the_work() -> None:
    line = Line()
    with Pulse(line, progress(Clock()), heartbeat_seconds=60) as pulse:
        line.error = TokenLost("gone")
        with pytest.raises(TokenLost):
            pulse.check()
        line.error = None
        with pytest.raises(TokenLost):
            pulse.still_wanted()  # once is for ever


def test_a_token_that_is_worth_nothing_begins_nothing() -> None:
    with pytest.raises(TokenLost), Pulse(Line(error=TokenLost("gone")), progress(Clock()), 60):
        pytest.fail("it began")


def test_a_line_that_is_down_does_not_stop_the_work() -> None:
    line = Line(error=ConnectionError("down"))
    with Pulse(line, progress(Clock()), heartbeat_seconds=60) as pulse:
        pulse.check()
    assert line.beats == 2
