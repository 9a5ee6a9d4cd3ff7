"""`stoke logs` beyond a plain copy: chosen lines, several jobs, JSON, and logs that are gone."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stoke.cli.log_lines import since_time
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.logs.retention import enforce_log_budget
from stoke.logs.spool import ENGINE_LOG, STDERR, STDOUT, SpoolWriter
from tests.cli.conftest import Stoke, only_job
from tests.lab import until
from tests.terminals import PROGRAM, Terminal

SECOND = 1_000_000_000
NOON = 1_763_726_400 * SECOND
"""2025-11-21T12:00:00Z"""

Lines = list[tuple[int, int, bytes]]


def finished(job_id: str, lines: Lines, age: float = 0) -> None:
    """A job that is over, with this log: stream, seconds after noon, bytes."""
    now = time.time() - age
    with History() as history:
        history.add(Job(job_id, "job", "local", "default", JobState.QUEUED, now), None, None)
        history.update(job_id, state=JobState.SUCCEEDED, exit_code=0, finished_at=now)
    writer = SpoolWriter(job_dir(job_id))
    for stream, seconds, data in lines:
        writer.add(stream, NOON + seconds * SECOND, data)
    writer.close()


@pytest.fixture
def two_jobs() -> None:
    finished(
        "first-aaaaaa",
        [(STDOUT, 0, b"one\n"), (STDERR, 2, b"oops\n"), (STDOUT, 4, b"three\n")],
    )
    finished("other-bbbbbb", [(STDOUT, 1, b"uno\n"), (STDOUT, 3, b"tres\n"), (STDOUT, 5, b"rest")])


def test_lines_of_one_stream_are_its_bytes(two_jobs: None, stoke: Stoke) -> None:
    finished(
        "raw-cccccc", [(STDOUT, 0, b"\xff\x00\r\nno "), (STDERR, 1, b"x\n"), (STDOUT, 2, b"end")]
    )
    done = stoke("logs", "--stream", "stdout", "raw")
    assert (done.stdout, done.stderr) == (b"\xff\x00\r\nno end", b"")
    done = stoke("logs", "--stream", "stderr", "first")
    assert (done.stdout, done.stderr) == (b"", b"oops\n")


def test_lines_since_a_time(two_jobs: None, stoke: Stoke) -> None:
    done = stoke("logs", "--since", "2025-11-21T12:00:02Z", "first")
    assert (done.stdout, done.stderr) == (b"three\n", b"oops\n")
    assert stoke("logs", "--since", "1s", "first").stdout == b""
    wrong = stoke("logs", "--since", "yesterday", "first")
    assert wrong.returncode == 2 and b"neither a duration" in wrong.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 910), ("5m", 700), ("0.5s", 999.5), ("1970-01-01T00:00:07+00:00", 7), ("2d", 0)],
)
def test_values_of_since(text: str, seconds: float) -> None:
    assert since_time(text, now=1000) == int(seconds * SECOND)


def test_lines_that_match_and_the_last_of_them(two_jobs: None, stoke: Stoke) -> None:
    assert stoke("logs", "--grep", "^t", "first").stdout == b"three\n"
    assert stoke("logs", "--grep", "e", "--tail", "1", "--stream", "stdout", "first").stdout == (
        b"three\n"
    )
    assert stoke("logs", "-n", "1", "first").stdout == b"three\n"
    wrong = stoke("logs", "--grep", "(", "first")
    assert wrong.returncode == 2 and b"regular expression" in wrong.stderr


def test_a_pattern_that_takes_too_long_on_a_line_ends_the_search(stoke: Stoke) -> None:
    """A line can be written so that a harmless-looking pattern never ends on it."""
    finished("slow-aaaaaa", [(STDOUT, 0, b"before\n" + b"a" * 4000 + b"!\n")])
    done = stoke("logs", "--grep", "before|^(a|aa)+$", "slow")
    assert (done.returncode, done.stdout) == (2, b"before\n")
    assert b"takes too long on a single line" in done.stderr


def test_c26_several_jobs_by_time_each_line_with_its_name(two_jobs: None, stoke: Stoke) -> None:
    done = stoke("logs", "first", "other")
    assert done.stdout.decode().splitlines() == [
        "first-aaaaaa | one",
        "other-bbbbbb | uno",
        "other-bbbbbb | tres",
        "first-aaaaaa | three",
        "other-bbbbbb | rest",
    ]
    assert done.stderr == b"first-aaaaaa | oops\n"
    stamped = stoke("logs", "-t", "--tail", "1", "first", "other").stdout.splitlines()
    assert stamped[0] == b"first-aaaaaa | 2025-11-21T12:00:04.000Z three"


def test_c26_the_order_within_one_job_is_kept_when_time_goes_back(stoke: Stoke) -> None:
    finished("back-aaaaaa", [(STDOUT, 9, b"1\n"), (STDOUT, 3, b"2\n"), (STDOUT, 6, b"3\n")])
    finished("even-bbbbbb", [(STDOUT, 5, b"4\n")])
    lines = stoke("logs", "back", "even").stdout.split()
    assert [line for line in lines if line in (b"1", b"2", b"3")] == [b"1", b"2", b"3"]


def test_an_unknown_job_beside_a_known_one(two_jobs: None, stoke: Stoke) -> None:
    done = stoke("logs", "first", "nobody")
    assert done.returncode == 1
    assert done.stdout == b"one\nthree\n"
    assert b"no job is called 'nobody'" in done.stderr


def test_each_line_as_json(two_jobs: None, stoke: Stoke) -> None:
    finished("bad-cccccc", [(STDOUT, 0, b"\xff \x1b[31mred\r\n"), (STDERR, 1, b"no end")])
    got = [json.loads(line) for line in stoke("logs", "--json", "bad").stdout.splitlines()]
    assert got == [
        {
            "job": "bad-cccccc",
            "time": "2025-11-21T12:00:00.000Z",
            "stream": "stdout",
            "text": "\ufffd \x1b[31mred\r",
        },
        {
            "job": "bad-cccccc",
            "time": "2025-11-21T12:00:01.000Z",
            "stream": "stderr",
            "text": "no end",
        },
    ]
    assert stoke("logs", "--json", "bad").stdout.isascii()


def test_c10_a_very_long_line_is_whole_as_a_copy_and_cut_where_lines_are_shown(
    stoke: Stoke,
) -> None:
    long = b"x" * 20_000_000
    finished("long-aaaaaa", [(STDOUT, 0, b"before\n" + long), (STDOUT, 1, b"\nafter\n")])
    assert stoke("logs", "long").stdout == b"before\n" + long + b"\nafter\n"
    lines = stoke("logs", "--grep", "", "long").stdout.splitlines()
    assert [len(line) < 1_100_000 for line in lines] == [True] * 3
    assert lines[1].endswith(b" [line cut: 18951425 bytes more]")
    assert lines[2] == b"after"


def test_gaps_show_whatever_is_searched_for(stoke: Stoke) -> None:
    finished("gap-aaaaaa", [(STDOUT, 0, b"x\n")])
    writer = SpoolWriter(job_dir("gap-aaaaaa"))
    writer.note(NOON + SECOND, "gap: 3.0 s of the log may be missing")
    writer.close()
    done = stoke("logs", "--grep", "nothing", "gap")
    assert (done.stdout, done.stderr) == (b"", b"stoke: gap: 3.0 s of the log may be missing\n")


def test_a_reader_that_closes_the_pipe() -> None:
    finished("big-aaaaaa", [(STDOUT, 0, b"line\n" * 200_000)])
    for options in ("", "--grep i"):
        shell = f"set -o pipefail; {PROGRAM} logs {options} big | head -1"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (141, b"line\n", b"")


def test_following_several_jobs_ends_with_the_last_of_them(stoke: Stoke) -> None:
    ids = []
    for name, pause in (("quick", 0), ("slower", 0.5)):
        code = f"import time; print('{name}', flush=True); time.sleep({pause}); print('end')"
        done = stoke("run", "--detach", "--name", name, "-c", code)
        ids.append(done.stdout.decode().strip())
    done = stoke("logs", "-f", *ids)
    assert done.returncode == 0, done.stderr
    width = max(map(len, ids))
    lines = [re.split(r" +\| ", line) for line in done.stdout.decode().splitlines()]
    for job_id, name in zip(ids, ("quick", "slower"), strict=True):
        assert [text for who, text in lines if who == job_id] == [name, "end"]
        assert len(job_id) <= width
    with History() as history:
        assert all(job.state is JobState.SUCCEEDED for job in history.list())


def test_on_a_terminal_matches_are_marked_and_nothing_else_passes(
    terminal: Callable[..., Terminal],
) -> None:
    finished(
        "tty-aaaaaa", [(STDOUT, 0, b"a \x1b]0;PWN\x07needle \x9b31m\xe2\x80\xae b\n10%\r20%\n")]
    )
    shown = terminal("logs", "--grep", "needle|%", "tty")
    assert shown.wait() == 0
    lines = [line.removesuffix(b"\x1b[0m") for line in shown.screen.split(b"\r\n")]
    assert lines[0].startswith(b"a \x1b[1;31mneedle\x1b[0m ")
    assert lines[1].startswith(b"20\x1b[1;31m%\x1b[0m")
    assert b"PWN" not in shown.screen and b"\xe2\x80\xae" not in shown.screen


# ------------------------------------------------------------------ what the engine wrote itself


def test_the_engines_own_messages_are_shown_alone(
    stoke: Stoke, terminal: Callable[..., Terminal]
) -> None:
    for name, said in (("first-aaaaaa", b"argo=true\n\x1b[2Jexit 137"), ("other-bbbbbb", b"two\n")):
        finished(name, [(STDOUT, 0, b"the job's\n")])
        (job_dir(name) / ENGINE_LOG).write_bytes(said)
    finished("third-cccccc", [(STDOUT, 0, b"the job's\n")])

    assert stoke("logs", "--engine", "other").stdout == b"two\n"
    together = stoke("logs", "--engine", "first", "other", "third")
    assert together.stdout.splitlines() == [
        b"first-aaaaaa | argo=true",
        b"first-aaaaaa | \x1b[2Jexit 137",
        b"other-bbbbbb | two",
    ]
    assert together.stderr == b"stoke: third-cccccc: the engine wrote nothing into its log\n"
    assert stoke("logs", "first").stdout == b"the job's\n"
    shown = terminal("logs", "--engine", "first")
    assert shown.wait() == 0
    assert b"exit 137" in shown.screen and b"\x1b[2J" not in shown.screen


@pytest.mark.parametrize("option", ["-f", "-t", "--json", "--tail=0", "--since=1d", "--grep=x"])
def test_no_filter_applies_to_the_engines_own_messages(
    two_jobs: None, stoke: Stoke, option: str
) -> None:
    done = stoke("logs", "--engine", option, "first")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--engine" in done.stderr


# ------------------------------------------------------------------ the budget of all logs


def test_the_oldest_logs_go_and_say_so(stoke: Stoke) -> None:
    for age, name in ((30, "old"), (20, "middle"), (10, "new")):
        finished(f"{name}-aaaaaa", [(STDOUT, 0, b"x" * 999 + b"\n")], age)
    engines = job_dir("old-aaaaaa") / ENGINE_LOG
    engines.write_bytes(b"argo=true\n")
    with History() as history:
        assert enforce_log_budget(2500, history) == ["old-aaaaaa"]
        assert enforce_log_budget(2500, history) == []
    assert not engines.exists()
    done = stoke("logs", "old")
    assert (done.returncode, done.stdout) == (1, b"")
    words = b"its log was removed to keep all logs within 2.4 KiB (log.spool_max)"
    assert words in done.stderr
    assert words in stoke("show", "old").stdout
    assert stoke("logs", "new").returncode == 0


def test_open_logs_and_those_of_unfinished_jobs_are_kept() -> None:
    from stoke.logs.follower import take_follow_lock

    finished("held-aaaaaa", [(STDOUT, 0, b"x" * 1000)], 30)
    take_follow_lock(job_dir("held-aaaaaa"))
    with History() as history:
        history.add(Job("runs-aaaaaa", "job", "local", "default", JobState.QUEUED, 1.0), None, None)
        writer = SpoolWriter(job_dir("runs-aaaaaa"))
        writer.add(STDOUT, NOON, b"x" * 1000)
        writer.close()
        finished("held-bbbbbb", [(STDOUT, 0, b"x")], 20)
        assert enforce_log_budget(0, history) == []


def test_the_newest_log_is_kept_and_open_logs_do_not_count() -> None:
    for age, name in ((30, "old"), (20, "new")):
        finished(f"{name}-aaaaaa", [(STDOUT, 0, b"x" * 1000)], age)
    with History() as history:
        history.add(Job("runs-aaaaaa", "job", "local", "default", JobState.QUEUED, 1.0), None, None)
        writer = SpoolWriter(job_dir("runs-aaaaaa"))
        writer.add(STDOUT, NOON, b"x" * 1_000_000)
        writer.close()
        assert enforce_log_budget(2500, history) == []
        history.update("runs-aaaaaa", state=JobState.SUCCEEDED, finished_at=time.time())
        assert enforce_log_budget(2500, history) == ["old-aaaaaa", "new-aaaaaa"]
        finished("next-aaaaaa", [(STDOUT, 0, b"x")], -10)
        assert enforce_log_budget(2500, history) == ["runs-aaaaaa"]


def test_a_running_jobs_log_grows_beyond_the_budget(stoke: Stoke, tmp_path: Path) -> None:
    budget = {"STOKE_LOG__SPOOL_MAX": "5MB"}
    code = """
import os, sys, time
print("x" * 6_000_000, flush=True)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
"""
    go_on = tmp_path / "go on"
    done = stoke("run", "--detach", "--name", "huge", "-c", code, "--", str(go_on), env=budget)
    huge = done.stdout.decode().strip()
    until(lambda: len(stoke("logs", huge).stdout) == 6_000_001, "all of its log")
    assert stoke("run", "-q", "--name", "small", "-c", "print('here')", env=budget).returncode == 0
    assert stoke("logs", "small").stdout == b"here\n"
    assert b"beyond log.spool_max, " in stoke("show", huge, env=budget).stdout
    go_on.touch()
    assert stoke("logs", "-f", huge, env=budget).returncode == 0
    assert len(stoke("logs", huge).stdout) == 6_000_001
    assert b"was removed" in stoke("logs", "small").stderr


def test_the_budget_is_kept_after_a_job(stoke: Stoke) -> None:
    finished("old-aaaaaa", [(STDOUT, 0, b"x" * 6_000_000)], 30)
    done = stoke("run", "-q", "-c", "print('here')", env={"STOKE_LOG__SPOOL_MAX": "5MB"})
    assert (done.returncode, done.stdout) == (0, b"here\n"), done.stderr
    assert b"was removed" in stoke("logs", "old").stderr


def test_grep_finds_a_match_after_the_first_megabyte_of_a_line(stoke: Stoke) -> None:
    code = "print('x' * (3 << 20) + ' ERROR at the end'); print('short ERROR'); print('other')"
    assert stoke("run", "-q", "-c", code).returncode == 0
    job = only_job().id
    done = stoke("logs", "--grep", "ERROR", job)
    long, short = done.stdout.splitlines()
    assert long.startswith(b"xxx") and b"bytes more]" in long
    assert short == b"short ERROR"
    # The ends of a part of a line are no ends of a line.
    assert stoke("logs", "--grep", "^ERROR|x$", job).stdout == b""
    assert stoke("logs", "--grep", "at the end$", job).stdout.count(b"\n") == 1
