"""A job whose runner puts stdout and stderr into one stream (--tagged)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backends.common.stream_markers import decode_line
from stoke.backend.api import Frame
from stoke.cache.keys import request_keys
from stoke.delivery.payload import make_payload, runner_source
from stoke.remote.events import EventScanner
from stoke.request.sources import request_from_options

NONCE = "0123456789abcdef"


def records(log: bytes) -> list[Frame]:
    """What a log holds; fails for a line that is not a record."""
    frames = []
    for line in log.split(b"\n")[:-1]:
        frame = decode_line(7, line + b"\n")
        assert frame is not None, line
        frames.append(frame)
    return frames


def run_tagged(
    folder: Path, code: str, lock: str | None = None
) -> tuple[int, dict[int, bytes], list[str]]:
    """(exit code, what each stream had, the events' kinds); nothing may be outside of the tags.

    With `lock` it only prints that.
    """
    spec = request_from_options(code=code, requirements=lock, locked=lock is not None)
    payload = make_payload(
        spec,
        request_keys(spec),
        nonce=NONCE,
        program="main.py",
        lock_ttl=0,
        upgrade=False,
        lock_only=lock is not None,
    )
    (folder / "payload").write_bytes(payload)
    (folder / "runner.py").write_bytes(runner_source(spec))
    command = [sys.executable, "-I", "-S", f"{folder}/runner.py", f"{folder}/payload"]
    done = subprocess.run(
        [*command, "--work", f"{folder}/work", "--tagged"], capture_output=True, timeout=60
    )
    assert done.stderr == b""
    streams = {1: b"", 2: b""}
    for frame in records(done.stdout):
        streams[frame.stream] += frame.data
    scanner = EventScanner(NONCE)
    kinds = []
    stderr = b""
    for part in scanner.feed(streams[2]):
        if isinstance(part, bytes):
            stderr += part
        else:
            kinds.append(part["event"])
    return done.returncode, {1: streams[1], 2: stderr + scanner.flush()}, kinds


def test_both_streams_arrive_byte_for_byte(tmp_path: Path) -> None:
    code = """
import os
os.write(1, bytes(range(256)) * 700)
os.write(2, b"half a line, \\r\\n then \\xff\\xfe \\x1e\\x1d")
os.write(1, b"\\n\\nend")
raise SystemExit(9)
"""
    exit_code, streams, events = run_tagged(tmp_path, code)
    assert exit_code == 9
    assert streams[1] == bytes(range(256)) * 700 + b"\n\nend"
    assert streams[2] == b"half a line, \r\n then \xff\xfe \x1e\x1d"
    assert events == ["begin", "phase", "end"]


def test_output_beyond_a_pipes_capacity_does_not_block(tmp_path: Path) -> None:
    code = "import sys; sys.stdout.write('x' * 5_000_000); sys.stderr.write('y' * 5_000_000)"
    exit_code, streams, _ = run_tagged(tmp_path, code)
    assert (exit_code, len(streams[1]), len(streams[2])) == (0, 5_000_000, 5_000_000)


def test_a_process_that_keeps_the_streams_open_does_not_delay_the_end(tmp_path: Path) -> None:
    code = """
import os, sys, time
print("before", flush=True)
if os.fork() == 0:
    os.setsid()
    time.sleep(3)
    os._exit(0)
"""
    exit_code, streams, events = run_tagged(tmp_path, code)
    assert (exit_code, streams[1], events[-1]) == (0, b"before\n", "end")


def test_a_lock_that_is_printed_is_tagged_too(tmp_path: Path) -> None:
    lock = f"alpha==1 --hash=sha256:{'a' * 64}\n"
    exit_code, streams, events = run_tagged(tmp_path, "print('no')", lock)
    assert (exit_code, events) == (0, ["begin", "phase", "end"])
    assert streams[1].startswith(b"alpha==1") and streams[1].endswith(b"a" * 64 + b"\n")
