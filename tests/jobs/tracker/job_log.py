"""A job of the tests: its log as the runner writes it, and its record after a tracker has read it."""

from __future__ import annotations

from typing import Any

from stoke.backend.api import Frame
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs.tracker import Tracker
from stoke.logs.spool import STDERR, STDOUT
from stoke.remote.events import Event
from stoke.remote.protocol import frame
from tests.scripted import ScriptedBackend
from tests.spools import spooled

NONCE = "5f1c0a9be2d34718"
JOB = "fit-aaaaaa"
SECOND = 1_000_000_000


def log_of(*parts: bytes | Event) -> list[Frame]:
    """One frame a part: bytes on stdout, events on stderr at the time that they tell."""
    frames = []
    at = 1000 * SECOND
    for part in parts:
        if isinstance(part, bytes):
            at += 10**6
            frames.append(Frame(STDOUT, at, part))
        else:
            told = [part.get(name) for name in ("time", "start", "seconds")]
            ends = sum(one for one in told if isinstance(one, (int, float)) and 0 < one < 5000)
            at = max(at + 10**6, round(ends * SECOND))
            frames.append(Frame(STDERR, at, frame(NONCE, part)))
    return frames


def begin(phase: str, time: float) -> Event:
    return {"event": "begin", "phase": phase, "time": time}


def end(code: int, reason: str | None = None, time: float = 1009.5) -> Event:
    return {
        "event": "end",
        "time": time,
        "exit_code": code,
        "reason": reason,
        "cpu_seconds": 0.5,
        "peak_memory": 12345678,
    }


RUN = [begin("lock", 1001.0), begin("run", 1002.0)]


def track(backend: ScriptedBackend, history: History, **calls: Any) -> Job:
    Tracker(backend, history, JOB, **calls).run()
    job = history.get(JOB)
    assert job is not None
    return job


def state_of(history: History) -> tuple[JobState, bool]:
    job = history.get(JOB)
    assert job is not None
    return job.state, job.provisional


def output() -> bytes:
    return spooled(job_dir(JOB), STDOUT)
