"""The level of a line, in the formats that programs write, and the filter by level."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.logs.levels import Level, LevelQuery, level_of
from stoke.logs.reader import Matches
from stoke.logs.spool import STDOUT, SpoolWriter

ERRORS = [
    "ERROR no",
    "ERROR:root:no",
    "[ERROR] no",
    "2026-01-02 12:00:00,123 - app.x - ERROR - no",
    "12:00:01 | CRITICAL | module:f:1 - no",
    "error: could not compile",
    '{"ts": 1, "level": "error", "msg": "no"}',
    '{"level":50,"msg":"no"}',
    "ts=1 level=fatal msg=no",
    "E0521 12:00:00.123 1 main.go:3] no",
    "Traceback (most recent call last):",
    '  File "fit.py", line 3, in f',
    "KeyError: 'x'",
    "numpy.linalg.LinAlgError: Singular matrix",
    "KeyboardInterrupt",
]
WARNINGS = [
    "WARNING hm",
    "WARNING:root:hm",
    "2026-01-02T00:00:00Z WARN hm",
    "level=warning msg=hm",
    "fit.py:3: UserWarning: hm",
    "W0521 12:00:00.123 1 main.go:3] hm",
]
NEITHER = [
    "",
    "plain",
    "0 errors found",
    "no error here",
    "ERRORS: 0",
    "Error rate: 0.1",
    "epoch 3  loss 0.1",
    "2026-01-02 12:00:00,123 INFO the word ERROR",
    "DEBUG an error",
    "x" * 1000 + " ERROR",
]


@pytest.mark.parametrize("text", ERRORS)
def test_an_error(text: str) -> None:
    assert level_of(text) is Level.ERROR


@pytest.mark.parametrize("text", WARNINGS)
def test_a_warning(text: str) -> None:
    assert level_of(text) is Level.WARNING


@pytest.mark.parametrize("text", NEITHER)
def test_neither(text: str) -> None:
    level = level_of(text)
    assert level is None or level < Level.WARNING


@given(st.lists(st.sampled_from([*ERRORS, *WARNINGS, *NEITHER, "\x1b[31mERROR\x1b[0m red"])))
def test_the_filter_shows_exactly_the_lines_of_the_level(lines: list[str]) -> None:
    # The bytes that the filter looks for first must not hide a line.
    from array import array

    from stoke.logs.search import Block

    raw = [f"{line}\n".encode() for line in lines]
    starts = array("Q", [0])
    for line in raw:
        starts.append(starts[-1] + len(line))
    found = list(LevelQuery(Level.WARNING).rows(Block(b"".join(raw), starts))) if raw else []
    plain = [line.replace("\x1b[31m", "").replace("\x1b[0m", "") for line in lines]
    assert found == [
        row for row, text in enumerate(plain) if (level_of(text) or 0) >= Level.WARNING
    ]


def test_a_spool_is_filtered_by_level(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    writer.add(STDOUT, 1, b"plain\nERROR no\nWARNING hm\n" * 1000)
    writer.close()
    errors = Matches(tmp_path, LevelQuery(Level.ERROR))
    errors.scan()
    assert list(errors.rows) == list(range(1, 3000, 3))
