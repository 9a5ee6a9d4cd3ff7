"""Folders and threads for followers, and retries without pauses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoke.logs import follower as follower_module
from stoke.logs import resume
from tests.logs.follower.recording import RecordedFollower


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "BACKOFF_SECONDS", (0.0, 0.0))


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[[], Path]:
    """Return a new folder at every call, one for each example."""
    numbers = iter(range(1_000_000))
    return lambda: tmp_path / str(next(numbers))


@pytest.fixture(params=[resume.MAX_HELD, 30, 0])
def kept_of_the_overlap(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The bytes held of frames that may come again; of further frames only keys are held."""
    monkeypatch.setattr(resume, "MAX_HELD", request.param)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Record the bounds of each pause instead of pausing."""
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return 0

    monkeypatch.setattr(follower_module, "BACKOFF_SECONDS", (0.5, 30.0))
    monkeypatch.setattr("random.uniform", uniform)
    return drawn


@pytest.fixture
def in_background() -> Iterator[Callable[[RecordedFollower], threading.Thread]]:
    started: list[tuple[RecordedFollower, threading.Thread]] = []

    def start(following: RecordedFollower) -> threading.Thread:
        thread = threading.Thread(target=following.follower.run, daemon=True)
        started.append((following, thread))
        thread.start()
        return thread

    yield start
    for following, thread in started:
        following.follower.close()
        thread.join(10)
