"""Logs over HTTP: exact, followed as they grow, resumed where they were cut."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stoke.api import logs
from stoke.api.log_cursor import PIECE, LogCursor
from stoke.api.sse import KEEP_ALIVE
from stoke.files.file_lock import release_lock, take_lock
from stoke.files.paths import job_dir
from stoke.jobs.tracker import POLL_SECONDS
from stoke.logs.spool import STDERR, STDOUT, SpoolWriter
from tests.api.served import Client, Event, make_token, output, problem, serving
from tests.lab import until

BYTES = """
import os, sys
os.write(1, bytes(range(256)) * 4)
os.write(1, b"\\r\\n\\n\\xff\\xfe\\x00 data: x\\n\\nid: 7\\n")
os.write(2, b"\\xc3\\x28 to stderr")
"""
EXACT = bytes(range(256)) * 4 + b"\r\n\n\xff\xfe\x00 data: x\n\nid: 7\n"
WAITS = """
import os, time
while not os.path.exists({gate!r}):
    time.sleep(0.01)
"""
TICKS = """
import sys, os, time
for number in range(20):
    print(number, flush=True)
    while not os.path.exists(sys.argv[1] + f"/{number}"):
        time.sleep(0.01)
"""


def test_every_byte_of_a_log_arrives(client: Client) -> None:
    job = client.run({"code": BYTES})["id"]
    assert client.log(job, "?stream=stdout") == EXACT
    assert client.log(job, "?stream=stderr") == b"\xc3\x28 to stderr"
    assert sorted(client.log(job)) == sorted(EXACT + b"\xc3\x28 to stderr")
    events = client.followed(job)
    assert output(events) == EXACT
    assert output(events, "stderr") == b"\xc3\x28 to stderr"
    assert events[-1].name == "end" and '"state": "succeeded"' in events[-1].data


def test_lines_come_while_the_job_runs(client: Client, tmp_path: Path) -> None:
    job = client.submit({"code": TICKS, "args": [str(tmp_path)]})["id"]
    seen = b""
    with client.following(job) as events:
        for number in range(20):
            while b"%d\n" % number not in seen:
                seen += next(events).bytes
            # Only now the job may print the next one.
            (tmp_path / str(number)).touch()
        assert next(events).name == "end"
        assert next(events, None) is None
    assert seen == b"".join(b"%d\n" % number for number in range(20))


def test_a_log_is_resumed_after_any_event(client: Client) -> None:
    code = "import os\nfor n in range(9): os.write(1 + n % 2, b'%d\\xff\\n' % n * (n * 2_000 + 1))"
    job = client.run({"code": code})["id"]
    events = client.followed(job)
    for number, event in enumerate(events[:-1]):
        rest = client.followed(job, event.id)
        for stream in ("stdout", "stderr"):
            assert output(rest, stream) == output(events[number + 1 :], stream)
        assert rest[-1] == events[-1]
    answer = client.get(
        f"/api/v1/tasks/{job}/logs?follow=true", headers={"Last-Event-ID": events[-1].id}
    )
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_resumed_log_begins_inside_a_line(client: Client) -> None:
    job = client.run({"code": "print('abcdef')"})["id"]
    assert output(client.followed(job, "3")) == b"def\n"
    # A position after the end waits for bytes that never come, and ends with the job.
    (end,) = client.followed(job, "1000")
    assert end.name == "end"


@pytest.mark.parametrize("after", ["x", "-1", "1e3", "9" * 40, "1;drop", "0x10"])
def test_a_wrong_position_is_refused(client: Client, after: str) -> None:
    job = client.run({"code": "1"})["id"]
    answer = client.get(f"/api/v1/tasks/{job}/logs?follow=true", headers={"Last-Event-ID": after})
    assert answer.status_code == 422 and problem(answer)["field"] == "Last-Event-ID"


@pytest.mark.parametrize(("query", "accept"), [("follow=true&", "*/*"), ("", "text/event-stream")])
def test_events_have_both_streams(client: Client, query: str, accept: str) -> None:
    job = client.run({"code": "1"})["id"]
    path = f"/api/v1/tasks/{job}/logs?{query}stream=stdout"
    answer = client.get(path, headers={"Accept": accept})
    assert answer.status_code == 422 and problem(answer)["field"] == "query.stream"


def test_a_log_is_resumed_at_another_server(own_home: Path, tmp_path: Path) -> None:
    secret = make_token("ci")
    first: list[Event] = []
    with serving() as address:
        client = Client(address, secret)
        job = client.submit({"code": TICKS, "args": [str(tmp_path)]})["id"]

        def follow() -> None:
            with client.following(job) as events:
                first.extend(events)

        follower = threading.Thread(target=follow)
        follower.start()
        until(lambda: client.log(job) == b"0\n", "its first line")
    # The stopped server has ended the stream in good order.
    follower.join(20)
    assert not follower.is_alive()
    assert [event.name for event in first] in ([], ["stdout"])
    for number in range(20):
        (tmp_path / str(number)).touch()
    with serving() as address:
        rest = Client(address, secret).followed(job, first[-1].id if first else None)
    assert output([*first, *rest]) == b"".join(b"%d\n" % number for number in range(20))


def test_a_hundred_followers_get_the_same_bytes(client: Client, tmp_path: Path) -> None:
    code = f"{TICKS}\nos.write(1, bytes(range(256)) * 2000)"
    job = client.submit({"code": code, "args": [str(tmp_path)]})["id"]

    def follow(_: int) -> bytes:
        return output(Client(client.address, client.secret).followed(job))

    with ThreadPoolExecutor(100) as pool:
        logs = [pool.submit(follow, number) for number in range(100)]
        until(lambda: "stoke_api_streams 100\n" in client.get("/metrics").text, "all of them")
        for number in range(20):
            (tmp_path / str(number)).touch()
        found = {log.result() for log in logs}
    expected = b"".join(b"%d\n" % number for number in range(20)) + bytes(range(256)) * 2000
    assert found == {expected}
    until(lambda: "stoke_api_streams 0\n" in client.get("/metrics").text, "their end")


def test_the_end_of_a_follower_frees_its_place(own_home: Path) -> None:
    secret = make_token("ci")
    with serving(streams=1) as address:
        client = Client(address, secret)
        job = client.submit({"code": "import time; print(1, flush=True); time.sleep(600)"})["id"]
        path = f"/api/v1/tasks/{job}/logs?follow=true"
        with client.following(job) as events:
            assert next(events).bytes == b"1\n"
            answer = client.get(path)
            assert answer.status_code == 503 and "api.streams" in problem(answer)["detail"]
        client.ask("DELETE", f"/api/v1/tasks/{job}?grace=0")

        def is_free() -> bool:
            with client.get(path, stream=True) as answer:
                return answer.status_code == 200

        until(is_free, "a free place")


def test_a_slow_reader_costs_no_memory(client: Client) -> None:
    code = "import os\nfor n in range(400): os.write(1, bytes(65536 * 4))"
    job = client.run({"code": code})["id"]
    request = client.head("GET", f"/api/v1/tasks/{job}/logs") + b"\r\n"
    before = _resident()
    slow = []
    for _ in range(20):
        connection = client.connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request)
        assert connection.recv(100)
        slow.append(connection)
    until(lambda: "stoke_api_streams 20\n" in client.get("/metrics").text, "the readers")
    assert _resident() - before < 20 * 3 * 1024**2
    # The others are served as ever.
    assert len(client.log(job)) == 400 * 65536 * 4
    for connection in slow:
        connection.close()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_job_that_waits_for_its_engine_can_be_followed_at_once(client: Client) -> None:
    with ThreadPoolExecutor(10) as pool:

        def run(number: int) -> bytes:
            other = Client(client.address, client.secret)
            job = other.submit({"code": f"print({number})"})["id"]
            return output(other.followed(job))

        assert list(pool.map(run, range(20))) == [b"%d\n" % number for number in range(20)]


def test_a_log_that_the_disk_has_no_room_for_ends_with_the_reason(own_home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    jobs = job_dir("x").parent
    jobs.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k,mode=700", "none"]
    subprocess.run([*mount, jobs], check=True)
    try:
        with serving() as address:
            client = Client(address, make_token("admin", "admin"))
            gate = own_home / "gate"
            code = WAITS.format(gate=str(gate)) + "print('x' * 1_000_000)"
            job = client.submit({"code": "print('kept', flush=True)\n" + code})
            with client.following(job["id"]) as events:
                first = next(events)
                assert first.bytes == b"kept\n"
                gate.touch()
                rest = list(events)
            told = [event.name for event in rest if event.name not in ("stdout", "stderr")]
            assert told == ["trouble", "error"]
            for event in rest[-2:]:
                assert "No space left on device" in json.loads(event.data)["detail"]
                assert "export STOKE_STATE_DIR=" in json.loads(event.data)["hint"]
            # A client that comes later gets the reason at once.
            assert client.followed(job["id"], first.id)[-1].name == "error"
    finally:
        subprocess.run(["umount", "--lazy", jobs], check=True)


def test_a_stream_without_output_is_kept_alive_whatever_changes(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies close a connection on which nothing comes. While another process reads the log, the
    server looks for news several times a second."""
    monkeypatch.setattr(logs, "KEEP_ALIVE_SECONDS", 4 * POLL_SECONDS)
    gate = tmp_path / "gate"
    job = client.submit({"code": WAITS.format(gate=str(gate))})["id"]
    until(lambda: client.task(job)["state"] == "running", "the start of the code")
    lock = take_lock(job_dir(job) / "follow.lock", wait=True)
    assert lock is not None
    path = f"/api/v1/tasks/{job}/logs?follow=true"
    received = b""
    with client.get(path, stream=True) as answer:
        for piece in answer.iter_content(None):
            received += piece
            if received.count(KEEP_ALIVE) == 2:
                break
    release_lock(lock)
    gate.touch()
    client.over(job)


def test_a_cursor_reads_what_a_writer_adds(own_home: Path) -> None:
    folder = job_dir("job-aaaaaa")
    writer = SpoolWriter(folder)
    cursor = LogCursor(folder)
    assert cursor.next() is None
    expected = {STDOUT: b"", STDERR: b""}
    read = {STDOUT: b"", STDERR: b""}
    for number in range(300):
        stream = STDOUT if number % 7 else STDERR
        data = b"x\n" * (number * 31 % 5000) + b"part %d" % number + b"\n" * (number % 2)
        writer.add(stream, time.time_ns(), data)
        writer.flush()
        expected[stream] += data
        if number % 3 == 0:
            while piece := cursor.next():
                assert 0 < len(piece.data) <= PIECE
                read[piece.stream] += piece.data
                # Another reader that begins at this position sees the same rest.
                if number % 30 == 0:
                    other = LogCursor(folder, piece.end)
                    assert other.position == cursor.position
                    other.close()
    while piece := cursor.next():
        read[piece.stream] += piece.data
    assert read == expected
    writer.close()
    cursor.close()


def test_a_cursor_waits_while_a_truncated_log_is_read_again(own_home: Path) -> None:
    folder = job_dir("job-aaaaaa")
    writer = SpoolWriter(folder)
    writer.add(STDOUT, 1, b"first\n")
    writer.flush()
    size, lines = writer.bytes, writer.lines
    writer.add(STDOUT, 2, b"second\n")
    writer.flush()
    cursor = LogCursor(folder)
    piece = cursor.next()
    assert piece is not None and piece.data == b"first\nsecond\n"
    writer.truncate(size, lines, 0)
    assert cursor.next() is None
    writer.add(STDOUT, 2, b"sec")
    writer.flush()
    assert cursor.next() is None
    writer.add(STDOUT, 2, b"ond\nthird\n")
    writer.flush()
    piece = cursor.next()
    assert piece is not None and piece.data == b"third\n"
    writer.close()
    cursor.close()
