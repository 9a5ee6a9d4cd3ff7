"""Figures for people."""

from __future__ import annotations

import pytest

from stoke.text.units import human_age, human_bytes, human_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (-1, "-"), (0, "0.0 ms"), (0.0004, "0.4 ms"), (0.001, "1 ms"),
        (0.0994, "99 ms"), (0.0996, "0.10 s"), (0.41, "0.41 s"), (0.996, "1.0 s"), (9.94, "9.9 s"),
        (9.96, "10 s"), (59.4, "59 s"), (59.6, "1m00s"), (200, "3m20s"), (3900, "1h05m"),
        (86399.6, "1d00h"), (183600, "2d03h"),
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
    ("seconds", "text"),
    [
        (-5, "0s"), (0.9, "0s"), (12, "12s"), (59.9, "59s"), (300, "5m"), (3600, "1h"),
        (172_799, "47h"), (172_800, "2d"), (10**8, "1157d"),
    ],
)  # fmt: skip
def test_age(seconds: float, text: str) -> None:
    assert human_age(seconds) == text
