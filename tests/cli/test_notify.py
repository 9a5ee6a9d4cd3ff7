"""Jobs that tell of their end: to a program, and to a real web server that answers badly."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stoke.history.attempts import Attempts
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.history.notifications import Notifications
from stoke.history.queue import JobQueue
from stoke.jobs import notify as notify_module
from stoke.jobs.notify import notify
from stoke.notify.webhook import is_allowed
from tests.cli.conftest import Stoke
from tests.cli.test_queue import scheduler_pid
from tests.hints import exported, is_hint
from tests.lab import until


class Hook:
    """A web server that answers each request as the next of `answers` tells; 200 after the last."""

    def __init__(self) -> None:
        self.answers: list[int | str] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.ends = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.headers.append({name.lower(): text for name, text in self.headers.items()})
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                answer = hook.answers.pop(0) if hook.answers else 200
                if answer == "hangs":
                    hook.ends.wait(60)
                    return
                if answer == "drips":
                    while not hook.ends.wait(0.1):
                        self.wfile.write(b"H")
                    return
                self.send_response(int(answer))
                if answer == 302:
                    self.send_header("Location", f"{hook.url}/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.ends.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    hook = Hook()
    monkeypatch.setenv("STOKE_NOTIFY__WEBHOOK", hook.url)
    for name in (
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    yield hook
    hook.close()


@pytest.fixture(autouse=True)
def no_scheduler_left(own_home: Path) -> Iterator[None]:
    yield
    with History() as history:
        for job_id in Notifications(history).pending():
            Notifications(history).set_sent(job_id)
        for job_id in Attempts(history).undecided():
            Attempts(history).decide(job_id, "")
        JobQueue(history).pause(["local"])
    until(lambda: scheduler_pid() is None, "the end of the scheduler")


def run(stoke: Stoke, *options: str, code: str = "pass") -> str:
    """Submit a job that tells of its end, and return its id."""
    done = stoke("run", "-d", "--notify", *options, "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def until_told(job_id: str) -> list[str]:
    """Wait until a job has told of its end, which only the scheduler has seen; return its notes."""
    with History() as history:
        until(lambda: not Notifications(history).is_pending(job_id), f"word of {job_id}")
        return [note.text for note in history.notes(job_id)]


def test_a_webhook_gets_the_job_as_show_prints_it_once(stoke: Stoke, hook: Hook) -> None:
    job = run(stoke, code="exit(3)")
    assert until_told(job) == []
    shown = json.loads(stoke("show", job, "--json").stdout)
    assert hook.bodies == [shown]
    assert (shown["state"], shown["exit_code"]) == ("failed", 3)
    assert hook.headers[0]["content-type"] == "application/json"
    assert "authorization" not in hook.headers[0]
    stoke("jobs")
    notify(job)
    assert len(hook.bodies) == 1


def test_an_attached_run_tells_of_its_end_and_other_jobs_do_not(stoke: Stoke, hook: Hook) -> None:
    assert stoke("run", "-c", "print(1)").stdout == b"1\n"
    assert stoke("run", "--notify", "-c", "print(2)").stdout == b"2\n"
    until(lambda: len(hook.bodies) == 1, "the request")
    with History() as history:
        newest = history.list()[0]
    assert until_told(newest.id) == [] and hook.bodies[0]["id"] == newest.id


def test_all_jobs_tell_of_their_end_if_that_is_set(
    stoke: Stoke, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKE_NOTIFY__ALWAYS", "true")
    stoke("run", "-c", "1")
    until(lambda: len(hook.bodies) == 1, "the request")


def test_the_last_attempt_tells_of_the_end(
    stoke: Stoke, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKE_QUEUE__RETRY_DELAY", "0.1")
    job = run(stoke, "--retries", "1", "--retry-exit", "9", code="exit(9)")
    until(lambda: len(hook.bodies) == 1, "the request")
    assert until_told(f"{job}-r2") == [] and hook.bodies[0]["id"] == f"{job}-r2"


def test_a_failed_webhook_is_asked_again(stoke: Stoke, hook: Hook) -> None:
    hook.answers = [500, 503]
    job = run(stoke)
    assert until_told(job) == []
    assert [one["id"] for one in hook.bodies] == [job] * 3


def test_the_secret_is_read_from_its_file_and_never_stored(
    stoke: Stoke, hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("Bearer s3cret\n")
    monkeypatch.setenv("STOKE_NOTIFY__SECRET", f"file:{secret}")
    monkeypatch.setenv("STOKE_NOTIFY__HEADER", "X-Token")
    job = run(stoke)
    assert until_told(job) == []
    assert hook.headers[0]["x-token"] == "Bearer s3cret"
    assert "s3cret" not in json.dumps(hook.bodies)


# The failures that follow take their tries without the pauses between them, in this process.


@pytest.fixture
def tell(stoke: Stoke, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[list[str], float]]:
    """Tell of the end of a job that has ended; return its notes, and the seconds that it took."""

    def tell() -> tuple[list[str], float]:
        monkeypatch.setattr(notify_module, "PAUSES", (0.0, 0.0))
        monkeypatch.setattr(notify_module, "TRY_SECONDS", 1.0)
        assert stoke("run", "-c", "1", env={"STOKE_NOTIFY__WEBHOOK": "https://unused.invalid/"})
        with History() as history:
            (job,) = history.list()
            Notifications(history).add(job.id)
            began = time.monotonic()
            notify(job.id)
            took = time.monotonic() - began
            assert not Notifications(history).is_pending(job.id)
            after = history.get(job.id)
            assert after is not None and after.state is JobState.SUCCEEDED
            return [note.text for note in history.notes(job.id)], took

    return tell


@pytest.mark.parametrize(
    ("answers", "asked", "note"),
    [
        ([500, 500, 500], 3, "notify.webhook failed: the webhook answered 500 (tried 3 times)"),
        ([404], 1, "notify.webhook failed: the webhook answered 404"),
        (
            [302], 1,
            "notify.webhook failed: the webhook answered 302, a redirect, which is not followed",
        ),
        (["hangs"] * 3, 3, "(tried 3 times)"),
        (["drips"] * 3, 3, "the webhook did not answer within 1 s (tried 3 times)"),
        (["hangs", 200], 2, None),
    ],
)  # fmt: skip
def test_a_webhook_that_fails_is_a_note_and_does_not_change_the_job(
    tell: Callable[[], tuple[list[str], float]],
    hook: Hook,
    answers: list[int | str],
    asked: int,
    note: str | None,
) -> None:
    hook.answers = list(answers)
    notes, took = tell()
    assert len(hook.bodies) == asked
    assert (note is None and notes == []) or (note is not None and note in notes[0])
    assert took < 10


def test_a_webhook_that_is_not_there(
    tell: Callable[[], tuple[list[str], float]], hook: Hook
) -> None:
    hook.close()
    (note,), _ = tell()
    assert "notify.webhook failed: the webhook cannot be reached" in note and hook.url not in note


def test_a_missing_secret_is_named(
    tell: Callable[[], tuple[list[str], float]], hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKE_NOTIFY__SECRET", "env:NOT_THERE")
    (note,), _ = tell()
    assert note == "notify.webhook failed: notify.secret: the variable NOT_THERE is not set"
    assert hook.bodies == []


def program(folder: Path, code: str) -> str:
    path = folder / "tell.sh"
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)
    return json.dumps([str(path), "a b; $(c)"])


def test_a_program_gets_the_job_on_its_standard_input(
    tell: Callable[[], tuple[list[str], float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = program(tmp_path, f'cat > "{out}"; printf %s "$1" > "{out}.1"')
    monkeypatch.setenv("STOKE_NOTIFY__COMMAND", command)
    assert tell()[0] == []
    assert json.loads(out.read_text())["state"] == "succeeded"
    assert (tmp_path / "out.1").read_text() == "a b; $(c)"


def test_a_program_that_fails_is_run_three_times(
    tell: Callable[[], tuple[list[str], float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = program(tmp_path, f'echo x >> "{tmp_path}/runs"; printf "no \\033[31mroute"; exit 7')
    monkeypatch.setenv("STOKE_NOTIFY__COMMAND", command)
    (note,), _ = tell()
    assert note.startswith("notify.command failed: tell.sh ended with exit code 7: no ")
    assert note.endswith("route (tried 3 times)") and "\033" not in note
    assert (tmp_path / "runs").read_text() == "x\nx\nx\n"


def test_a_program_that_hangs_is_killed_with_its_children(
    tell: Callable[[], tuple[list[str], float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    command = program(tmp_path, f'sleep 600 & echo $! >> "{pids}"; wait')
    monkeypatch.setenv("STOKE_NOTIFY__COMMAND", command)
    (note,), took = tell()
    assert note == "notify.command failed: tell.sh was killed after 1 s (tried 3 times)"
    assert took < 10
    for pid in pids.read_text().split():
        until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), f"the end of {pid}")  # type: ignore[misc]


def test_a_program_that_is_not_there(
    tell: Callable[[], tuple[list[str], float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKE_NOTIFY__COMMAND", '["/not/there"]')
    (note,), _ = tell()
    assert note == (
        "notify.command failed: notify.command cannot be started: /not/there: No such file or directory"
    )


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("https://hooks.example.org/jobs?x=1", True),
        ("http://localhost:8080/", True),
        ("http://127.0.0.1/", True),
        ("http://[::1]:80/", True),
        ("http://hooks.example.org/", False),
        ("http://127.0.0.1.example.org/", False),
        ("https://user:password@example.org/", False),
        ("ftp://example.org/", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("https://[", False),
    ],
)
def test_where_a_job_may_be_sent(address: str, allowed: bool) -> None:
    assert is_allowed(address) is allowed


def test_a_job_that_has_nobody_to_tell_is_refused(stoke: Stoke) -> None:
    done = stoke("run", "--notify", "-c", "1")
    assert done.returncode == 2
    assert b"the configuration names no program and no web address to tell" in done.stderr
    hint = done.stderr.decode().partition("hint: ")[2].strip()
    is_hint(hint, "name one: export STOKE_NOTIFY__WEBHOOK=https://hooks.example.org/jobs")
    assert stoke("render", "script", "--notify", "-c", "1", env=exported(hint)).returncode == 0
    assert stoke("run", "-c", "1").returncode == 0
    with History() as history:
        (job,) = history.list()
    done = stoke("rerun", "--notify", job.id)
    assert done.returncode == 2 and b"names no program" in done.stderr
    done = stoke("run", "--notify", "-c", "1", env={"STOKE_NOTIFY__WEBHOOK": "http://example.org/"})
    assert done.returncode == 2 and b"is not an address that jobs may be sent to" in done.stderr
