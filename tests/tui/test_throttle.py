"""Who takes a flood in stands back for whoever presses a key, and not for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from stoke.backend import Frame
from stoke.job import JobState
from stoke.logs.follower import MOST_BEFORE_RUNNER
from stoke.logs.spool import STDOUT
from tests.tui.conftest import Desk, FakeBackend, FakeStream, until
from tui import throttle
from tui.app import StokeApp
from tui.throttle import Throttle


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(throttle, "time", made)
    return made


def held(clock: Clock, made: Throttle, *, every: float, seconds: float) -> float:
    """For how long the threads stand back while a key is pressed again and again."""
    stood, pressed, end = 0.0, clock.now, clock.now + seconds
    while clock.now < end:
        if clock.now >= pressed:
            made.pressed()
            pressed += every
        stood += 0.001 if made.left() > 0.0005 else 0.0
        clock.now += 0.001
    return stood


def test_a_key_now_and_then_has_its_time(clock: Clock) -> None:
    made = Throttle()
    assert made.left() == 0.0
    assert held(clock, made, every=1.0, seconds=60.0) == pytest.approx(
        60 * throttle.HOLD_SECONDS, rel=0.05
    )


@pytest.mark.parametrize("every", [0.01, 0.033, 0.09, 0.15])
def test_keys_without_end_leave_the_log_its_share(clock: Clock, every: float) -> None:
    assert held(clock, Throttle(), every=every, seconds=60.0) <= (
        60 * throttle.SHARE + throttle.MOST_SECONDS + throttle.HOLD_SECONDS
    )


async def test_a_log_stands_back_while_a_key_is_answered(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    class Flood(FakeStream):
        def __iter__(self) -> Iterator[list[Frame]]:
            while not self.closed and self._goes_on():
                taken.append(len(taken))
                yield [Frame(STDOUT, time.time_ns(), b"x" * MOST_BEFORE_RUNNER + b"\n")]
                time.sleep(0.005)

    monkeypatch.setattr(backends["local"], "logs", lambda job, since, follow: Flood(lambda: follow))
    desk.job("flood-aaaaaa", JobState.RUNNING)
    desk.let_go()
    async with app.run_test() as pilot:
        await until(pilot, lambda: len(taken) > 20)
        monkeypatch.setattr(throttle, "HOLD_SECONDS", 3600.0)
        monkeypatch.setattr(throttle, "MOST_SECONDS", 3600.0)
        monkeypatch.setattr(app._throttle, "_left", 3600.0)
        await pilot.press("j")
        before = len(taken)
        await pilot.pause(0.5)
        assert len(taken) <= before + 2, "at most what it had in its hands"
    assert not [one for one in threading.enumerate() if one.name == "track flood-aaaaaa"]
