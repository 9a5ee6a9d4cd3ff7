"""No string from outside reaches a terminal with anything in it that a terminal obeys."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stoke.text.sanitize import clean, clean_block, clean_line, looks_secret, mask_secrets

FORBIDDEN = {
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *map(chr, range(0xD800, 0xE000)),
    *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
} - {"\t"}


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain", "plain"),
        ("", ""),
        ("tab\tstays", "tab\tstays"),
        ("é\u00a0\U0001f469\u200d\U0001f680", "é\u00a0\U0001f469\u200d\U0001f680"),
        # Whole sequences go with what they hold.
        ("a\x1b]0;PWN\x1b\\b", "ab"),
        ("a\x1b]0;PWN\x07b", "ab"),
        ("a\x1b]52;c;UFdOQ0xJUA==\x1b\\b", "ab"),
        ("a\x1b[2J\x1b[Hb", "ab"),
        ("\x1b]8;;http://evil\x1b\\x", "x"),
        ('a\x1bP$q"p\x1b\\b', "ab"),
        ("a\x1b_apc\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\b", "ab"),
        ("a\x1b[6nb", "ab"),
        ("a\x1b[?1049lb", "ab"),
        ("a\x1b[1;38:2::1:2:3m\x1b[0 qb", "ab"),
        ("a\x9b31mb", "ab"),
        ("a\x9d0;x\x9cb", "ab"),
        ("a\x90x\x9c\x98x\x9c\x9ex\x9c\x9fx\x1b\\b", "ab"),
        ("a\x1b(B\x1b#8\x1bc\x1b7\x1b=b", "ab"),
        ("a\x1b]0;" + "x" * 60_000 + "\x07b", "ab"),
        # Single characters.
        ("a\u202eb", "ab"),
        ("\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u202a\u202b\u202c\u202d", ""),
        ("a\x00\x07\x08\x7fb", "ab"),
        ("\x0b\x0c\x0e\x1f\x80\x85\x9f", ""),
        ("a\ud800b\udfff", "a\ufffdb\ufffd"),
        # A line stays one.
        ("a\nb\r\nc\rd", "a b c d"),
        ("a\u2028b\u2029c", "a b c"),
        # Of what has no end, only the beginning goes.
        ("a\x1b]0;visible", "a0;visible"),
        ("a\x1b]0;visible\nnext\x07", "a0;visible next"),
        ("a\x1b]0;\x1b[31mvisible\x1b\\", "a0;visible"),
        ("a\x9d0;visible", "a0;visible"),
        ("a\x1bPvisible", "avisible"),
        ("a\x1bPvisible\x07", "avisible"),
        ("a\x90visible\x18\x9c", "avisible"),
        ("a\x1b[31", "a31"),
        ("a\x1b[31é", "a31é"),
        ("a\x9b", "a"),
        ("a\x1b", "a"),
        ("a\x1b\x1b[31mb", "ab"),
        ("\x1b\x1b[m[31m", "[31m"),
        ("a\x1b]0;" + "x" * 70_000 + "\x07", "a0;" + "x" * 70_000),
        # Markup is text like any other.
        ("[@click=app.quit]CLICK[/]", "[@click=app.quit]CLICK[/]"),
        ("[/nope]", "[/nope]"),
        ("[link=file:///etc/passwd]x[/]", "[link=file:///etc/passwd]x[/]"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\n\tb", "a\n\tb"),
        ("a\r\nb\rc\n\nd\n", "a\nb\nc\n\nd\n"),
        ("\x1b[31ma\n\x1b]0;PWN\x07b\u202e\x00", "a\nb"),
        ("a\x1b]0;visible\nb\x07", "a0;visible\nb"),
    ],
)
def test_clean_block(text: str, cleaned: str) -> None:
    assert clean_block(text) == cleaned


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"plain", "plain"),
        (b"plain\r", "plain"),
        (b"plain\r\n", "plain"),
        (b"plain\n", "plain"),
        (b"  \r\n", "  "),
        (b"  \r", "  "),
        (b"", ""),
        (b"\r\r", ""),
        (b"  10%\r  50%\r 100%", " 100%"),
        (b"  10%\r 100%\r", " 100%"),
        (b"100%\r      \r", "100%"),
        (b"100%\r\x1b[K\r", "100%"),
        (b"50%\r\x1b[2K\x1b[32m100%\x1b[0m", "100%"),
        (b"   ", "   "),
        (b"\xff\xfe\xc3", "\ufffd\ufffd\ufffd"),
        ("é\x9b31m".encode(), "é"),
        (b"\x9b31m", "\ufffd31m"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
    ],
)
def test_clean_line(raw: bytes, line: str) -> None:
    assert clean_line(raw) == line


HOSTILE = st.text() | st.lists(
    st.sampled_from(
        [
            *"\x1b[]P_\\\x07\x9b\x9c\x9d\x90m x\r\n\t\x18\u202e\ud800\x00\u2028é",
            *("0;", "31", "\x1b[", "\x1b]", "\x1b\\"),
        ]
    ),
    max_size=20,
).map("".join)


@given(HOSTILE | st.characters().map(lambda character: f"a{character}b"))
@example("".join(map(chr, range(0x2100))) + "".join(map(chr, range(0xD800, 0xE100))))
def test_clean_leaves_nothing_forbidden_and_is_done_in_one_go(text: str) -> None:
    cleaned = clean(text)
    assert not FORBIDDEN & set(cleaned)
    assert clean(cleaned) == cleaned
    block = clean_block(text)
    assert not (FORBIDDEN - {"\n"}) & set(block)
    assert clean_block(block) == block


@given(st.binary() | HOSTILE.map(lambda text: text.encode(errors="replace")))
def test_clean_line_takes_any_bytes(raw: bytes) -> None:
    assert not FORBIDDEN & set(clean_line(raw))


@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from("\t \u00a0\u200d")))
def test_clean_keeps_what_is_harmless(text: str) -> None:
    assert clean(text) == text


@given(st.text("ab1;", max_size=30))
def test_an_unended_title_hides_nothing(visible: str) -> None:
    assert clean(f"\x1b]{visible}") == visible
    assert clean(f"\x9d{visible}") == visible


@pytest.mark.parametrize("piece", ["\x1b]", "\x9d", "\x1b[", "\x1b[1", "\x9b1", "\x1b ", "\x1bPa"])
def test_hostile_lengths_take_no_time(piece: str) -> None:
    begun = time.monotonic()
    clean(piece * 300_000)
    clean(piece + "a" * 1_000_000)
    clean_line((piece + "\r").encode() * 100_000)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("text", "secrets", "masked"),
    [
        ("the hunter2 passes", ["hunter2"], "the *** passes"),
        ("abcd abcde", ["abcd", "abcde"], "*** ***"),
        ("a.c+ abcc", ["a.c+"], "*** abcc"),
        ("abc is short", ["abc", ""], "abc is short"),
        ("four", ["four"], "***"),
        ("twice twice", ["twice", "twice"], "*** ***"),
        ("none", [], "none"),
    ],
)
def test_mask_secrets(text: str, secrets: list[str], masked: str) -> None:
    assert mask_secrets(text, secrets) == masked


@given(st.text(max_size=20), st.lists(st.text("abcd*", min_size=4, max_size=8), max_size=3))
def test_no_secret_is_left(text: str, secrets: list[str]) -> None:
    masked = mask_secrets(text + "".join(secrets), iter(secrets))
    for secret in secrets:
        assert secret not in masked or re.search(r"\*", secret)


@pytest.mark.parametrize(
    "name",
    ["GITHUB_TOKEN", "api_key", "Secret", "PGPASSWORD", "HTTP_AUTH", "COOKIE_JAR", "SENTRY_DSN"],
)
def test_looks_secret(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["PATH", "HOME", "LANG", "PYTHONPATH", ""])
def test_does_not_look_secret(name: str) -> None:
    assert not looks_secret(name)
