"""Figures for people."""

from __future__ import annotations

import pytest

from stoke.cli.output import human_age, human_bytes, human_seconds, rfc3339, width


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0, "0.0 ms"), (0.0004, "0.4 ms"), (0.001, "1 ms"), (0.0994, "99 ms"),
        (0.0996, "0.10 s"), (0.41, "0.41 s"), (0.996, "1.0 s"), (9.94, "9.9 s"), (9.96, "10 s"),
        (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3900, "1 h 05 min"),
        (183600, "2 d 3 h"),
    ],
)  # fmt: skip
def test_seconds(seconds: float | None, text: str) -> None:
    assert human_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (6_600_000, "6.6 MB"),
        (99_400, "99.4 kB"), (123_456, "123 kB"), (999_600, "1.0 MB"), (4 * 10**9, "4.0 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)  # fmt: skip
def test_bytes(count: int | None, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("then", "text"),
    [
        (None, "-"),
        (101, "now"),
        (100, "now"),
        (88, "12 s ago"),
        (-200, "5 min ago"),
        (-99900, "1 d ago"),
    ],
)
def test_age(then: float | None, text: str) -> None:
    assert human_age(then, now=100) == text


def test_times_are_utc() -> None:
    assert rfc3339(0.5) == "1970-01-01T00:00:00.500Z"
    assert rfc3339(None) is None


def test_width_counts_columns() -> None:
    assert [width(text) for text in ("abc", "日本", "e\u0301")] == [3, 4, 1]
