"""Patterns of results: what they match, and what a request refuses."""

from __future__ import annotations

import pytest

from stoke.errors import RequestError
from stoke.remote.runner.results import matcher
from stoke.request.spec import make_spec


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("out/*.csv", ["out/a.csv", "out/.csv"], ["out/x/a.csv", "a.csv", "out/a.csvx"]),
        ("**/*.png", ["a.png", "b/c/d.png"], ["a.pngx"]),
        ("out", ["out", "out/a", "out/b/c"], ["outx", "x/out"]),
        ("./out/", ["out/b/c"], ["x/out/b"]),
        ("out/**", ["out/a", "out/b/c"], ["out2/a"]),
        ("a/**/b", ["a/b", "a/x/y/b"], ["ab", "a/xb"]),
        ("f[0-9]?.t", ["f1x.t"], ["fx1.t", "f1/.t"]),
        ("f[!a]", ["fb"], ["fa", "f/"]),
        ("[]]x", ["]x"], ["x"]),
        ("a[", ["a["], ["a"]),
        ("a.b", ["a.b"], ["axb"]),
        ("*", ["a", "a/b"], []),
        ("x\ny*", ["x\nyz"], []),
    ],
)
def test_a_pattern_matches(pattern: str, matching: list[str], other: list[str]) -> None:
    matches = matcher([pattern])
    assert [path for path in matching if not matches(path)] == []
    assert [path for path in other if matches(path)] == []


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("/etc/*", "leads out"),
        ("../x", "leads out"),
        ("a/../../b", "leads out"),
        ("~/x", "leads out"),
        ("", "names no file"),
        ("./", "names no file"),
        ("[z-a]", "not a pattern"),
        ("x" * 1001, "longer than"),
    ],
)
def test_a_wrong_pattern_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(RequestError, match=why) as refused:
        make_spec({"code": "1", "results": [pattern]})
    assert refused.value.field == "results"
