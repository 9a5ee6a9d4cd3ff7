"""A history with the job that the tests track."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs import tracker as tracker_module
from stoke.logs import follower as follower_module
from tests.jobs.tracker.job_log import JOB, NONCE


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(follower_module, "BACKOFF_SECONDS", (0.0, 0.0))
    # The times of these jobs are of 1970.
    monkeypatch.setattr(tracker_module, "DOUBT_SECONDS", time.time() + 3600)


@pytest.fixture
def history() -> Iterator[History]:
    with History() as history:
        history.add(Job(JOB, "fit", "scripted", "default", JobState.STARTING, 1000.0), "{}", NONCE)
        yield history
