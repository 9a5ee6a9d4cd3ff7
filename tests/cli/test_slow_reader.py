"""Output to a pipe that is in non-blocking mode and whose reader takes its time."""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Stoke, only_job
from tests.terminals import PATIENCE, PROGRAM

BIG = "x = '" + "a" * 300_000 + "'\nprint(x)\n"


def slowly(*arguments: str) -> tuple[int, bytes, bytes]:
    """(exit code, stdout, stderr) of a command that meets a full pipe before the first read."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    process = subprocess.Popen(
        [PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    poll = select.poll()
    poll.register(theirs, select.POLLOUT)
    while poll.poll(0) and process.poll() is None:  # until the pipe is full
        pass
    os.close(theirs)
    with open(ours, "rb") as pipe:
        out = pipe.read()
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def test_output_of_commands_and_jobs_arrives_whole(
    stoke: Stoke, own_home: Path, tmp_path: Path
) -> None:
    script = tmp_path / "big.py"
    script.write_text(BIG)
    text = b"a" * 300_000 + b"\n"
    assert slowly("run", "-q", str(script)) == (0, text, b"")
    job = only_job().id
    assert slowly("logs", job) == (0, text, b"")
    for command in (["show", "--json", job], ["show", "--spec", job], ["jobs", "--json"]):
        done = stoke(*command)
        if done.returncode == 0 and len(done.stdout) > 1 << 16:
            assert slowly(*command) == (0, done.stdout, b"")
            break
    else:
        pytest.fail("no command prints more than a pipe holds")
