"""Figures for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.text.units import (
    exact_number,
    exact_size,
    human_age,
    human_bytes,
    human_seconds,
    parse_duration,
    parse_size,
)


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
        (None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1024, "1.0 KiB"),
        (6_920_601, "6.6 MiB"), (101_786, "99.4 KiB"), (126_000, "123 KiB"), (1023 << 10, "1.0 MiB"),
        (512 << 20, "512 MiB"), (2 << 30, "2.0 GiB"), (5000 << 40, "5000.0 TiB"),
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


@given(st.integers(0, 1 << 59))
def test_an_exact_size_is_parsed_as_itself(count: int) -> None:
    assert parse_size(exact_size(count)) == count


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1500, "1500"), (1 << 30, "1g"), (1536 << 20, "1536m")]
)
def test_a_round_size_is_short(count: int, text: str) -> None:
    assert exact_size(count) == text


@given(st.floats(0, 1e12) | st.integers(0, 1 << 60))
def test_an_exact_number_is_parsed_as_itself(value: float) -> None:
    assert parse_duration(f"{exact_number(value)}s") == float(value)
