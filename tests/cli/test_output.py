"""Figures for people."""

from __future__ import annotations

import pytest

from stoke.cli.output import rfc3339, time_ago, width


@pytest.mark.parametrize(
    ("then", "text"),
    [
        (None, "-"),
        (101, "now"),
        (100, "now"),
        (88, "12s ago"),
        (-200, "5m ago"),
        (-199900, "2d ago"),
    ],
)
def test_ago(then: float | None, text: str) -> None:
    assert time_ago(then, now=100) == text


def test_times_are_utc() -> None:
    assert rfc3339(0.5) == "1970-01-01T00:00:00.500Z"
    assert rfc3339(None) is None


def test_width_counts_columns() -> None:
    assert [width(text) for text in ("abc", "日本", "e\u0301")] == [3, 4, 1]
