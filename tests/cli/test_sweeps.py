"""Sweeps on this machine: many tasks of one request, through the queue."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stoke.delivery.stored_delivery import delivery_file
from stoke.files.paths import job_dir, state_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import JobQueue
from stoke.history.sweeps import Sweeps
from stoke.jobs.inputs import inputs_file
from tests.cli.conftest import Stoke
from tests.cli.test_queue import is_awake, scheduler_pid, waits_for
from tests.hints import command, filled
from tests.lab import until

# Appends a line to the file that an argument names, in one write.
NOTE = "import os, sys; open(sys.argv[1], 'a').write(os.environ['STOKE_TASK_ID'] + chr(10))"


@pytest.fixture(autouse=True)
def two_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKE_QUEUE__SLOTS", "2")


@pytest.fixture(autouse=True)
def no_scheduler_left(two_slots: None, own_home: Path) -> Iterator[None]:
    yield
    with History() as history:
        for waiting in JobQueue(history).waiting("local"):
            if waiting.kind == "sweep":
                Sweeps(history).close(waiting.id, "the test has ended")
        JobQueue(history).pause(["local"])
    for started in own_home.glob("state/local/*/started.json"):
        with suppress(OSError, ProcessLookupError, KeyError, ValueError):
            os.kill(json.loads(started.read_text())["pid"], signal.SIGQUIT)
    until(lambda: scheduler_pid() is None, "the end of the scheduler")


class Lab:
    def __init__(self, stoke: Stoke, folder: Path) -> None:
        self.stoke = stoke
        self.gate, self.log = folder / "gate", folder / "log"

    def detach(self, *words: str) -> str:
        done = self.stoke("run", "-q", "-d", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def shown(self, name: str) -> dict[str, Any]:
        found = json.loads(self.stoke("show", name, "--json").stdout)
        assert isinstance(found, dict)
        return found

    def job(self, job_id: str) -> Job:
        with History() as history:
            job = history.get(job_id)
        assert job is not None
        return job

    def states(self, sweep_id: str) -> list[str]:
        with History() as history:
            sweep = Sweeps(history).get(sweep_id)
            assert sweep is not None
            return [str(state) for state in Sweeps(history).states(sweep)]

    def running(self, sweep_id: str) -> int:
        self.stoke("jobs")  # Reads how far the tasks are.
        return self.states(sweep_id).count("running")

    def until_over(self, sweep_id: str) -> Job:
        def over() -> bool:
            self.stoke("jobs")
            return self.job(sweep_id).state.finished

        until(over, f"the end of {sweep_id}")
        return self.job(sweep_id)

    def table(self, sweep_id: str) -> list[dict[str, Any]]:
        found = json.loads(self.stoke("results", sweep_id, "--table", "--json").stdout)
        assert isinstance(found, list)
        return found

    def logged(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
def lab(stoke: Stoke, tmp_path: Path) -> Lab:
    return Lab(stoke, tmp_path)


def only_sweep() -> Job:
    with History() as history:
        (job,) = history.list()
    return job


def test_a_sweep_runs_every_task_and_tells_which_failed(lab: Lab) -> None:
    code = (
        "import os, sys; print(sys.argv[1:], os.environ['STOKE_TASK_LR'])\n"
        "sys.exit(3 if os.environ['STOKE_TASK_SEED'] == '2' else 0)"
    )
    done = lab.stoke(
        "run",
        "--name",
        "fit",
        "--each",
        "lr=0.1,0.01",
        "--each",
        "seed=1..3",
        "-c",
        code,
        "--",
        "-v",
    )
    assert done.returncode == 1, done.stderr
    heads, *rows = done.stdout.decode().splitlines()
    assert heads.split()[:6] == ["TASK", "STATE", "EXIT", "TOOK", "LR", "SEED"]
    assert [row.split()[0:3] for row in rows] == [["2", "failed", "3"], ["5", "failed", "3"]]
    assert "['-v', '--lr', '0.1', '--seed', '2'] 0.1" in rows[0]
    told = done.stderr.decode()
    assert "4 of 6 tasks succeeded, 2 failed; took" in told
    sweep = only_sweep()
    assert sweep.id.startswith("fit-") and f"{sweep.id}: 6 tasks" in told
    assert (sweep.kind, sweep.state, sweep.exit_code) == ("sweep", JobState.FAILED, 1)
    assert sweep.reason == "2 of 6 tasks failed"
    assert (
        lab.stoke("logs", sweep.id, "--task", "4").stdout
        == b"['-v', '--lr', '0.01', '--seed', '1'] 0.01\n"
    )
    assert not delivery_file(sweep.id).exists()
    with History() as history:
        assert JobQueue(history).ids() == set()


def test_a_sweep_without_a_failure_ends_with_0_and_prints_no_table(lab: Lab) -> None:
    done = lab.stoke("run", "--each", "n=1..3", "-c", "pass")
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert b"3 of 3 tasks succeeded; took" in done.stderr
    assert only_sweep().exit_code == 0


def test_quiet_prints_nothing(lab: Lab) -> None:
    done = lab.stoke("run", "-q", "--each", "n=1,2", "-c", "raise SystemExit(int(n))")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_values_arrive_literally(lab: Lab, tmp_path: Path) -> None:
    values = ["a'b\"c", "x\ny", "{{ x }}", "$(touch pwned)", "`id`; id", "-e", "{id}", "ünï"]
    path = tmp_path / "values.jsonl"
    path.write_text("\n".join(json.dumps({"v": value}) for value in values))
    code = "import os, sys, json; print(json.dumps([sys.argv[1:], os.environ['STOKE_TASK_V']]))"
    done = lab.stoke("run", "-q", "--each-file", str(path), "-c", code, "--", "<{v}>", "{{v}}")
    assert done.returncode == 0, done.stderr
    found = [json.loads(row["last_line"]) for row in lab.table(only_sweep().id)]
    assert found == [[[f"<{value}>", "{v}"], value] for value in values]
    assert [row["values"]["v"] for row in lab.table(only_sweep().id)] == values


def test_lines_are_the_last_argument(lab: Lab) -> None:
    done = lab.stoke(
        "run", "-q", "--each-line", "-", "-c", "import sys; print(sys.argv[1:])", "--", "x",
        stdin=b"one\ntwo words\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [row["last_line"] for row in lab.table(only_sweep().id)]
    assert found == ["['x', 'one']", "['x', 'two words']"]


def test_a_detached_sweep_starts_no_more_tasks_than_it_may(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKE_QUEUE__SLOTS", "4")
    sweep = lab.detach("--each", "n=1..6", "--max-parallel", "3", "-c", waits_for(lab.gate))
    until(lambda: lab.running(sweep) == 3, "three tasks that run")
    # A job behind it has the fourth slot: only the sweep waits for its own limit.
    behind = lab.stoke("run", "-q", "-d", "-c", "print('behind')").stdout.decode().strip()
    lab.until_over(behind)
    assert lab.states(sweep) == ["running"] * 3 + ["queued"] * 3
    assert lab.job(sweep).reason == "3 of 3 tasks run (--max-parallel)"
    listed = lab.stoke("jobs").stdout.decode()
    assert "0 of 6 done, 3 running" in listed and f"{sweep}-1" not in listed
    shown = lab.stoke("show", sweep).stdout.decode()
    assert "▸▸▸···" in shown and "at most 3 at once" in shown
    lab.gate.touch()
    assert lab.until_over(sweep).state is JobState.SUCCEEDED
    started = sorted((row["started_at"], 1) for row in map(lab.shown, task_ids(sweep, 6)))
    ended = sorted((row["finished_at"], -1) for row in map(lab.shown, task_ids(sweep, 6)))
    running, most = 0, 0
    for _, change in sorted(started + ended):
        running += change
        most = max(most, running)
    assert most == 3


def task_ids(sweep: str, count: int) -> list[str]:
    return [f"{sweep}-{number}" for number in range(1, count + 1)]


def test_fail_fast_ends_the_sweep(lab: Lab) -> None:
    code = f"import sys; n = sys.argv[2]\nif n == '1': sys.exit(4)\n{waits_for(lab.gate)}"
    done = lab.stoke("run", "--each", "n=1..50", "--fail-fast", "-c", code)
    assert done.returncode == 1, done.stderr
    sweep = only_sweep()
    states = lab.states(sweep.id)
    assert sweep.state is JobState.FAILED and states[0] == "failed"
    assert set(states[1:]) == {"stopped"}
    assert b" stopped (a task failed)" in done.stderr
    with History() as history:
        assert len(history.list(tasks=True)) < 6


def test_max_fails_allows_some(lab: Lab) -> None:
    done = lab.stoke(
        "run", "-q", "--each", "n=1..40", "--max-fails", "3", "-c", "raise SystemExit(1)"
    )
    assert done.returncode == 1
    states = lab.states(only_sweep().id)
    assert 4 <= states.count("failed") <= 6 and states[-1] == "stopped"


def test_stop_takes_waiting_tasks_and_ends_running_ones(lab: Lab) -> None:
    sweep = lab.detach("--each", "n=1..20", "-c", waits_for(lab.gate))
    until(lambda: lab.running(sweep) == 2, "two tasks that run")
    done = lab.stoke("stop", "--now", sweep)
    assert done.returncode == 0 and f"{sweep} stopped".encode() in done.stderr
    job = lab.job(sweep)
    assert (job.state, job.reason) == (JobState.STOPPED, "20 of 20 tasks were stopped")
    assert set(lab.states(sweep)) == {"stopped"}
    with History() as history:
        assert len(history.list(tasks=True)) == 3 and JobQueue(history).ids() == set()


def test_ctrl_c_stops_the_sweep(lab: Lab, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    run = start("run", "--each", "n=1..9", "-c", waits_for(lab.gate))
    until(lambda: (state_dir() / "history.sqlite").exists(), "the history")
    until(lambda: bool(running_ids()), "the tasks")
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert only_sweep().state is JobState.STOPPED


def running_ids() -> list[str]:
    with History() as history:
        return [job.id for job in history.list(tasks=True) if job.task and job.state == "starting"]


def test_a_stopped_task_leaves_the_others(lab: Lab) -> None:
    sweep = lab.detach("--each", "n=1..3", "-c", waits_for(lab.gate))
    until(lambda: lab.running(sweep) == 2, "two tasks that run")
    assert lab.stoke("stop", "--now", f"{sweep}-1").returncode == 0
    lab.gate.touch()
    job = lab.until_over(sweep)
    assert (job.state, job.reason) == (JobState.STOPPED, "1 of 3 tasks were stopped")
    assert lab.states(sweep) == ["stopped", "succeeded", "succeeded"]


def test_rerun_failed_runs_these_only(lab: Lab) -> None:
    code = (
        f"import os, sys; sys.exit(sys.argv[2] in '24' and not os.path.exists({str(lab.gate)!r}))"
    )
    done = lab.stoke("run", "--each", "n=1..5", "-c", code)
    assert done.returncode == 1
    (again,) = [line for line in done.stderr.decode().splitlines() if "run the failed" in line]
    lab.gate.touch()
    assert lab.stoke(*command(again)).returncode == 0
    with History() as history:
        newest, _ = history.list()
    assert [row["values"] for row in lab.table(newest.id)] == [{"n": "2"}, {"n": "4"}]
    nothing = lab.stoke("rerun", newest.id, "--failed")
    assert nothing.returncode == 2 and b"no task of" in nothing.stderr
    single = lab.stoke("rerun", f"{newest.id}-2")
    assert single.returncode == 0, single.stderr


def test_results_as_a_table(lab: Lab) -> None:
    code = "import sys; print('loss', sys.argv[2]); print(); sys.exit(int(sys.argv[2]) % 2)"
    lab.stoke("run", "-q", "--each", "n=1,2", "-c", code)
    sweep = only_sweep().id
    first, second = lab.table(sweep)
    seconds = first.pop("seconds")
    assert 0 < seconds < 60
    assert first == {
        "task": 1, "job": f"{sweep}-1", "values": {"n": "1"}, "state": "failed", "exit_code": 1,
        "reason": None, "last_line": "loss 1",
    }  # fmt: skip
    assert (second["state"], second["exit_code"], second["last_line"]) == ("succeeded", 0, "loss 2")
    text = lab.stoke("results", sweep, "--table", "--csv").stdout.decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["task"], row["n"], row["last_line"]) for row in rows] == [
        ("1", "1", "loss 1"), ("2", "2", "loss 2"),
    ]  # fmt: skip
    lines = lab.stoke("results", sweep, "--table").stdout.decode().splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["1", "failed", "1"],
        ["2", "succeeded", "0"],
    ]
    refused = lab.stoke("results", sweep).stderr.decode().partition("hint: ")[2].strip()
    (name,) = filled(refused, "list its tasks: stoke results {} --table")
    assert lab.stoke("results", name, "--table").returncode == 0
    shown = lab.shown(sweep)
    assert shown["sweep"]["states"] == {"failed": 1, "succeeded": 1}
    assert [row["task"] for row in shown["tasks"]] == [1, 2]


def test_a_sweep_is_removed_with_its_tasks(lab: Lab) -> None:
    lab.stoke("run", "-q", "--each", "n=1,2", "-c", "print(1)")
    sweep = only_sweep().id
    refused = lab.stoke("rm", f"{sweep}-1")
    assert refused.returncode == 2
    hint = refused.stderr.decode().partition("hint: ")[2].strip()
    (name,) = filled(hint, "remove all of it: stoke rm {}")
    assert lab.stoke("rm", name).returncode == 0
    with History() as history:
        assert history.list(tasks=True) == []
        assert history.query("SELECT * FROM sweep_tasks") == []
    assert not job_dir(f"{sweep}-1").exists() and not job_dir(sweep).exists()
    lab.stoke("run", "-q", "--each", "n=1,2", "-c", "print(1)")
    assert lab.stoke("rm", "--all-finished").returncode == 0
    with History() as history:
        assert history.list(tasks=True) == []


def test_a_running_sweep_is_not_removed(lab: Lab) -> None:
    sweep = lab.detach("--each", "n=1,2", "-c", waits_for(lab.gate))
    refused = lab.stoke("rm", sweep)
    assert refused.returncode == 2 and b"cannot be removed" in refused.stderr
    lab.gate.touch()
    lab.until_over(sweep)


def test_a_job_follows_a_sweep(lab: Lab) -> None:
    sweep = lab.detach("--each", "n=1..3", "-c", waits_for(lab.gate))
    then = lab.detach("--after", sweep, "-c", "print('then')")
    until(lambda: "to succeed" in (lab.job(then).reason or ""), "the reason")
    lab.gate.touch()
    lab.until_over(then)
    assert lab.job(sweep).state is JobState.SUCCEEDED
    assert lab.job(then).state is JobState.SUCCEEDED


def test_a_sweep_that_follows_a_failed_job_never_starts(lab: Lab) -> None:
    first = lab.detach("-c", waits_for(lab.gate) + "\nraise SystemExit(3)")
    sweep = lab.detach("--after", first, "--each", "n=1..3", "-c", "print(1)")
    lab.gate.touch()
    job = lab.until_over(sweep)
    assert job.state is JobState.STOPPED and "which it follows, failed" in (job.reason or "")
    assert lab.states(sweep) == ["stopped"] * 3


def test_each_task_finds_the_results_of_the_job_that_the_sweep_follows(lab: Lab) -> None:
    saves = 'import os; open(os.environ["STOKE_RESULTS"] + "/data.txt", "w").write("ready")'
    lab.detach("--name", "prepare", "-c", saves)
    reads = 'import os; print(open(os.environ["STOKE_INPUTS"] + "/prepare/data.txt").read())'
    sweep = lab.detach("--after", "prepare", "--each", "n=1..3", "-c", reads)
    assert lab.until_over(sweep).state is JobState.SUCCEEDED
    assert [row["last_line"] for row in lab.table(sweep)] == ["ready"] * 3
    assert not inputs_file(sweep).exists()


def test_a_sweep_that_follows_too_large_results_is_refused(lab: Lab) -> None:
    saves = 'import os; open(os.environ["STOKE_RESULTS"] + "/data", "wb").write(bytes(2000))'
    assert lab.stoke("run", "-q", "--name", "prepare", "-c", saves).returncode == 0
    limit = {"STOKE_RESULTS__MAX_INPUTS": "1000"}
    done = lab.stoke("run", "--after", "prepare", "--each", "n=1..3", "-c", "print(1)", env=limit)
    assert done.returncode != 0
    assert b"results.max_inputs" in done.stderr
    with History() as history:
        assert [job.name for job in history.list(tasks=True)] == ["prepare"]


def test_a_sweep_tells_of_its_end_once(lab: Lab, tmp_path: Path) -> None:
    told = tmp_path / "told"
    program = ["sh", "-c", f"cat >> {told}; echo >> {told}"]
    env = {"STOKE_NOTIFY__COMMAND": json.dumps(program)}
    done = lab.stoke("run", "-q", "--notify", "--each", "n=1..3", "-c", "pass", env=env)
    assert done.returncode == 0, done.stderr
    until(lambda: told.exists() and told.read_text().endswith("\n"), "the word of its end")
    (document,) = map(json.loads, told.read_text().splitlines())
    assert (document["kind"], document["state"]) == ("sweep", "succeeded")
    assert document["sweep"]["tasks"] == 3


def test_a_sweep_from_json(lab: Lab, tmp_path: Path) -> None:
    request = tmp_path / "fit.json"
    request.write_text(json.dumps({"code": "import sys; print(sys.argv[1:])", "args": ["{n}!"]}))
    done = lab.stoke("submit", "-q", str(request), "--each", "n=1,2", "--detach")
    assert done.returncode == 0, done.stderr
    sweep = done.stdout.decode().strip()
    assert sweep.startswith("fit-")
    lab.until_over(sweep)
    assert [row["last_line"] for row in lab.table(sweep)] == ["['1!']", "['2!']"]


def test_a_paused_queue_lets_running_tasks_end(lab: Lab) -> None:
    sweep = lab.detach("--each", "n=1..4", "-c", waits_for(lab.gate))
    until(lambda: lab.running(sweep) == 2, "two tasks that run")
    lab.stoke("queue", "pause", "-b", "local")
    lab.gate.touch()
    until(lambda: lab.states(sweep).count("succeeded") == 2, "their end")
    assert lab.states(sweep)[2:] == ["queued"] * 2
    lab.stoke("queue", "resume")
    assert lab.until_over(sweep).state is JobState.SUCCEEDED


def test_results_secrets_and_project_of_a_task(lab: Lab, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text("[project]\nname = 'p'\nversion = '1'\n")
    (project / "helper.py").write_text("VALUE = 'helped'\n")
    (project / "main.py").write_text(
        "import os, helper, sys\nprint(os.environ['TOKEN'][::-1], helper.VALUE, *sys.argv[1:])\n"
        "open(os.environ['STOKE_RESULTS'] + '/out.txt', 'w').write(sys.argv[2])\n"
    )
    words = [
        "run",
        "-q",
        "--secret",
        "TOKEN=env:HIDDEN",
        "--each",
        "n=1..5",
        str(project / "main.py"),
    ]
    done = lab.stoke(*words, env={"HIDDEN": "s3cret"})
    assert done.returncode == 0, done.stderr
    sweep = only_sweep().id
    assert [row["last_line"] for row in lab.table(sweep)] == [
        f"terc3s helped --n {number}" for number in range(1, 6)
    ]
    listed = lab.stoke("results", f"{sweep}-3")
    assert b"out.txt" in listed.stdout
    assert list((state_dir() / "projects" / "packs").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--each", "n=1..10000000", "-c", "1"], b"10,000,000 tasks"),
        (["--each", "n=1,,2", "-c", "1"], b"value 2 of n is empty"),
        (["--each", "n=1", "--each", "n=2", "-c", "1"], b"the name n is used twice"),
        (["--each", "n=1", "--each", "m=1,2", "--zip", "-c", "1"], b"--each n: 1, --each m: 2"),
        (["--each", "n=1", "-c", "1", "--", "{m}"], b"{m} names no value of the sweep"),
        (["--each", "n=1", "--hold", "-c", "1"], b"cannot be combined with a sweep"),
        (["--each", "n=1", "--fail-fast", "--max-fails", "2", "-c", "1"], b"give one of the two"),
        (["--max-parallel", "2", "-c", "1"], b"need a sweep"),
        (["--each", "n=1", "--max-parallel", "0", "-c", "1"], b"0 is not in the range"),
        (["--each-file", "/nowhere.csv", "-c", "1"], b"No such file"),
        (["--each", "n=1", "--watch", "-c", "1"], b"cannot be combined with --detach"),
    ],
)
def test_bad_input_is_refused_before_anything_is_built(
    lab: Lab, own_home: Path, words: list[str], why: bytes
) -> None:
    done = lab.stoke("run", "-d", *words)
    assert done.returncode == 2 and why in done.stderr, done.stderr
    with History() as history:
        assert history.list(tasks=True) == []


def test_the_hints_of_refused_sweeps(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def hint(*words: str) -> str:
        done = lab.stoke("run", "-q", *words)
        assert done.returncode == 2
        return done.stderr.decode().partition("hint: ")[2].strip()

    each = hint("--each", "lr", "-c", "1")
    assert filled(each, "write NAME=VALUE,VALUE,... or NAME=1..10") == ()
    assert lab.stoke("run", "-q", "--each", "lr=1,2", "-c", "1").returncode == 0
    (text,) = filled(
        hint("--each", "n=1", "-c", "1", "--", "{m}"), "for the text itself write {{}}"
    )
    assert lab.stoke("run", "-q", "--each", "n=1", "-c", "1", "--", f"{{{text}}}").returncode == 0
    monkeypatch.setenv("STOKE_ARGO__BY_TEMPLATE", "true")
    argo = hint("-b", "argo", "--each", "n=1", "-c", "1")
    retries = hint("--retries", "2", "--each", "n=1,2", "-c", "1")
    template = "run its failed tasks again once it has ended: stoke rerun SWEEP --failed"
    assert filled(retries, template) == ()
    assert filled(argo, "run the sweep on this machine or in containers: -b local, -b docker") == ()
    assert lab.stoke("run", "-q", "-b", "local", "--each", "n=1", "-c", "1").returncode == 0


# What a process inherits, apart from what differs between any two jobs.
INHERITED = """
import json, locale, os, signal, sys
env = {name: value for name, value in os.environ.items() if not name.startswith("STOKE_")}
print(json.dumps({
    "env": {name: value for name, value in env.items() if "/local/" not in value},
    "files": sorted(os.listdir("/proc/self/fd")),
    "stdin": os.readlink("/proc/self/fd/0"),
    "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
    "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
    "encoding": [sys.stdout.encoding, locale.getpreferredencoding(), sys.getfilesystemencoding()],
    "umask": os.umask(0),
    "flags": str(sys.flags),
    "leads": os.getsid(0) == os.getppid() or os.getsid(0) == os.getpid(),
}))
"""


def test_a_task_inherits_what_a_job_does(lab: Lab) -> None:
    """Its supervisor is a fork of a server, that of a job a new interpreter."""
    job = json.loads(lab.stoke("run", "-q", "-c", INHERITED).stdout)
    assert lab.stoke("run", "-q", "--each", "n=1", "-c", INHERITED).returncode == 0
    with History() as history:
        sweep = history.list()[0].id
    task = json.loads(lab.stoke("logs", sweep, "--task", "1").stdout)
    assert task == job


def servers() -> list[int]:
    """The servers of supervisors of this test's scheduler."""
    parent, found = scheduler_pid(), []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_child = f"PPid:\t{parent}\n" in (process / "status").read_text()
            if is_child and b"supervisor_server" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def test_tasks_start_without_the_server_of_supervisors_too(lab: Lab) -> None:
    sweep = lab.detach(
        "--each", "n=1..6", "-c", f"{NOTE}\n{waits_for(lab.gate)}", "--", str(lab.log)
    )
    until(lambda: len(lab.logged()) == 2, "two tasks that run")
    (server,) = servers()
    os.kill(server, signal.SIGKILL)
    lab.gate.touch()
    assert lab.until_over(sweep).state is JobState.SUCCEEDED
    assert sorted(lab.logged()) == list("123456")


def test_the_server_of_supervisors_ends_with_the_scheduler(lab: Lab) -> None:
    sweep = lab.detach("--each", "n=1..2", "-c", waits_for(lab.gate))
    until(lambda: lab.running(sweep) == 2, "two tasks that run")
    (server,) = servers()
    lab.gate.touch()
    assert lab.until_over(sweep).state is JobState.SUCCEEDED
    until(lambda: not Path(f"/proc/{server}").exists(), "the end of the server")


def test_schedulers_that_are_killed_run_every_task_exactly_once(lab: Lab) -> None:
    """Killed at random moments, whatever they are doing."""
    lab.stoke("queue", "pause", "-b", "local")
    sweep = lab.detach("--each", "n=1..40", "-c", NOTE, "--", str(lab.log))
    with History() as history:
        JobQueue(history).resume(["local"])
        dice, kills = random.Random(11), 0
        deadline = time.monotonic() + 150
        while JobQueue(history).ids():
            assert time.monotonic() < deadline
            until(lambda: is_awake(history), "a scheduler")
            pid = scheduler_pid()
            if pid is not None and kills < 20:
                time.sleep(dice.uniform(0, 0.3))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
                until(lambda pid=pid: scheduler_pid() != pid, "its end")  # type: ignore[misc]
    assert kills > 1
    assert lab.job(sweep).state is JobState.SUCCEEDED
    assert lab.states(sweep) == ["succeeded"] * 40
    assert sorted(map(int, lab.logged())) == list(range(1, 41))
