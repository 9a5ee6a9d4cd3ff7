"""The HTTP API under load: the time to an accepted job at a steady rate, the most that are accepted,
the jobs in the history after a kill -9, and followers of one log.

The server is the real program with the local backend. The jobs that it starts take the processor, too.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.measure import STOKE

RATE = 50
SECONDS = 30.0
MOST_MILLISECONDS = 50.0
BURST_SECONDS = 10.0
LEAST_RATE = 200.0
FOLLOWERS = 100
MOST_MEMORY = 3 * 1024**2
_CODE = b'{"code": "pass"}'


class Served(NamedTuple):
    home: str
    port: int
    secret: str
    process: subprocess.Popen[str]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}

    def submit(self, connection: http.client.HTTPConnection, body: bytes = _CODE) -> str | None:
        """Return the id of the job; None if it was not accepted."""
        connection.request("POST", "/api/v1/tasks/submit", body, self.headers)
        answer = connection.getresponse()
        text = answer.read()
        return str(json.loads(text)["id"]) if answer.status in (200, 202) else None

    def resident(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")


@contextmanager
def server() -> Iterator[Served]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        env = {"PATH": os.environ["PATH"], "HOME": home, "STOKE_API__RATE": "1000000"}
        made = subprocess.run(
            [STOKE, "api", "token", "add", "bench"],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        process = subprocess.Popen(
            [STOKE, "api", "--port", "0"], env=env, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        found = re.search(r":(\d+);", process.stderr.readline())
        assert found is not None
        try:
            yield Served(home, int(found[1]), made.stdout.strip(), process)
        finally:
            process.kill()
            process.wait()


def main() -> None:
    with server() as served:
        times, refused = at_rate(served)
        percentiles = statistics.quantiles(times, n=100)
        _say(
            f"submit at {RATE}/s for {SECONDS:.0f} s: p50 {percentiles[49] * 1000:.1f} ms, "
            f"p99 {percentiles[98] * 1000:.1f} ms to accepted, {refused} refused",
            percentiles[98] * 1000 <= MOST_MILLISECONDS and not refused,
        )
    with server() as served:
        accepted, seconds = as_fast_as_possible(served)
        served.process.kill()
        lost = missing(served, accepted)
        _say(
            f"submit as fast as possible: {len(accepted) / seconds:.0f}/s, "
            f"{lost} of {len(accepted)} accepted jobs not in the history after kill -9",
            len(accepted) / seconds >= LEAST_RATE and not lost,
        )
    with server() as served:
        memory, exact, seconds = followers(served)
        _say(
            f"{FOLLOWERS} followers of one log of 20 MB: {memory / 1024**2:.2f} MiB each, "
            f"{exact} exact, {seconds:.1f} s",
            memory <= MOST_MEMORY and exact == FOLLOWERS,
        )


def at_rate(served: Served) -> tuple[list[float], int]:
    """Submit at a steady rate; return the seconds of each, from when it was due, and those refused."""
    times: list[float] = []
    refused: list[int] = []
    local = threading.local()
    began = time.perf_counter()

    def one(number: int) -> None:
        if not hasattr(local, "connection"):
            local.connection = served.connect()
        due = began + number / RATE
        time.sleep(max(0.0, due - time.perf_counter()))
        if served.submit(local.connection) is None:
            refused.append(number)
        times.append(time.perf_counter() - due)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(int(RATE * SECONDS))))
    return times, len(refused)


def as_fast_as_possible(served: Served) -> tuple[list[str], float]:
    accepted: list[str] = []
    until = time.perf_counter() + BURST_SECONDS

    def submit() -> None:
        connection = served.connect()
        while time.perf_counter() < until:
            job = served.submit(connection)
            if job is None:
                time.sleep(0.05)
            else:
                accepted.append(job)

    began = time.perf_counter()
    _together(8, submit)
    return accepted, time.perf_counter() - began


def missing(served: Served, accepted: list[str]) -> int:
    """Return how many of these jobs are not in the history of the server's user."""
    with closing(sqlite3.connect(f"{served.home}/.local/state/stoke/history.sqlite")) as db:
        known = {row[0] for row in db.execute("SELECT id FROM jobs")}
    return len(set(accepted) - known)


def followers(served: Served) -> tuple[float, int, float]:
    """Return the memory of one follower in bytes, how many got every byte, and the seconds of all."""
    wait = Path(tempfile.mkdtemp()) / "go"
    code = (
        f"import os, time\nwhile not os.path.exists({str(wait)!r}): time.sleep(0.01)\n"
        "for number in range(20): os.write(1, bytes(range(256)) * 4096)\n"
    )
    job = served.submit(served.connect(), json.dumps({"code": code}).encode())
    assert job is not None
    expected = bytes(range(256)) * 4096 * 20
    exact: list[bool] = []
    answers = []
    before = served.resident()
    for _ in range(FOLLOWERS):
        connection = served.connect()
        connection.request("GET", f"/api/v1/tasks/{job}/logs?follow=true", headers=served.headers)
        answers.append(connection.getresponse())
    memory = [float(served.resident() - before)]
    began = time.perf_counter()
    wait.touch()

    def read(answer: http.client.HTTPResponse) -> None:
        found = bytearray()
        name = b""
        for line in answer:
            if line.startswith(b"event: "):
                name = line[7:].strip()
            elif line.startswith(b"data: ") and name == b"stdout":
                found += base64.b64decode(line[6:])
        exact.append(found == expected)
        memory.append(float(served.resident() - before))

    with ThreadPoolExecutor(FOLLOWERS) as pool:
        list(pool.map(read, answers))
    return max(memory) / FOLLOWERS, sum(exact), time.perf_counter() - began


def _together(count: int, work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(work) for _ in range(count)]:
            done.result()


def _say(what: str, reached: bool) -> None:
    print(f"{'ok' if reached else 'NOT REACHED':11}  {what}", flush=True)


if __name__ == "__main__":
    main()
