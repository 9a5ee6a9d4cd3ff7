"""Which last lines of a log are progress bars."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stoke.logs.progress_bar import current_bar
from stoke.logs.spool import STDERR, SpoolWriter


@pytest.mark.parametrize(
    ("log", "bar"),
    [
        (b"\r  0%|    | 0/9\r 50%|##  | 5/9", "50%|##  | 5/9"),
        (b"began\n 10%\r 20%\r", "20%"),
        (b"\r\x1b[31m 50%\x1b[0m\x1b]52;c;aGk=\x07", "50%"),
        (b"\r100%\ndone", ""),
        (b"\r100%\n", ""),
        (b"no bar", ""),
        (b"", ""),
        (b"x" * 100_000 + b"\r 7%", "7%"),
    ],
)
def test_the_last_state_of_the_last_line_is_the_bar(tmp_path: Path, log: bytes, bar: str) -> None:
    spool = SpoolWriter(tmp_path)
    if log:
        spool.add(STDERR, time.time_ns(), log)
    spool.flush()
    spool.close()
    assert current_bar(tmp_path) == bar
