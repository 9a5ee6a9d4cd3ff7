"""Regular expressions that users type, and lines that make them slow."""

from __future__ import annotations

import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.errors import RequestError
from stoke.logs.pattern import Pattern, SlowPatternError

SLOW, LINE = "(a|aa)+$", "a" * 60 + "!"


def test_a_slow_pattern_is_given_up_and_other_threads_run_meanwhile() -> None:
    began = threading.Event()
    ended = threading.Event()

    def other() -> None:
        began.wait()
        ended.set()

    threading.Thread(target=other, daemon=True).start()
    began.set()
    with pytest.raises(SlowPatternError) as caught:
        Pattern(SLOW).found_in(LINE, seconds=0.5)
    assert ended.is_set()
    assert SLOW in caught.value.what
    with pytest.raises(SlowPatternError):
        list(Pattern(SLOW).spans(LINE, seconds=0.05))


@pytest.mark.parametrize("text", ["(", "[a", "a{2,1}", "\\"])
def test_an_invalid_regular_expression_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="not a regular expression"):
        Pattern(text)


@given(
    pattern=st.sampled_from(
        [
            r"\d+",
            "lo.s",
            r"^\w+ \[",
            "(?i)ERROR|warn",
            r"(?!.*debug)^.",
            r"(\w)\1",
            r"\bé",
            "[^ ]+$",
        ]
    ),
    line=st.text(st.sampled_from("loss =01[]eERorWwarndbugé\t"), max_size=40),
)
def test_it_finds_the_same_as_pythons_re(pattern: str, line: str) -> None:
    own = [found.span() for found in re.finditer(pattern, line) if found[0]]
    assert list(Pattern(pattern).spans(line, seconds=5)) == own
    assert Pattern(pattern).found_in(line) is (re.search(pattern, line) is not None)
