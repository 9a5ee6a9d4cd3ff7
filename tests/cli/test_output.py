"""Figures for people."""

from __future__ import annotations

import pytest

from stoke.cli.commands.cache import _print_with_nodes
from stoke.cli.output import time_ago, width
from stoke.text.times import rfc3339


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


def test_nodes_get_a_column_where_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    _print_with_nodes(["KIND"], [["python"], ["system"]], [None, None], frozenset())
    assert capsys.readouterr().out.split() == ["KIND", "python", "system"]
    _print_with_nodes(["KIND"], [["python"], ["system"]], ["node-1", None], frozenset())
    assert capsys.readouterr().out.split() == ["NODE", "KIND", "node-1", "python", "-", "system"]
