"""Jobs that wait for their turn on this machine: slots, order, dependencies, kills."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from stoke.delivery.stored_delivery import delivery_file
from stoke.files.file_lock import take_lock
from stoke.files.paths import state_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import JobQueue
from stoke.jobs import background
from stoke.jobs.scheduler_process import scheduler_lock, wake_scheduler
from tests.cli.conftest import Stoke
from tests.hints import command, exported, filled, is_hint
from tests.lab import until


@pytest.fixture(autouse=True)
def two_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKE_QUEUE__SLOTS", "2")


@pytest.fixture(autouse=True)
def no_scheduler_left(two_slots: None, own_home: Path) -> Iterator[None]:
    yield
    with History() as history:
        JobQueue(history).pause(["local"])
    until(lambda: scheduler_pid() is None, "the end of the scheduler")


def scheduler_pid() -> int | None:
    """The scheduler of this test's history: it has the file of its lock open."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # It has just ended.
            if b"stoke.jobs.scheduler" in (process / "cmdline").read_bytes() and str(
                scheduler_lock()
            ) in open_files(process):
                return int(process.name)
    return None


def open_files(process: Path) -> list[str]:
    found = []
    for one in list((process / "fd").iterdir()):
        with suppress(FileNotFoundError):  # It has just been closed.
            found.append(os.readlink(one))
    return found


def is_awake(history: History) -> bool:
    wake_scheduler(history)
    return scheduler_pid() is not None or not JobQueue(history).ids()


def waits_for(gate: Path) -> str:
    """Code that runs until a file exists."""
    return f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)"


def appends(log: Path, text: str) -> str:
    return f"open({str(log)!r}, 'a').write({text + chr(10)!r})"


class Queue:
    """Submits jobs of the tests and looks at them."""

    def __init__(self, stoke: Stoke, folder: Path) -> None:
        self.stoke = stoke
        self.gate, self.log = folder / "gate", folder / "log"

    def submit(self, code: str, *options: str, name: str = "job") -> str:
        done = self.stoke("run", "-q", "-d", "--name", name, *options, "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def fill(self) -> list[str]:
        """Take both slots until `open` is called."""
        return [self.submit(waits_for(self.gate), name=f"filler{n}") for n in range(2)]

    def open(self) -> None:
        self.gate.touch()

    def job(self, job_id: str) -> Job:
        with History() as history:
            job = history.get(job_id)
        assert job is not None
        return job

    def listed(self) -> list[dict[str, object]]:
        found = json.loads(self.stoke("queue", "list", "-b", "local", "--json").stdout)
        assert isinstance(found, list)
        return found

    def reason(self, job_id: str) -> str | None:
        return self.job(job_id).reason

    def until_over(self, *job_ids: str) -> list[Job]:
        def over() -> bool:
            self.stoke("jobs")
            return all(self.job(one).state.finished for one in job_ids)

        until(over, f"the end of {job_ids}")
        return [self.job(one) for one in job_ids]

    def logged(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
def queue(stoke: Stoke, tmp_path: Path) -> Queue:
    return Queue(stoke, tmp_path)


def test_no_more_jobs_run_at_once_than_there_are_slots(queue: Queue) -> None:
    running = queue.fill()
    third = queue.submit("print('third')", name="third")
    until(lambda: "2 of 2" in (queue.reason(third) or ""), "the reason")
    assert queue.job(third).state is JobState.QUEUED
    shown = queue.stoke("show", third).stdout
    assert b"queued" in shown and b"waits for a slot: 2 of 2 are in use" in shown
    assert queue.stoke("queue", "list").stdout.splitlines()[1].split()[:3] == [
        b"1",
        third.encode(),
        b"local",
    ]
    queue.open()
    done = queue.until_over(third, *running)
    assert [job.state for job in done] == [JobState.SUCCEEDED] * 3
    assert done[0].reason is None
    assert [phase.name for phase in done[0].phases][:2] == ["queue", "start"]
    assert queue.stoke("logs", third).stdout == b"third\n"


def test_a_job_starts_at_once_while_a_slot_is_free(queue: Queue) -> None:
    queue.submit(waits_for(queue.gate))
    second = queue.submit(appends(queue.log, "second"))
    queue.until_over(second)
    assert queue.job(second).phases[0].name == "start"
    queue.open()


def test_a_job_that_the_user_waits_for_takes_no_turn(queue: Queue) -> None:
    queue.fill()
    assert queue.stoke("run", "-q", "-c", "print('now')").stdout == b"now\n"
    queue.open()


def test_an_attached_job_that_follows_others_waits_and_says_why(
    queue: Queue, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    first = queue.submit(waits_for(queue.gate))
    run = start("run", "--after", first, "-c", "print('then')")
    assert run.stderr is not None
    told = run.stderr.readline()
    assert f"waits for {first} to succeed (".encode() in told, told
    queue.open()
    out, _ = run.communicate(timeout=60)
    assert (out, run.returncode) == (b"then\n", 0)


def test_ctrl_c_takes_an_attached_job_out_of_the_queue(
    queue: Queue, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    first = queue.submit(waits_for(queue.gate))
    run = start("run", "--after", first, "-c", "print('then')")
    until(lambda: len(queue.listed()) == 1, "the job in the queue")
    (waiting,) = queue.listed()
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (out, run.returncode) == (b"", 130), err
    assert queue.job(str(waiting["job"])).state is JobState.STOPPED
    assert queue.listed() == []
    queue.open()


def test_order_priority_and_moves(queue: Queue) -> None:
    queue.stoke("queue", "pause", "-b", "local")
    ids = [queue.submit(appends(queue.log, name), name=name) for name in "abcd"]
    urgent = queue.submit(appends(queue.log, "urgent"), "--priority", "3", name="urgent")
    low = queue.submit(appends(queue.log, "low"), "--priority", "-3", name="low")
    assert [one["job"] for one in queue.listed()] == [urgent, *ids, low]
    assert queue.stoke("queue", "move", "d", "2").returncode == 0
    assert queue.stoke("queue", "move", low, "99").returncode == 0
    told = queue.stoke("queue", "priority", "a", "--", "-1").stderr
    assert told.endswith(f"{ids[0]} has place 6 of 6 on local\n".encode())
    a, b, c, d = ids
    assert [one["job"] for one in queue.listed()] == [urgent, d, b, c, low, a]


def test_a_paused_queue_starts_nothing_until_it_is_resumed(queue: Queue) -> None:
    assert queue.stoke("queue", "pause", "-b", "local").returncode == 0
    job = queue.submit("print(1)")
    listed = queue.stoke("queue", "list")
    assert b"stoke queue resume -b local" in listed.stderr and job.encode() in listed.stdout
    assert scheduler_pid() is None
    assert "the queue is paused" in (queue.reason(job) or "") and b"paused" in listed.stdout
    queue.stoke("queue", "resume")
    ended = queue.until_over(job)[0]
    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, None)


def test_a_scheduler_leaves_a_history_that_a_newer_stoke_has_upgraded(queue: Queue) -> None:
    """A newer one may have put jobs there that this one would take for others, and fail."""
    queue.fill()
    second = queue.submit(appends(queue.log, "second"))
    until(lambda: "slot" in (queue.reason(second) or ""), "the scheduler's reason")
    with closing(sqlite3.connect(state_dir() / "history.sqlite")) as file:
        (version,) = file.execute("PRAGMA user_version").fetchone()
        file.execute(f"PRAGMA user_version = {version + 1}")
        until(lambda: scheduler_pid() is None, "the end of the scheduler")
        queue.open()
        assert not queue.log.exists()
        file.execute(f"PRAGMA user_version = {version}")
    queue.stoke("jobs")  # Starts another one.
    assert queue.until_over(second)[0].state is JobState.SUCCEEDED
    assert queue.logged() == ["second"]


@pytest.mark.parametrize("command", [["move", "JOB", "1"], ["priority", "JOB", "4"]])
def test_only_waiting_jobs_can_be_moved(queue: Queue, command: list[str]) -> None:
    job = queue.submit("print(1)")
    queue.until_over(job)
    done = queue.stoke("queue", *[job if word == "JOB" else word for word in command])
    assert done.returncode == 2
    assert b"does not wait in the queue; its state is: succeeded" in done.stderr
    hint = done.stderr.decode().partition("hint: ")[2].strip()
    assert filled(hint, "see: stoke show {}") == (job,)
    assert queue.stoke("show", job).returncode == 0


def test_a_job_follows_others_of_any_depth(queue: Queue) -> None:
    first = queue.submit(waits_for(queue.gate) + "\n" + appends(queue.log, "first"))
    second = queue.submit(appends(queue.log, "second"), "--after", first)
    third = queue.submit(appends(queue.log, "third"), "--after", second, "--after", first)
    until(lambda: "succeed (" in (queue.reason(third) or ""), "the reason")
    assert queue.listed()[1]["after"] == [
        {"job": second, "any_end": False},
        {"job": first, "any_end": False},
    ]
    queue.open()
    queue.until_over(third)
    assert queue.logged() == ["first", "second", "third"]


def test_a_job_that_follows_a_failed_one_never_starts(queue: Queue) -> None:
    first = queue.submit(waits_for(queue.gate) + "\nraise SystemExit(3)")
    then = queue.submit(appends(queue.log, "then"), "--after", first)
    behind = queue.submit(appends(queue.log, "behind"), "--after", then)
    anyway = queue.submit(appends(queue.log, "anyway"), "--after-any", first)
    queue.open()
    done, last, _ = queue.until_over(then, behind, anyway)
    assert (done.state, done.exit_code) == (JobState.STOPPED, None)
    assert done.reason == f"never started: {first}, which it follows, failed"
    assert last.reason == f"never started: {then}, which it follows, was stopped"
    assert queue.logged() == ["anyway"]
    refused = queue.stoke("run", "-d", "--after", first, "-c", "1").stderr.decode()
    assert f"the job would never start: {first}, which it follows, failed" in refused
    (job,) = filled(
        refused.partition("hint: ")[2].strip(),
        "use --after-any, or run that job again: stoke rerun {}",
    )
    assert queue.stoke("run", "-q", "--after-any", job, "-c", "print(1)").stdout == b"1\n"
    assert queue.stoke("rerun", job).returncode == 3


def test_a_job_that_is_removed_ends_those_that_follow_it(queue: Queue) -> None:
    queue.fill()
    first = queue.submit("print(1)")
    then = queue.submit("print(2)", "--after", first)
    assert queue.stoke("stop", first).returncode == 0
    assert queue.stoke("rm", first).returncode == 0
    (done,) = queue.until_over(then)
    assert done.state is JobState.STOPPED
    assert (done.reason or "").startswith(f"never started: {first}, which it follows, was ")
    queue.open()


@pytest.mark.parametrize("option", ["--after", "--after-any"])
def test_a_job_that_does_not_exist_cannot_be_followed(queue: Queue, option: str) -> None:
    queue.submit("print(1)", name="prepare")
    done = queue.stoke("run", "-d", option, "prepaer", "-c", "1")
    assert done.returncode == 1 and b"did you mean: prepare" in done.stderr


def test_a_waiting_job_can_be_stopped(queue: Queue) -> None:
    queue.fill()
    job = queue.submit(appends(queue.log, "ran"))
    assert delivery_file(job).exists()
    assert queue.stoke("stop", job).returncode == 0
    done = queue.job(job)
    assert done.state is JobState.STOPPED and "while it waited" in (done.reason or "")
    assert not delivery_file(job).exists() and queue.listed() == []
    queue.open()
    queue.until_over(queue.submit(appends(queue.log, "next")))
    assert queue.logged() == ["next"]


def test_a_waiting_job_keeps_what_its_user_had(queue: Queue, tmp_path: Path) -> None:
    """Environment, secrets and the files of its project, as they were when it was submitted."""
    queue.fill()
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text("[project]\nname = 'p'\nversion = '1'\n")
    (project / "helper.py").write_text("VALUE = 'before'\n")
    script = project / "main.py"
    script.write_text(
        "import os, helper\nprint(os.environ['MINE'], os.environ['TOKEN'], helper.VALUE)\n"
    )
    env = {"MINE": "mine", "HIDDEN": "s3cret"}
    words = ["run", "-q", "-d", "--secret", "TOKEN=env:HIDDEN", str(script)]
    job = queue.stoke(*words, env=env).stdout.decode().strip()
    path = delivery_file(job)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (project / "helper.py").write_text("VALUE = 'after'\n")
    queue.open()
    queue.until_over(job)
    assert queue.stoke("logs", job).stdout == b"mine s3cret before\n"
    assert not path.exists()
    packs = state_dir() / "projects" / "packs"
    assert list(packs.iterdir()) == []


def test_a_scope_has_slots_of_its_own(queue: Queue, own_home: Path) -> None:
    (own_home / "config.toml").write_text("[scopes.narrow]\nslots = 1\n")
    first = queue.submit(waits_for(queue.gate), "--scope", "narrow")
    second = queue.submit("print(2)", "--scope", "narrow")
    other = queue.submit(appends(queue.log, "other"))
    until(lambda: "scope narrow: 1 of 1" in (queue.reason(second) or ""), "the reason")
    queue.until_over(other)
    assert queue.logged() == ["other"]
    queue.open()
    queue.until_over(first, second)


def test_a_job_waits_for_a_gpu(queue: Queue, own_home: Path) -> None:
    (own_home / "config.toml").write_text('[local]\ngpus = ["0"]\n')
    first = queue.submit(waits_for(queue.gate), "--gpu", "1")
    second = queue.submit("print(2)", "--gpu", "1")
    until(lambda: "1 of 1 GPUs wanted, 0 free" in (queue.reason(second) or ""), "the reason")
    other = queue.submit(appends(queue.log, "other"))
    queue.until_over(other)
    queue.open()
    queue.until_over(first, second)


def test_a_damaged_delivery_is_an_error_of_its_job_alone(queue: Queue) -> None:
    queue.fill()
    job, other = queue.submit("print(1)"), queue.submit("print(2)")
    delivery_file(job).write_text("{")
    queue.open()
    done, fine = queue.until_over(job, other)
    assert done.state is JobState.FAILED and "cannot be read" in (done.reason or "")
    assert fine.state is JobState.SUCCEEDED


def test_a_second_scheduler_ends_at_once(queue: Queue) -> None:
    queue.fill()
    queue.submit("print(1)")
    until(lambda: scheduler_pid() is not None, "the scheduler")
    first = scheduler_pid()
    command = [sys.executable, "-P", "-m", "stoke.jobs.scheduler"]
    assert subprocess.run(command, timeout=60).returncode == 0
    assert scheduler_pid() == first
    queue.open()


def test_the_next_command_continues_after_a_kill(queue: Queue) -> None:
    queue.fill()
    job = queue.submit("print(1)")
    until(lambda: scheduler_pid() is not None, "the scheduler")
    pid = scheduler_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: scheduler_pid() is None, "the end of the scheduler")
    queue.open()
    assert queue.until_over(job)[0].state is JobState.SUCCEEDED


def test_schedulers_that_are_killed_start_every_job_exactly_once(queue: Queue) -> None:
    """Killed at random moments, whatever they are doing."""
    queue.stoke("queue", "pause", "-b", "local")
    names = [f"n{number}" for number in range(12)]
    ids = [queue.submit(appends(queue.log, name), name=name) for name in names]
    with History() as history:
        JobQueue(history).resume(["local"])
        dice, kills = random.Random(7), 0
        deadline = time.monotonic() + 120
        while JobQueue(history).ids():
            assert time.monotonic() < deadline
            # The kernel releases the lock of a killed one a moment after its files are closed.
            until(lambda: is_awake(history), "a scheduler")
            pid = scheduler_pid()
            if pid is not None and kills < 25:
                time.sleep(dice.uniform(0, 0.2))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
                until(lambda pid=pid: scheduler_pid() != pid, "its end")  # type: ignore[misc]
    assert kills > 2
    done = queue.until_over(*ids)
    assert {job.state for job in done} == {JobState.SUCCEEDED}
    assert sorted(queue.logged()) == sorted(names)


def test_a_job_that_comes_while_the_scheduler_ends_is_not_forgotten(queue: Queue) -> None:
    """It found the lock taken, so only the ending scheduler can start it."""
    state_dir().mkdir(parents=True, exist_ok=True)
    lock = take_lock(scheduler_lock(), wait=False)
    assert lock is not None
    job = queue.submit("print(1)")
    assert [one["job"] for one in queue.listed()] == [job]
    os.close(lock)
    assert queue.until_over(job)[0].state is JobState.SUCCEEDED


def test_many_that_look_for_the_scheduler_start_one(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new process needs half a second until it could take the lock by itself."""
    queue.fill()
    queue.submit("print(1)")
    until(lambda: scheduler_pid() is not None, "the scheduler")
    pid = scheduler_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: scheduler_pid() is None, "its end")
    started: list[str] = []
    start = background.start

    def counted(module: str, *arguments: str, **options: Any) -> None:
        started.append(module)
        start(module, *arguments, **options)

    monkeypatch.setattr(background, "start", counted)
    with History() as history:
        until(lambda: is_awake(history), "a scheduler")
        for _ in range(20):
            wake_scheduler(history)
    assert started == ["stoke.jobs.scheduler"]
    queue.open()


def test_results_that_a_job_cannot_get_are_named_with_the_fix(queue: Queue) -> None:
    code = "import os; open(os.environ['STOKE_RESULTS'] + '/a', 'wb').write(bytes(5 << 20))"
    reads = "import os; print(len(open(os.environ['STOKE_INPUTS'] + '/first/a', 'rb').read()))"
    small = {"STOKE_RESULTS__MAX_SIZE": "4m", "STOKE_RESULTS__MAX_INPUTS": "4m"}
    first = (
        queue.stoke("run", "-d", "--name", "first", "-c", code, env=small).stdout.decode().strip()
    )
    until(lambda: b"MiB" in queue.stoke("show", first, env=small).stdout, "the refused results")
    follow = ("run", "-q", "--after", first, "-c", reads)
    refused = queue.stoke(*follow, env=small)
    assert refused.returncode == 125 and b"were not collected" in refused.stderr
    hint = refused.stderr.decode().partition("hint: ")[2].strip()
    is_hint(hint, "collect them, then run it again: stoke results {}")
    assert queue.stoke(*command(hint)).returncode == 0
    refused = queue.stoke(*follow, env=small)
    assert refused.returncode == 125 and b"have 5.0 MiB" in refused.stderr
    hint = refused.stderr.decode().partition("hint: ")[2].strip()
    is_hint(hint, "raise the limit and run it again: export STOKE_RESULTS__MAX_INPUTS={}")
    assert queue.stoke(*follow, env=small | exported(hint)).stdout == b"5242880\n"
