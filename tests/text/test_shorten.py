"""Messages that repeat a huge text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stoke.errors import RequestError, StokeError
from stoke.text.shorten import LONGEST_MESSAGE, shorten


@given(st.text(max_size=LONGEST_MESSAGE))
def test_a_message_of_usual_length_stays_as_it_is(text: str) -> None:
    assert shorten(text) == text


@given(st.text(st.sampled_from("x \n"), max_size=3 * LONGEST_MESSAGE))
def test_no_message_is_longer(text: str) -> None:
    assert len(shorten(text)) <= LONGEST_MESSAGE


def test_the_sentence_around_a_huge_word_stays_whole() -> None:
    short = shorten(f"'{'x' * 100_000}' is not a size; write it as 512m, 2g or 1.5GiB")
    assert short == f"'{'x' * 149}...{'x' * 39}' is not a size; write it as 512m, 2g or 1.5GiB"


def test_a_huge_text_of_short_words_keeps_its_begin_and_its_end() -> None:
    short = shorten(f"begin {'a b ' * 50_000} the fix")
    assert short.startswith("begin a b") and short.endswith("a b  the fix") and "..." in short


def test_every_text_of_an_error_is_shortened() -> None:
    huge = "x" * 100_000
    for error in (StokeError(huge, huge), RequestError("field", huge, huge)):
        texts = (str(error), error.what, error.hint or "", getattr(error, "why", ""))
        assert max(map(len, texts)) <= LONGEST_MESSAGE
