"""Readers of a log that cannot be saved: in the fallback folder, and back in the job's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stoke.backend.api import Frame
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs.tracker import Tracker
from stoke.logs.fallback import LogLocation, LogLocations
from stoke.logs.spool import STDOUT, SpoolReader
from tests.scripted import Connection, ScriptedBackend, exited
from tests.spools import size_of, spooled

JOB = "job-aaaaaa"
SECOND = 1_000_000_000
LOG = [
    Frame(STDOUT, 1000 * SECOND + number * 10**6, b"line %02d\n" % number) for number in range(40)
]
WHOLE = (len(LOG) * 8, len(LOG))


@pytest.fixture
def history() -> Iterator[History]:
    with History() as history:
        history.add(Job(JOB, "job", "scripted", "default", JobState.QUEUED, 1.0), None, None)
        yield history


@pytest.fixture
def unsaved(history: History) -> LogLocation:
    """The location of an ended job's log, which was shown whole and could not be saved."""
    (job_dir(JOB) / "follow.lock").mkdir(parents=True)  # A folder cannot be opened as a lock.
    location = LogLocation(job_dir(JOB))
    reasons: list[str] = []
    Tracker(
        ScriptedBackend(list(LOG), [], [exited()]),
        history,
        JOB,
        on_unsaved=lambda error: reasons.append(error.reason),
        location=location,
    ).run()
    assert reasons == ["Is a directory"]
    assert location.current != job_dir(JOB) and size_of(location.current) == WHOLE
    return location


def save(history: History, location: LogLocation, log: list[Frame]) -> list[tuple[int, int]]:
    """Save the log, now that its folder takes it. Return the bytes (saved, read) after each change."""
    (job_dir(JOB) / "follow.lock").rmdir()
    backend = ScriptedBackend(log, [Connection(batch=1)], [exited()])
    with closing(SpoolReader(location)) as reader:
        assert reader.size() == WHOLE
        sizes: list[tuple[int, int]] = []

        def note() -> None:
            sizes.append((size_of(job_dir(JOB))[0], reader.size()[0]))

        Tracker(backend, history, JOB, on_change=note, location=location).run()
    return sizes


def test_readers_move_back_once_all_that_they_show_is_saved(
    history: History, unsaved: LogLocation
) -> None:
    fallback = unsaved.current
    sizes = save(history, unsaved, list(LOG))
    assert {read for _, read in sizes} == {WHOLE[0]}
    assert len({saved for saved, _ in sizes}) > 10  # The log came back line by line.
    assert unsaved.current == job_dir(JOB) and not fallback.exists()
    assert spooled(job_dir(JOB), STDOUT) == b"".join(frame.data for frame in LOG)
    job = history.get(JOB)
    assert job is not None and not job.provisional


def test_readers_move_back_at_the_end_of_a_log_that_the_engine_has_no_longer(
    history: History, unsaved: LogLocation
) -> None:
    save(history, unsaved, LOG[30:])
    assert unsaved.current == job_dir(JOB)
    assert spooled(job_dir(JOB), STDOUT) == b"".join(frame.data for frame in LOG[30:])


def test_readers_move_back_when_another_process_has_saved_the_log(
    history: History, unsaved: LogLocation
) -> None:
    (job_dir(JOB) / "follow.lock").rmdir()
    Tracker(ScriptedBackend(list(LOG), [], [exited()]), history, JOB).run()
    assert unsaved.current != job_dir(JOB)  # Only the tracker that shares the location moves it.
    Tracker(ScriptedBackend(), history, JOB, location=unsaved).run()
    assert unsaved.current == job_dir(JOB)


def test_a_program_has_one_location_a_job(tmp_path: Path) -> None:
    locations = LogLocations()
    assert locations.of(JOB) is locations.of(JOB) is not locations.of("other-aaaaaa")
    assert LogLocations().of(JOB).current == job_dir(JOB)
    assert LogLocation(tmp_path).current == tmp_path
