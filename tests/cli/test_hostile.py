"""Hostile text in every place of every command, at a real terminal: nothing of it acts there (S1)."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stoke.files.paths import history_file, job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState, Phase
from stoke.logs.spool import STDERR, STDOUT, SpoolWriter
from tests.backends.docker.fake_engine import fake_engine, json_answer
from tests.terminals import Terminal

HOSTILE = (
    "\x1b]0;PWN\x1b\\ \x1b]52;c;UFdOQ0xJUA==\x1b\\ \x1b[2J\x1b[H \x1b]8;;http://evil\x1b\\x "
    '\x1bP$q"p\x1b\\ \x1b[6n \x1b[?1049l \x9b31m \x9d0;PWN\x9c \u202eback \x07\x08\x7f \x1bc \x1b[1;1H'
)
# What our own output is made of: colours, line ends, the tab.
OURS = re.compile(rb"\x1b\[[0-9;]*m|\r\n")
ACTS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def check(screen: bytes) -> None:
    left = OURS.sub(b"", screen).replace(b"\r", b"")
    found = ACTS.search(left.decode("utf-8"))
    assert found is None, f"{found[0]!r} in {left[max(0, found.start() - 60) :][:200]!r}"


@pytest.fixture
def hostile_job() -> None:
    """A job in which everything that can be text is hostile."""
    everything = HOSTILE
    spec = {
        "code": f"x = '''{everything}'''\n",
        "args": [everything],
        "dependencies": [everything],
        "requirements": everything,
        "system": [everything],
        "python": everything,
        "env": {everything: everything},
        "secrets": {everything: everything},
        "index": {"url": everything, "extra": [everything]},
        "image": everything,
        "timeout": None,
        "cpu": None,
        "memory": None,
        "use_cache": True,
        "scope": everything,
    }
    with History() as history:
        job = Job("job-aaaaaa", everything, "local", "default", JobState.QUEUED, time.time())
        history.add(job, json.dumps(spec), None)
        history.set_phase(job.id, Phase(everything, 1.0, 1.0, True, 1, 1, 1))
        history.update(
            job.id, state=JobState.FAILED, exit_code=1, reason=everything, finished_at=time.time()
        )
    with sqlite3.connect(history_file()) as database:
        database.execute("UPDATE jobs SET backend = ?, scope = ?, image = ?", (everything,) * 3)
    writer = SpoolWriter(job_dir("job-aaaaaa"))
    for stream in (STDOUT, STDERR):
        writer.add(
            stream, 1, f"a line {everything}\nbytes ".encode() + b"\x9b31m \x9d0;x\x9c \xff\n"
        )
    writer.note(2, f"gap: {everything}")
    writer.add(STDOUT, 3, f"10%\r20% {everything}".encode())
    writer.close()


@pytest.mark.parametrize(
    "words",
    [
        ["jobs"],
        ["jobs", "--json"],
        ["show", "job-aaaaaa"],
        ["show", "--json", "job-aaaaaa"],
        ["logs", "job-aaaaaa"],
        ["logs", "-t", "job-aaaaaa"],
        ["logs", "--json", "job-aaaaaa"],
        ["logs", "--grep", "line|PWN|%", "job-aaaaaa"],
        ["logs", "--stream", "stderr", "job-aaaaaa"],
        ["logs", "--since", HOSTILE, "job-aaaaaa"],
        ["logs", "--grep", f"({HOSTILE}", "job-aaaaaa"],
        ["logs", "job-aaaaaa", HOSTILE],
        ["logs", "-f", "job-aaaaaa"],
        ["stop", HOSTILE],
        ["stop", "job-aaaaaa"],
        ["rm", HOSTILE],
        ["rm", "job-aaaaaa"],
        ["rerun", "job-aaaaaa"],
        ["cache", "ls", "-b", HOSTILE],
        ["run", "-b", HOSTILE, "-c", "1"],
        ["run", "-w", HOSTILE, "-c", "1"],
        ["run", "-s", HOSTILE, "-c", "1"],
        ["run", "--env", HOSTILE, "-c", "1"],
        ["run", "--scope", HOSTILE, "-c", "1"],
        ["run", "--python", HOSTILE, "-c", "1"],
        ["run", HOSTILE],
        ["submit", HOSTILE],
        ["render", HOSTILE],
        [HOSTILE],
        ["run", f"--{HOSTILE}"],
    ],
    ids=lambda words: " ".join(words).encode("unicode_escape").decode()[:24],
)
def test_no_command_lets_any_of_it_through(
    hostile_job: None, terminal: Callable[..., Terminal], words: list[str]
) -> None:
    shown = terminal(*words)
    shown.wait()
    assert shown.screen
    check(shown.screen)


def test_hostile_answers_of_an_engine(tmp_path: Path, terminal: Callable[..., Terminal]) -> None:
    with fake_engine(tmp_path) as engine:
        engine.answers["json"] = [json_answer({"message": HOSTILE}, 500)]
        for words in (
            ["run", "-b", "docker", "-c", "1"],
            ["cache", "ls", "-b", "docker"],
            ["doctor"],
        ):
            shown = terminal(*words, env={"DOCKER_HOST": engine.url})
            shown.wait()
            check(shown.screen)


def test_hostile_values_in_a_configuration(
    own_home: Path, terminal: Callable[..., Terminal]
) -> None:
    escaped = json.dumps(HOSTILE)
    for text in (f"backend = {escaped}", f"{escaped} = 1", f"[docker]\nhost = {escaped}", HOSTILE):
        (own_home / "config.toml").write_text(text)
        shown = terminal("doctor")
        shown.wait()
        check(shown.screen)


def test_hostile_output_and_end_of_a_running_job(terminal: Callable[..., Terminal]) -> None:
    code = f"import sys\nh = {HOSTILE!r}\nprint(h)\nprint(h, file=sys.stderr)\nraise SystemExit(h)"
    shown = terminal("run", "--name", "bad", "-c", code)
    shown.wait()
    check(shown.screen)
