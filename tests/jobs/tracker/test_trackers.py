"""Trackers that stop, continue, and work at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs.submit_lock import is_being_submitted
from stoke.jobs.tracker import Tracker
from tests.jobs.tracker.job_log import JOB, RUN, end, log_of, output, track
from tests.scripted import RUNNING, Connection, ScriptedBackend, exited


def test_a_finished_job_is_not_asked_for_again(history: History) -> None:
    history.update(JOB, state=JobState.FAILED, exit_code=1)
    backend = ScriptedBackend(log_of(*RUN, end(0)))
    track(backend, history)
    assert (backend.opened, backend.asked) == ([], 0)


def test_closed_before_the_end_leaves_the_job_as_it_stands(history: History) -> None:
    backend = ScriptedBackend(log_of(*RUN, b"so far\n"), [Connection(end="open")], [RUNNING])
    tracker = Tracker(backend, history, JOB)
    thread = threading.Thread(target=tracker.run, daemon=True)
    thread.start()
    assert backend.waiting.wait(10)
    tracker.close()
    thread.join(10)
    assert not thread.is_alive()
    job = history.get(JOB)
    assert job is not None and (job.state, job.exit_code) == (JobState.RUNNING, None)

    more = ScriptedBackend(log_of(*RUN, b"so far\n", b"the rest\n", end(0)))
    assert track(more, history).state is JobState.SUCCEEDED
    assert output() == b"so far\nthe rest\n"


def test_two_trackers_at_once_keep_everything_once(history: History) -> None:
    """One follows; the other waits, takes over when the first leaves, and both see the end."""
    backend = ScriptedBackend(log_of(*RUN, b"one\n"), [Connection(end="open")], [RUNNING])
    first, second = Tracker(backend, history, JOB), Tracker(backend, history, JOB)
    threads = [threading.Thread(target=tracker.run, daemon=True) for tracker in (first, second)]
    for thread in threads:
        thread.start()
    assert backend.waiting.wait(10)
    assert len(backend.opened) == 1

    # The tracker that follows closes; the other continues from its checkpoint.
    backend.log[:] = log_of(*RUN, b"one\n", b"two\n", end(0))
    backend.states = [exited(0)]
    following = first if first._follower is not None else second
    following.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()

    job = history.get(JOB)
    assert job is not None and job.state is JobState.SUCCEEDED
    assert output() == b"one\ntwo\n"


def test_two_programs_track_one_job(history: History, tmp_path: Path) -> None:
    """Real processes: the first is killed with -9 in the middle, the second finishes."""
    code = textwrap.dedent(
        """
        from stoke.history.database import History
        from stoke.jobs.tracker import Tracker
        from tests.scripted import Connection, RUNNING, ScriptedBackend
        from tests.jobs.tracker.job_log import JOB, RUN, log_of

        backend = ScriptedBackend(log_of(*RUN, b"one\\n"), [Connection(end="open")], [RUNNING])
        with History() as history:
            print("tracking", flush=True)
            Tracker(backend, history, JOB).run()
        """
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert first.stdout is not None
    first.stdout.readline()
    while output() != b"one\n":
        assert first.poll() is None
    backend = ScriptedBackend(log_of(*RUN, b"one\n", b"two\n", end(0)))
    done: list[Job] = []
    second = threading.Thread(target=lambda: done.append(track(backend, history)), daemon=True)
    second.start()
    assert backend.opened == []
    first.kill()
    first.wait()
    second.join(30)

    assert [job.state for job in done] == [JobState.SUCCEEDED]
    assert output() == b"one\ntwo\n"


def test_catching_up_brings_the_record_up_to_now(history: History) -> None:
    backend = ScriptedBackend(log_of(*RUN, b"so far\n"), states=[RUNNING])
    Tracker(backend, history, JOB).catch_up()
    job = history.get(JOB)
    assert job is not None
    assert (job.state, job.started_at) == (JobState.RUNNING, 1002.0)
    assert output() == b"so far\n"


def test_events_that_come_again_after_a_restart_change_nothing(history: History) -> None:
    """Events after the last checkpoint are read twice."""
    backend = ScriptedBackend(log_of(*RUN, b"x\n", end(0)))
    Tracker(backend, history, JOB).catch_up()
    before = history.get(JOB)
    (job_dir(JOB) / "log.pos").unlink()
    Tracker(backend, history, JOB).catch_up()
    assert history.get(JOB) == before


def test_a_submit_in_progress_is_seen_from_outside(tmp_path: Path) -> None:
    assert not is_being_submitted(JOB)
    code = textwrap.dedent(
        """
        import fcntl, os, sys
        os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
        lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("held", flush=True)
        sys.stdin.read()
        """
    )
    submitter = subprocess.Popen(
        [sys.executable, "-c", code, os.fspath(job_dir(JOB) / "submit.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert submitter.stdout is not None
    submitter.stdout.readline()
    assert is_being_submitted(JOB)
    submitter.kill()
    submitter.wait()
    assert not is_being_submitted(JOB)
