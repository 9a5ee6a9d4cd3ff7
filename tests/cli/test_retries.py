"""Jobs that are run again, on this machine: attempts as jobs, their logs, and what ends them."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.local.folders import job_folder
from stoke.files.paths import job_dir
from stoke.history.attempts import Attempts
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import JobQueue
from stoke.jobs.attempts import MOST_DELAY, pause_before
from tests.cli.conftest import Stoke
from tests.cli.test_queue import scheduler_pid
from tests.hints import filled
from tests.lab import until

FAST = {"STOKE_QUEUE__RETRY_DELAY": "0.1"}
COUNTS = """
import os, sys
path = os.environ["STOKE_CHECKPOINT"] + "/runs"
number = len(open(path).read()) + 1 if os.path.exists(path) else 1
open(path, "a").write(".")
print("run", number, flush=True)
"""
"""Code that counts its runs in its checkpoint."""


@pytest.fixture(autouse=True)
def no_scheduler_left(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in FAST.items():
        monkeypatch.setenv(name, value)
    yield
    with History() as history:
        for job_id in Attempts(history).undecided():
            Attempts(history).decide(job_id, "")
        JobQueue(history).pause(["local"])
    until(lambda: scheduler_pid() is None, "the end of the scheduler")


def job(job_id: str) -> Job:
    with History() as history:
        found = history.get(job_id)
    assert found is not None
    return found


def attempts_of(stoke: Stoke, job_id: str) -> list[dict[str, Any]]:
    found = json.loads(stoke("show", job_id, "--json").stdout)["attempts"]
    assert isinstance(found, list)
    return found


def supervisor_of(job_id: str) -> int:
    pid = json.loads((job_folder(job_id) / "started.json").read_text())["pid"]
    assert isinstance(pid, int)
    return pid


def until_prints(stoke: Stoke, job_id: str, text: bytes) -> None:
    until(lambda: text in stoke("logs", job_id).stdout, f"{text!r} from {job_id}")


def test_a_named_exit_code_is_run_again_and_each_attempt_is_kept(stoke: Stoke) -> None:
    code = COUNTS + "sys.exit(0 if number == 3 else 75)"
    done = stoke("run", "--name", "train", "--retries", "5", "--retry-exit", "1,75", "-c", code)
    assert (done.returncode, done.stdout) == (0, b"run 1\nrun 2\nrun 3\n"), done.stderr
    told = done.stderr.decode()
    first = told.partition("exit code 75 is among --retry-exit: runs again as ")[2].split("-r2,")[0]
    assert f"runs again as {first}-r2, attempt 2" in told
    assert f"runs again as {first}-r3, attempt 3" in told
    assert attempts_of(stoke, f"{first}-r2") == [
        {
            "number": number,
            "job": first if number == 1 else f"{first}-r{number}",
            "cause": None,
            "next": f"{first}-r{number + 1}" if number < 3 else None,
            "why": "exit code 75 is among --retry-exit" if number < 3 else None,
        }
        for number in (1, 2, 3)
    ]
    assert [job(one).exit_code for one in (first, f"{first}-r2", f"{first}-r3")] == [75, 75, 0]
    for number in (1, 2, 3):
        shown = stoke("logs", "--attempt", str(number), first).stdout
        assert shown == b"run %d\n" % number
    refused = stoke("logs", "--attempt", "4", first)
    assert refused.returncode == 1 and b"has no attempt 4: it had 3 attempts" in refused.stderr
    hint = refused.stderr.decode().partition("hint: ")[2].strip()
    assert filled(hint, "list them: stoke show {}") == (first,)
    assert stoke("logs", "train").stdout == b"run 3\n"
    table = stoke("show", f"{first}-r3").stdout.decode()
    assert "ATTEMPT" in table and f"{first}-r2" in table and "failed" in table
    assert not list(job_dir(first).parent.rglob("retry*"))


def test_logs_follow_a_job_to_its_last_attempt(stoke: Stoke) -> None:
    code = COUNTS + "sys.exit(0 if number == 3 else 75)"
    submitted = stoke("run", "-q", "-d", "--retries", "3", "--retry-exit", "75", "-c", code)
    first = submitted.stdout.decode().strip()
    followed = stoke("logs", "-f", first)
    assert (followed.returncode, followed.stdout) == (0, b"run 1\nrun 2\nrun 3\n")
    assert f"runs again as {first}-r3, attempt 3".encode() in followed.stderr
    assert stoke("logs", "-f", "--attempt", "1", first).stdout == b"run 1\n"


def test_other_ends_are_not_run_again(stoke: Stoke) -> None:
    done = stoke("run", "--retries", "3", "--retry-exit", "75", "-c", "raise SystemExit(1)")
    assert done.returncode == 1 and b"runs again" not in done.stderr
    done = stoke("run", "--retries", "3", "--timeout", "1s", "-c", "import time; time.sleep(60)")
    assert done.returncode == 124 and b"runs again" not in done.stderr
    with History() as history:
        assert len(history.list()) == 2
        assert Attempts(history).undecided() == []


def test_attempts_are_limited(stoke: Stoke) -> None:
    done = stoke("run", "-q", "--retries", "2", "--retry-exit", "9", "-c", "print(1); exit(9)")
    assert (done.returncode, done.stdout) == (9, b"1\n1\n1\n")


def test_only_the_last_attempt_is_printed_as_json(stoke: Stoke) -> None:
    done = stoke("run", "--json", "--retries", "1", "--retry-exit", "9", "-c", "exit(9)")
    document = json.loads(done.stdout)
    assert document["id"].endswith("-r2") and len(document["attempts"]) == 2


def test_a_job_whose_supervisor_was_killed_is_run_again(
    stoke: Stoke, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    code = COUNTS + "import time; time.sleep(0 if number == 2 else 600)"
    run = start("run", "--name", "train", "--retries", "1", "-c", code)
    with History() as history:
        until(lambda: bool(history.list()), "the job")
        (first,) = [one.id for one in history.list()]
    until_prints(stoke, first, b"run 1\n")
    os.kill(supervisor_of(first), signal.SIGKILL)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (0, b"run 1\nrun 2\n"), err
    assert f"its supervisor process was killed: runs again as {first}-r2".encode() in err
    assert attempts_of(stoke, first)[0]["cause"] == "supervisor-lost"
    assert job(first).state is JobState.LOST


def test_the_scheduler_runs_a_job_again_without_its_client(stoke: Stoke) -> None:
    """Nothing else looks at the jobs; what was submitted with the first is there for the second."""
    code = COUNTS + "import time; time.sleep(0 if number == 2 else 600); print(os.environ['TOKEN'])"
    options = ("--name", "train", "--retries", "1", "--secret", "TOKEN=env:HIDDEN")
    first = (
        stoke("run", "-d", *options, "-c", code, env={"HIDDEN": "s3cret"}).stdout.decode().strip()
    )
    kept = job_dir(first) / "retry.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    until(lambda: (job_folder(first) / "started.json").exists(), "its start")
    frames = job_folder(first) / "frames"
    until(lambda: frames.exists() and b"run 1" in frames.read_bytes(), "its output")
    os.kill(supervisor_of(first), signal.SIGKILL)

    def is_over() -> bool:
        with History() as history:
            again = history.get(f"{first}-r2")
        return again is not None and again.state.finished and not again.provisional

    until(is_over, "the end of the second attempt")
    assert job(f"{first}-r2").state is JobState.SUCCEEDED
    assert stoke("logs", f"{first}-r2").stdout == b"run 2\ns3cret\n"
    until(lambda: not kept.exists(), "the removal of the secret")
    assert not list(job_dir(first).parent.rglob("retry*"))


def test_stop_during_the_pause_ends_it(stoke: Stoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKE_QUEUE__RETRY_DELAY", "60")
    options = ("--retries", "1", "--retry-exit", "9")
    first = stoke("run", "-d", *options, "-c", "exit(9)").stdout.decode().strip()
    with History() as history:
        until(lambda: JobQueue(history).has(f"{first}-r2"), "the second attempt")
        until(lambda: "attempt 2 starts at" in (job(f"{first}-r2").reason or ""), "its reason")
    assert stoke("stop", first).returncode == 0
    done = job(f"{first}-r2")
    assert done.state is JobState.STOPPED and (done.reason or "").startswith("never started")
    with History() as history:
        assert Attempts(history).undecided() == [] and not JobQueue(history).ids()
    assert not list(job_dir(first).parent.rglob("retry*"))


def test_ctrl_c_during_the_pause_ends_it(
    stoke: Stoke, start: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKE_QUEUE__RETRY_DELAY", "60")
    run = start("run", "--retries", "1", "--retry-exit", "9", "-c", "exit(9)")
    with History() as history:
        until(lambda: bool(JobQueue(history).ids()), "the second attempt")
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode == 130
    with History() as history:
        assert not JobQueue(history).ids()


def test_a_stopped_job_is_not_run_again(stoke: Stoke) -> None:
    options = ("--retries", "3", "--retry-exit", "143")
    first = stoke("run", "-d", *options, "-c", "print(1, flush=True); import time; time.sleep(600)")
    name = first.stdout.decode().strip()
    until_prints(stoke, name, b"1\n")
    assert stoke("stop", name).returncode == 0
    until(lambda: attempts_of(stoke, name)[0]["next"] is None, "its end")
    until(lambda: not list(job_dir(name).glob("retry*")), "the removal of what it kept")
    with History() as history:
        assert len(history.list()) == 1


def test_a_job_that_follows_another_waits_for_its_last_attempt(stoke: Stoke) -> None:
    code = COUNTS + "open(os.environ['STOKE_RESULTS'] + '/a', 'w').write(str(number))\n"
    code += "sys.exit(0 if number == 2 else 9)"
    options = ("--name", "first", "--retries", "1", "--retry-exit", "9")
    first = stoke("run", "-d", *options, "-c", code).stdout.decode().strip()
    reads = "import os; print(open(os.environ['STOKE_INPUTS'] + '/first/a').read())"
    done = stoke("run", "-q", "--after", first, "-c", reads)
    assert (done.returncode, done.stdout) == (0, b"2\n"), done.stderr


def test_an_attempt_gets_the_project_and_the_inputs_of_the_first(
    stoke: Stoke, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "stoke.toml").touch()
    (project / "helper.py").write_text("WORD = 'helped'")
    script = project / "train.py"
    script.write_text(
        COUNTS
        + "from helper import WORD\n"
        + "print(WORD, open(os.environ['STOKE_INPUTS'] + '/first/a').read())\n"
        + "sys.exit(0 if number == 2 else 9)"
    )
    code = "import os; open(os.environ['STOKE_RESULTS'] + '/a', 'w').write('input')"
    first = stoke("run", "-d", "--name", "first", "-c", code).stdout.decode().strip()
    options = ("-q", "--after", first, "--retries", "1", "--retry-exit", "9")
    done = stoke("run", *options, str(script))
    assert done.stdout == b"run 1\nhelped input\nrun 2\nhelped input\n", done.stderr
    assert done.returncode == 0


def test_submit_and_rerun_have_the_options_too(stoke: Stoke, tmp_path: Path) -> None:
    options = ("--retries", "1", "--retry-exit", "9,75")
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"code": "exit(9)"}))
    done = stoke("submit", "-q", "--json", *options, str(path))
    document = json.loads(done.stdout)
    assert (document["spec"]["retries"], document["spec"]["retry_exit"]) == (1, [9, 75])
    assert [one["number"] for one in document["attempts"]] == [1, 2]
    done = stoke("rerun", "-q", "--json", document["id"])
    assert [one["number"] for one in json.loads(done.stdout)["attempts"]] == [1, 2]
    done = stoke("rerun", "-q", "--json", "--retries", "2", document["id"])
    assert [one["number"] for one in json.loads(done.stdout)["attempts"]] == [1, 2, 3]


def test_exit_codes_without_retries_are_refused(stoke: Stoke) -> None:
    done = stoke("run", "--retry-exit", "75", "-c", "1")
    assert done.returncode == 2
    assert b"--retry-exit: does nothing without retries; add --retries 3" in done.stderr
    done = stoke("run", "--watch", "--retries", "1", __file__)
    assert done.returncode == 2 and b"--watch cannot be combined" in done.stderr


def test_the_pause_doubles_up_to_five_minutes() -> None:
    assert [pause_before(number, 5.0) for number in (2, 3, 4, 8, 9, 100)] == [
        *(5, 10, 20, 300),
        *(MOST_DELAY, MOST_DELAY),
    ]
