"""Memory while a long log is followed.

The numbers in test names are those of docs/log-contract.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoke.backend.api import Frame
from stoke.logs.spool import STDERR, STDOUT
from stoke.remote.protocol import frame
from tests.logs.follower.recording import BEGIN, MS, NONCE, START, RecordedFollower
from tests.scripted import ScriptedBackend
from tests.spools import size_of


def peak() -> int:
    """Return the peak memory of this process in KiB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def many_lines() -> Iterator[list[Frame]]:
    yield [Frame(STDERR, START - MS, frame(NONCE, BEGIN))]
    for start in range(0, 500_000, 2000):
        yield [Frame(STDOUT, START + n * 7000, b"%099d\n" % n) for n in range(start, start + 2000)]


def one_line() -> Iterator[list[Frame]]:
    """A long line as engines give it: in parts that all have the time of the first."""
    yield [Frame(STDERR, START - MS, frame(NONCE, BEGIN))]
    for number in range(500):
        end = b"\n" if number == 499 else b"x"
        yield [Frame(STDOUT, START, b"%099999d" % number + end)]


@pytest.mark.parametrize(("log", "lines"), [(many_lines, 500_000), (one_line, 1)])
def test_c24_memory_does_not_grow_with_the_log(
    tmp_path: Path, log: Callable[[], Iterator[list[Frame]]], lines: int
) -> None:
    """The follower holds some megabytes of frames that may come again, and the current batch."""

    class Long:
        def __iter__(self) -> Iterator[list[Frame]]:
            return log()

        def close(self) -> None:
            pass

    backend = ScriptedBackend()
    backend.logs = lambda *_: Long()  # type: ignore[method-assign, assignment]
    child = os.fork()
    if not child:
        # The peak is inherited; from here on it is that of the child.
        Path("/proc/self/clear_refs").write_text("5")
        before = peak()
        try:
            RecordedFollower(backend, tmp_path).follower.catch_up()
        finally:
            os._exit(min(255, (peak() - before) // 1024))  # MiB
    megabytes = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert size_of(tmp_path) == (50_000_000, lines)
    assert megabytes < 16
