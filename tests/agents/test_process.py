"""The process of `stoke mcp`: what it prints, and how it ends when its client closes the connection."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stoke.cli.main import CLOSED_OUTPUT
from stoke.client.session import Session
from stoke.history.job import JobState
from tests.lab import until
from tests.terminals import PATIENCE, PROGRAM

WAITS = "import time; print('began', flush=True); time.sleep(600)"


class Server:
    """The program with pipes, and the messages of a client that a test writes."""

    def __init__(self, home: Path, **env: str) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, "mcp"],
            cwd=home,
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        client = {"name": "test", "version": "1"}
        start = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
        self.send("initialize", start, 1)
        assert self.receive()["result"]["serverInfo"]["name"] == "stoke"
        self.send("notifications/initialized", {})

    def send(self, method: str, params: dict[str, Any], number: int | None = None) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if number is not None:
            message["id"] = number
        self.write(json.dumps(message).encode() + b"\n")

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def call(self, tool: str, number: int, **arguments: Any) -> None:
        self.send("tools/call", {"name": tool, "arguments": arguments}, number)

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        message: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert message["jsonrpc"] == "2.0"
        return message


@pytest.fixture
def server(own_home: Path) -> Iterator[Server]:
    started = Server(own_home, STOKE_DEBUG="1")
    yield started
    started.process.kill()
    started.process.wait()
    for pipe in (started.process.stdin, started.process.stdout, started.process.stderr):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()


def running_job() -> str:
    """The id of the only job, once it runs."""
    with Session() as session:
        until(lambda: len(session.history.list()) == 1, "a submission")
        (job,) = session.history.list()
        until(lambda: session.job(job.id).state is JobState.RUNNING, "the start of the job")
        return job.id


def test_the_client_goes_away_while_a_job_runs(server: Server) -> None:
    server.call("run", 2, code=WAITS, wait=600)
    job = running_job()
    assert server.process.stdin is not None
    server.process.stdin.close()
    assert server.process.wait(PATIENCE) == 0
    assert server.process.stderr is not None
    assert b"Traceback" not in server.process.stderr.read()
    with Session() as session:
        assert session.job(job).state is JobState.RUNNING


def test_the_client_goes_away_before_its_answer(server: Server, own_home: Path) -> None:
    process = server.process
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdout.close()
    server.call("run", 2, code="print('x' * 90_000)", max_bytes=100_000)
    with Session() as session:
        until(
            lambda: (
                [session.job(job.id).state for job in session.history.list()]
                == [JobState.SUCCEEDED]
            ),
            "the end of the job",
        )
    process.stdin.close()
    assert process.wait(PATIENCE) in (0, CLOSED_OUTPUT)
    assert b"stoke itself failed" not in process.stderr.read()
    assert not list(own_home.rglob("crash.log"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_not_its_jobs(server: Server, number: signal.Signals) -> None:
    server.call("run", 2, code=WAITS, wait=600)
    job = running_job()
    server.process.send_signal(number)
    assert server.process.wait(PATIENCE) == -number
    with Session() as session:
        assert session.job(job).state is JobState.RUNNING


def test_a_cancelled_call_leaves_its_job_running(server: Server) -> None:
    server.call("run", 2, code=WAITS, wait=600)
    job = running_job()
    server.send("notifications/cancelled", {"requestId": 2, "reason": "impatient"})
    server.call("status", 3)
    while (message := server.receive()).get("id") != 3:
        pass
    (listed,) = json.loads(message["result"]["content"][0]["text"])["jobs"]
    assert (listed["id"], listed["state"]) == (job, "running")


def test_broken_input_is_answered_and_survived(server: Server) -> None:
    for line in (b"not json\n", b"\xff\xfe\n", b"[" * 5000 + b"\n", b'{"jsonrpc":"2.0"}\n'):
        server.write(line)
    server.send("tools/call", {"name": 5}, 7)
    server.send("no/such/method", {}, 8)
    server.call("run", 9, code="print('\\x1b[2Jfine')", name="x" * 100_000)
    answers: dict[int, dict[str, Any]] = {}
    while 9 not in answers:
        message = server.receive()
        answers[message.get("id") or 0] = message
    assert "error" in answers[7] and "error" in answers[8]
    answer = json.loads(answers[9]["result"]["content"][0]["text"])
    assert (answer["output"], answer["job"]["name"]) == ("fine\n", "x" * 200)
