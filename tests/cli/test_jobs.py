"""Looking at jobs and acting on them: jobs, show, logs, stop, rm, rerun."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stoke.history.database import History, Note
from stoke.history.job import Job, JobState, Phase
from tests.cli.conftest import Stoke, job_count, only_job
from tests.lab import until
from tests.package_index import PackageIndex
from tests.terminals import Terminal

FOREVER = "import time\nprint('began', flush=True)\nwhile True: time.sleep(0.05)"


def add(job_id: str, state: JobState = JobState.SUCCEEDED, **fields: object) -> Job:
    """A job in the history that no engine knows."""
    known: dict[str, object] = {"name": "job", "backend": "local", "scope": "default"}
    job = Job(id=job_id, state=JobState.QUEUED, submitted_at=time.time(), **{**known, **fields})  # type: ignore[arg-type]
    with History() as history:
        history.add(job, None, None)
        if state is not JobState.QUEUED:
            history.update(job_id, state=state, finished_at=job.submitted_at + 2)
    return job


# ------------------------------------------------------------------ jobs


def test_the_newest_come_first_and_n_and_state_choose(stoke: Stoke) -> None:
    for number in range(25):
        state = JobState.FAILED if number % 5 == 0 else JobState.SUCCEEDED
        add(f"job-{number:06}", state)
    listed = stoke("jobs").stdout.decode().splitlines()
    assert len(listed) == 21 and listed[0].startswith("ID ")
    assert listed[1].startswith("job-000024")
    assert len(stoke("jobs", "-n", "3").stdout.splitlines()) == 4
    failed = json.loads(stoke("jobs", "--state", "failed", "-n", "4", "--json").stdout)
    assert [job["id"] for job in failed] == [f"job-{n:06}" for n in (20, 15, 10, 5)]
    assert len(stoke("jobs", "--all").stdout.splitlines()) == 26


def test_a_state_that_no_engine_has_confirmed_is_explained(stoke: Stoke) -> None:
    add("job-aaaaaa")
    assert stoke("jobs").stderr == b""
    with History() as history:
        history.add(
            Job("job-bbbbbb", "job", "nowhere", "default", JobState.QUEUED, 2.0), None, None
        )
    listed = stoke("jobs")
    assert b"queued?" in listed.stdout
    notice = b"stoke: nowhere: states with ? are not confirmed yet; stoke jobs asks again\n"
    assert listed.stderr == notice
    assert stoke("jobs", "--json").stderr == b""


def test_a_row_tells_of_the_environment(stoke: Stoke) -> None:
    add("job-aaaaaa")
    with History() as history:
        history.set_phase("job-aaaaaa", Phase("lock", 1.0, 0.4, True, 41, 41, 0))
        history.set_phase("job-aaaaaa", Phase("python", 1.0, 0.001, True, 41, 41, 6_600_000))
    (row,) = stoke("jobs").stdout.decode().splitlines()[1:]
    cells = re.split(r"\s{2,}", row)
    assert re.fullmatch(r"now|\d+s ago", cells.pop(3))
    assert cells == [
        "job-aaaaaa", "succeeded", "local", "2.0 s", "0.40 s", "hit", "6.3 MiB", "job",
    ]  # fmt: skip


def test_a_job_whose_backend_cannot_be_asked_is_marked_and_never_reads_running(
    stoke: Stoke, tmp_path: Path
) -> None:
    add("job-aaaaaa", JobState.RUNNING, backend="docker")
    gone = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    (row,) = stoke("jobs", env=gone).stdout.decode().splitlines()[1:]
    assert re.split(r"\s{2,}", row)[1] == "running?"


def test_a_job_that_ended_unobserved_is_shown_as_ended(stoke: Stoke, own_home: Path) -> None:
    job_id = stoke("run", "--detach", "-c", "print('done')").stdout.decode().strip()
    until(lambda: (own_home / f"state/local/{job_id}/status.json").exists(), "its end")
    (document,) = json.loads(stoke("jobs", "--json").stdout)
    assert (document["state"], document["exit_code"]) == ("succeeded", 0)
    assert stoke("logs", job_id).stdout == b"done\n"


def test_a_running_jobs_row_says_so(stoke: Stoke) -> None:
    job_id = stoke("run", "--detach", "-c", FOREVER).stdout.decode().strip()

    def state() -> str:
        (document,) = json.loads(stoke("jobs", "--json").stdout)
        return str(document["state"])

    until(lambda: state() == "running", "the state running")
    assert stoke("stop", "--now", job_id).returncode == 0


def test_hostile_names_are_harmless_in_a_table(stoke: Stoke) -> None:
    add("job-aaaaaa", name="\x1b]0;PWN\x07\x1b[2J\u202eevil\nrow [red]")
    listed = stoke("jobs").stdout.decode()
    assert len(listed.splitlines()) == 2
    assert not set(listed) & set("\x1b\x07\u202e")
    assert listed.rstrip().endswith("evil row [red]")


def test_a_table_keeps_to_the_terminals_width(terminal: Callable[..., Terminal]) -> None:
    add("job-aaaaaa", name="日本語" * 60)
    at = terminal("jobs", env={"COLUMNS": "100"})
    assert at.wait() == 0
    assert "…".encode() in at.screen


# ------------------------------------------------------------------ finding a job


@pytest.mark.parametrize("command", ["show", "logs", "stop", "rm", "rerun"])
def test_an_unknown_job_exits_with_1_and_suggests_similar_names(stoke: Stoke, command: str) -> None:
    empty = stoke(command, "fit-model-aaaaaa")
    assert (empty.returncode, empty.stdout) == (1, b"")
    add("fit-model-aaaaaa")
    unknown = stoke(command, "fit-modle")
    assert (unknown.returncode, unknown.stdout) == (1, b"")
    first, second = unknown.stderr.decode().splitlines()
    assert first == "error: no job is called 'fit-modle'"
    assert second == "hint: did you mean: fit-model-aaaaaa?"


def test_a_beginning_that_fits_two_jobs_names_them(stoke: Stoke) -> None:
    add("fit-aaaaaa")
    add("fit-bbbbbb")
    done = stoke("show", "fit")
    assert done.returncode == 1
    assert b"fit-aaaaaa" in done.stderr and b"fit-bbbbbb" in done.stderr
    assert stoke("show", "fit-a").returncode == 0


# ------------------------------------------------------------------ show


def test_show_tells_everything_and_hides_secrets(stoke: Stoke) -> None:
    done = stoke(
        "run", "-q", "--name", "fit", "-c", "import sys\nprint('x')\nsys.exit(3)",
        "--env", "PLAIN=seen", "--env", "MY_TOKEN=hunter2", "--secret", "PIN=env:LOGIN",
        "--timeout", "90s", env={"LOGIN": "hunter3"},
    )  # fmt: skip
    assert done.returncode == 3
    job = only_job()
    shown = stoke("show", "fit").stdout.decode()
    for expected in (
        f"{job.id}  failed  exit 3", "local, scope default", "1 line, 2 B", "PLAIN=seen",
        "MY_TOKEN=***", "PIN=env:LOGIN", "1m30s", "sys.exit(3)", f"stoke rerun {job.id}",
    ):  # fmt: skip
        assert expected in shown
    document = json.loads(stoke("show", "fit", "--json").stdout)
    assert document["spec"]["env"] == {"PLAIN": "seen", "MY_TOKEN": "***"}
    assert document["spec"]["secrets"] == {"PIN": "env:LOGIN"}
    assert "hunter" not in shown + json.dumps(document)


def test_show_lists_downloads_and_notes(stoke: Stoke, index: PackageIndex) -> None:
    assert stoke("run", "-q", "-c", "pass", "-w", "alpha", "--name", "one").returncode == 0
    assert stoke("run", "-q", "-c", "pass", "-w", "beta", "--name", "two").returncode == 0
    shown = stoke("show", "two").stdout.decode()
    assert "1 of 2 packages from the cache; downloaded: beta==1.0" in shown
    assert "expected miss" not in shown
    assert "render lock --job two-" in shown
    document = json.loads(stoke("show", "two", "--json").stdout)
    assert document["packages"] == {
        "python": {"cached": ["alpha==2.0"], "downloaded": ["beta==1.0"]}
    }
    assert document["notes"] == []
    assert 0 <= document["lock"]["age"] < 60

    assert stoke("run", "-q", "-c", "pass", "-w", "nonesuch", "--name", "bad").returncode == 125
    (note,) = json.loads(stoke("show", "bad", "--json").stdout)["notes"]
    assert note["kind"] == "error" and "nonesuch" in note["text"]
    assert "nonesuch was not found" in stoke("show", "bad").stdout.decode()


def test_notes_of_the_runner_cannot_move_the_cursor(stoke: Stoke) -> None:
    """A history that another program wrote."""
    add("job-aaaaaa")
    with History() as history:
        history.add_note("job-aaaaaa", Note("note", "a\x1b[2Jb", "c\rd"))
        history.add_packages("job-aaaaaa", "python", ["evil\x1b]0;x\x07==1"], cached=False)
    shown = stoke("show", "job-aaaaaa").stdout
    assert b"downloaded: evil" in shown and b"hint: c" in shown
    assert not {b"\x1b", b"\x07", b"\r"} & {shown[n : n + 1] for n in range(len(shown))}


def test_an_old_lock_says_how_old_it_is(stoke: Stoke, index: PackageIndex, own_home: Path) -> None:
    assert stoke("run", "-q", "-c", "pass", "-w", "alpha").returncode == 0
    (lock,) = own_home.glob("**/locks/*.txt")
    then = time.time() - 3 * 3600 - 5
    os.utime(lock, (then, then))
    again = stoke("run", "-c", "pass", "-w", "alpha", "--json")
    assert b"3h old; --upgrade refreshes it" in again.stderr
    assert json.loads(again.stdout)["lock"]["age"] == pytest.approx(3 * 3600, abs=60)


@pytest.mark.parametrize("state", [JobState.LOST, JobState.FAILED])
def test_no_phase_of_a_job_that_is_over_goes_on(stoke: Stoke, state: JobState) -> None:
    """Its supervisor was killed before the phase could end."""
    add("job-aaaaaa", state)
    with History() as history:
        history.set_phase("job-aaaaaa", Phase("run", time.time(), None, None))
    shown = stoke("show", "job-aaaaaa").stdout.decode()
    assert re.search(r"^run +- ", shown, re.MULTILINE) and "going on" not in shown


def test_show_of_a_job_without_a_spec(stoke: Stoke) -> None:
    add("job-aaaaaa")
    assert stoke("show", "job-aaaaaa").returncode == 0
    assert json.loads(stoke("show", "job-aaaaaa", "--json").stdout)["spec"] is None
    again = stoke("rerun", "job-aaaaaa")
    assert again.returncode == 125 and b"was not recorded on this machine" in again.stderr


# ------------------------------------------------------------------ logs

LINES = "import sys\nfor n in range(5):\n    print(n, flush=True)\nprint('err', file=sys.stderr)"


def test_logs_gives_both_streams_again_exactly(stoke: Stoke) -> None:
    code = "import os; os.write(1, b'\\xff\\x00 no end'); os.write(2, b'\\n\\nerr')"
    assert stoke("run", "-q", "-c", code).returncode == 0
    done = stoke("logs", only_job().id)
    assert (done.stdout, done.stderr) == (b"\xff\x00 no end", b"\n\nerr")


def test_logs_tail_and_timestamps(stoke: Stoke) -> None:
    assert stoke("run", "-q", "-c", LINES).returncode == 0
    job = only_job()
    done = stoke("logs", "--tail", "3", job.id)
    assert (done.stdout, done.stderr) == (b"3\n4\n", b"err\n")
    stamped = stoke("logs", "--timestamps", job.id).stdout.decode().splitlines()
    assert [line.split(" ")[1] for line in stamped] == ["0", "1", "2", "3", "4"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line) for line in stamped)
    assert stoke("logs", "--tail", "0", job.id).stdout == b""


def test_logs_of_a_running_job_come_up_to_now(stoke: Stoke) -> None:
    job_id = stoke("run", "--detach", "-c", FOREVER).stdout.decode().strip()
    until(lambda: stoke("logs", job_id).stdout == b"began\n", "the log so far")
    assert stoke("stop", "--now", job_id).returncode == 0
    assert stoke("logs", job_id).stdout == b"began\n"


def test_logs_of_a_job_without_its_engine_shows_the_saved_part(
    stoke: Stoke, tmp_path: Path
) -> None:
    add("job-aaaaaa", JobState.RUNNING, backend="docker")
    from stoke.files.paths import job_dir
    from stoke.logs.spool import STDOUT, SpoolWriter

    writer = SpoolWriter(job_dir("job-aaaaaa"))
    writer.add(STDOUT, 1, b"here\n")
    writer.close()
    done = stoke("logs", "job-aaaaaa", env={"DOCKER_HOST": f"unix://{tmp_path}/no.sock"})
    assert (done.returncode, done.stdout) == (0, b"here\n")
    assert b"the log may be incomplete" in done.stderr


def test_ctrl_c_leaves_the_log_and_not_the_job(
    start: Callable[..., subprocess.Popen[bytes]], stoke: Stoke
) -> None:
    job_id = stoke("run", "--detach", "-c", FOREVER).stdout.decode().strip()
    following = start("logs", "-f", job_id)
    assert following.stdout is not None
    assert following.stdout.readline() == b"began\n"
    following.send_signal(signal.SIGINT)
    assert following.wait(60) == 130
    assert not only_job().state.finished
    assert stoke("stop", "--now", job_id).returncode == 0


def test_two_programs_follow_one_job_and_both_get_all(
    start: Callable[..., subprocess.Popen[bytes]], stoke: Stoke, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    code = (
        "import os, pathlib, time\n"
        "os.write(1, b'out ')\nos.write(2, b'err ')\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)\n"
        "for n in range(2000):\n    os.write(1, b'%d\\n' % n)\n    os.write(2, b'%d' % n)\n"
    )
    job_id = stoke("run", "--detach", "-c", code).stdout.decode().strip()
    followers = [start("logs", "-f", job_id) for _ in range(2)]
    for follower in followers:
        assert follower.stdout is not None
        assert follower.stdout.read(4) == b"out "
    go.touch()
    out = b"".join(b"%d\n" % n for n in range(2000))
    err = b"err " + b"".join(b"%d" % n for n in range(2000))
    for follower in followers:
        assert follower.communicate(timeout=60) == (out, err)


# ------------------------------------------------------------------ stop, rm, rerun


def test_stop_waits_for_the_end_and_is_polite(stoke: Stoke) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)))\n"
        "print('began', flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )
    job_id = stoke("run", "--detach", "-c", code).stdout.decode().strip()
    until(lambda: stoke("logs", job_id).stdout == b"began\n", "its beginning")
    done = stoke("stop", job_id)
    assert done.returncode == 0
    assert only_job().state.finished
    assert stoke("logs", job_id).stdout == b"began\nbye\n"
    again = stoke("stop", job_id)
    assert again.returncode == 0 and b"was already" in again.stderr


def test_stop_continues_after_an_unknown_job(stoke: Stoke) -> None:
    job_id = stoke("run", "--detach", "-c", FOREVER).stdout.decode().strip()
    done = stoke("stop", "--now", "nobody", job_id)
    assert done.returncode == 1
    assert b"no job is called 'nobody'" in done.stderr
    assert only_job().state is JobState.STOPPED


def test_rm_refuses_running_jobs_and_removes_finished_ones(stoke: Stoke, own_home: Path) -> None:
    job_id = stoke("run", "--detach", "-c", FOREVER).stdout.decode().strip()
    refused = stoke("rm", job_id)
    assert refused.returncode == 2
    assert f"hint: stop it first: stoke stop {job_id}" in refused.stderr.decode()
    assert stoke("stop", "--now", job_id).returncode == 0
    assert stoke("rm", job_id).returncode == 0
    assert job_count(own_home) == 0
    assert not list((own_home / "state").glob("*/" + job_id))
    assert stoke("show", job_id).returncode == 1


def test_rm_all_finished_leaves_the_others(stoke: Stoke) -> None:
    assert stoke("rm", "--all-finished").returncode == 0
    running = stoke("run", "--detach", "-c", FOREVER).stdout.decode().strip()
    for _ in range(2):
        assert stoke("run", "-q", "-c", "1").returncode == 0
    assert stoke("rm", "--all-finished").returncode == 0
    assert only_job().id == running


def test_rerun_runs_the_same_request_again(stoke: Stoke) -> None:
    first = stoke(
        "run", "-q", "--name", "fit", "-c", "import os, sys; print(os.environ['A'], sys.argv[1:])",
        "--env", "A=hunter2", "--", "x",
    )  # fmt: skip
    again = stoke("rerun", "-q", "fit", "--scope", "other")
    assert again.stdout == first.stdout == b"hunter2 ['x']\n"
    with History() as history:
        assert [(job.name, job.scope) for job in history.list()] == [
            ("fit", "other"),
            ("fit", "default"),
        ]


def test_compare_lists_the_changes_between_two_jobs(stoke: Stoke) -> None:
    for job_id, mode in (("one-aaaaaa", "slow"), ("two-bbbbbb", "fast")):
        add(job_id, finished_at=time.time())
        with History() as history:
            text = json.dumps({"code": f"print({mode!r})", "env": {"MODE": mode, "KEY": mode}})
            history.query("UPDATE jobs SET spec = ? WHERE id = ?", (text, job_id))
    done = stoke("compare", "one", "two")
    for what in (b"env.MODE", b"slow", b"+print('fast')"):
        assert what in done.stdout
    told = json.loads(stoke("compare", "one", "two", "--json").stdout)
    assert told["jobs"] == ["one-aaaaaa", "two-bbbbbb"]
    assert told["spec"] == [
        {"what": "env.MODE", "first": "slow", "second": "fast"},
        {"what": "env.KEY", "first": "***", "second": "***"},
    ]
    unknown = stoke("compare", "one", "nobody")
    assert (unknown.returncode, unknown.stdout) == (1, b"")
    assert b"no job is called 'nobody'" in unknown.stderr
