"""Clients of a job on every backend: repeated submits, other programs, and clients that are killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

from stoke.backend.api import Delivery
from stoke.backend.capabilities import KeepsFinishedJobs
from stoke.backend.pool import Backends
from stoke.cache.keys import request_hash, request_keys
from stoke.delivery.payload import make_payload, runner_source
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs.prepare import prepare
from stoke.jobs.refresh import adopt, refresh
from stoke.jobs.request import Request
from stoke.jobs.submit import submit
from tests.lab import Lab, until


def test_the_same_submit_twice_is_one_job(lab: Lab) -> None:
    job = lab.submit("import time; print('once'); time.sleep(1)")
    with History() as history:
        spec = lab.request("print('once')").spec
        again = Request(spec)
        other = submit(prepare(again, lab.backend, history), history)
    assert other.id != job.id
    payload = make_payload(
        spec, request_keys(spec), nonce="n", program="main.py", lock_ttl=0, upgrade=False
    )
    delivery = Delivery(job.id, spec, runner_source(spec), "n", payload, b"{}", request_hash(spec))
    lab.backend.submit(delivery, lambda *_: None)
    assert lab.finish(job).stdout == b"once\n"
    lab.finish(other)


def test_a_job_is_found_by_a_program_with_another_history(lab: Lab) -> None:
    job = lab.submit("import time; print('still here', flush=True); time.sleep(1); print('done')")
    with History() as history:
        history.remove(job.id)
        (found,) = [one for one in adopt(lab.backend, history) if one.id == job.id]
    done = lab.finish(found)
    assert (done.stdout, done.job.state) == (b"still here\ndone\n", JobState.SUCCEEDED)
    assert done.job.scope == lab.scope
    with History() as history:
        assert "still here" in (history.spec(job.id) or "")


def is_cleaned_up(lab: Lab, job: Job) -> bool:
    """Whether the engine no longer lists the job, and has removed it unless it keeps finished jobs."""
    listed = any(one.job_id == job.id for one in lab.backend.jobs())
    keeps = isinstance(lab.backend, KeepsFinishedJobs)
    return not listed and (keeps or lab.backend.inspect(job.id).status == "absent")


def test_a_job_that_ended_unobserved_is_finalized(lab: Lab) -> None:
    job = lab.submit("print('alone')")
    until(lambda: lab.backend.inspect(job.id).status == "exited", "the end of the job")
    backends = Backends(lab.config)
    with History() as history:
        (fresh,) = refresh([job], backends, history, seconds=30)
    assert (fresh.state, fresh.stale) == (JobState.SUCCEEDED, False)
    assert lab.output(job, 1) == b"alone\n"
    assert is_cleaned_up(lab, job)


# A second is short for this log: the listing gets a tenth of one, after the engine has answered.
LISTS = """
import json, sys, time
from stoke.config.loader import load_config
from stoke.history.database import History
from stoke.backend.pool import Backends
from stoke.jobs.refresh import refresh
backends, history = Backends(load_config()), History()
job = history.get(sys.argv[1])
backends.get(job.backend).inspect(job.id)
(job,) = refresh([job], backends, history, seconds=0.1)
print(json.dumps([str(job.state), job.provisional, job.stale]))
"""


def most_lines(lab: Lab) -> int:
    """A node rotates a log at 10 MB, of which some 45 bytes a line are its own."""
    return 60_000 if lab.backend.name == "argo" else 1_000_000


def test_listings_finish_a_log_that_none_of_them_can_read_in_its_time(lab: Lab) -> None:
    """Each listing continues where the one before it stopped; none reports "running"."""
    lines = min(150_000, most_lines(lab))
    job = lab.submit(f"for number in range({lines}): print('%099d' % number)")
    until(lambda: lab.backend.inspect(job.id).status == "exited", "the end of the job")
    sizes, deadline = [0], time.monotonic() + 120
    states: list[list[object]] = []
    while not states or states[-1][1]:
        command = [sys.executable, "-c", LISTS, job.id]
        listed = subprocess.run(command, capture_output=True, check=True, env=os.environ)
        states.append(json.loads(listed.stdout))
        sizes.append(len(lab.output(job, 1)))
        assert time.monotonic() < deadline, "it does not come to an end"
    assert {state for state, _, _ in states} == {"succeeded"}
    assert sizes == sorted(sizes)
    with History() as history:
        done = history.get(job.id)
    assert done is not None and (done.log_lines, done.exit_code) == (lines, 0)
    expected = b"".join(b"%099d\n" % number for number in range(lines))
    assert hashlib.sha256(lab.output(job, 1)).digest() == hashlib.sha256(expected).digest()


def test_two_programs_read_a_long_log_at_once(lab: Lab) -> None:
    """One follows, as the app does, while listings come and go: every byte once."""
    lines = min(100_000, most_lines(lab))
    job = lab.submit(f"for number in range({lines}): print('%099d' % number)")
    follower = subprocess.Popen(
        [sys.executable, "-c", FOLLOWS, lab.backend.name, job.id], env=os.environ
    )
    while follower.poll() is None:
        command = [sys.executable, "-c", LISTS, job.id]
        subprocess.run(command, capture_output=True, check=True, env=os.environ)
    assert follower.returncode == 0
    done = lab.finish(job)
    assert done.job.log_lines == lines
    expected = b"".join(b"%099d\n" % number for number in range(lines))
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(expected).digest()


FOLLOWS = """
import sys
import time
from pathlib import Path
from stoke.config.loader import load_config
from stoke.history.database import History
from stoke.backend.pool import Backends
from stoke.jobs.tracker import Tracker
Tracker(Backends(load_config()).get(sys.argv[1]), History(), sys.argv[2]).run()
"""


def test_a_client_killed_while_it_follows_loses_and_doubles_nothing(lab: Lab) -> None:
    code = "for n in range(30000): print(n, 'x' * (n % 97), flush=n % 500 == 0)"
    expected = b"".join(b"%d %s\n" % (n, b"x" * (n % 97)) for n in range(30000))
    job = lab.submit("import time\n" + code + "\ntime.sleep(0.5); print('end')")
    for _ in range(6):
        before = len(lab.output(job, 1))
        command = [sys.executable, "-c", FOLLOWS, lab.backend.name, job.id]
        client = subprocess.Popen(command, env=os.environ)
        while len(lab.output(job, 1)) == before and client.poll() is None:
            time.sleep(0.005)
        client.send_signal(signal.SIGKILL)
        client.wait()
    done = lab.finish(job)
    assert done.stdout == expected + b"end\n"


SUBMITS = """
import sys
import time
from pathlib import Path
from stoke.config.loader import load_config
from stoke.history.database import History
from stoke.backend.pool import Backends
from stoke.jobs.request import Request
from stoke.jobs.prepare import prepare
from stoke.jobs.submit import submit
from stoke.request.sources import request_from_options
spec = request_from_options(code="print('survived')", scope=sys.argv[2])
print("begin", flush=True)
history = History()
backend = Backends(load_config()).get(sys.argv[1])
submit(prepare(Request(spec, name="killed"), backend, history), history)
"""


def test_a_client_killed_during_a_submit_leaves_a_complete_job_or_none(lab: Lab) -> None:
    for delay in range(0, 60, 4):
        client = subprocess.Popen(
            [sys.executable, "-c", SUBMITS, lab.backend.name, lab.scope],
            env=os.environ,
            stdout=subprocess.PIPE,
        )
        assert client.stdout is not None
        client.stdout.readline()
        try:
            client.wait(delay / 1000)
        except subprocess.TimeoutExpired:
            client.send_signal(signal.SIGKILL)
            client.wait()
    backends = Backends(lab.config)
    with History() as history:

        def mine(unfinished: bool = False) -> list[Job]:
            # An engine may have jobs of other users, too.
            return [job for job in history.list(unfinished=unfinished) if job.scope == lab.scope]

        adopt(lab.backend, history)
        until(
            lambda: all(
                job.state.finished and not job.provisional
                for job in refresh(mine(unfinished=True), backends, history, seconds=30)
            ),
            "an end for every job",
        )
        jobs = mine()
    assert {job.state for job in jobs} <= {JobState.SUCCEEDED, JobState.LOST}
    for job in jobs:
        assert is_cleaned_up(lab, job)
        wanted = b"survived\n" if job.state == JobState.SUCCEEDED else b""
        assert lab.output(job, 1) == wanted
