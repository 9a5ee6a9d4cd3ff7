"""Search, errors, times and saving, compared with a plain reading of the whole spool."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoke.errors import RequestError, StokeError
from stoke.logs import reader, search
from stoke.logs.reader import Matches, Span, moment, next_error, row_at, save
from stoke.logs.search import Query
from stoke.logs.spool import NOTE, STDERR, STDOUT, SpoolReader, SpoolWriter
from stoke.text.sanitize import clean_line
from tests.spools import lines_in

FAST = settings(suppress_health_check=list(HealthCheck), max_examples=200)
WORDS = [
    b"foo", b"Foo", b"FOO", b"fo", b"o", b" ", b"\t", b"bar", b"\n", b"\n", b"\r", b"\r\n", b"\x1b[31m",
    b"\x1b[0m", b"\x1b]8;;http://foo\x1b\\", b"\x1b", b"\x00", b"\x9b", b"\xc2\x9b1m", b"\xc2\x9d0;x",
    b"\x07", b"\xe2\x80\xae", b"\xe2\x80\xa8", "É".encode(), "é".encode(), "ß".encode(), b"\xff",
    "\u017f".encode(), "\u212a".encode(), b"\x1bP", b"\x1bp", b"\x1b\\",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(WORDS), max_size=25).map(b"".join)
ADDS = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), TEXTS), max_size=8)
QUERIES = st.sampled_from(
    [("foo", False), ("Foo", False), ("o o", False), ("é", False), ("ß", False), ("foobar", False),
     ("\u017f", False), ("k", False), ("\ufffd", False), ("\t", False), (".", False), ("^fo+$", True),
     ("o.b", True), ("(?i:FOO)", True), (r"\bbar|é", True)]
)  # fmt: skip
Make = Callable[[], Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> Make:
    """Return a new folder at every call, one for each example."""
    numbers = iter(range(1_000_000))
    return lambda: tmp_path / str(next(numbers))


def write(folder: Path, *adds: tuple[int, bytes], at: int = 0) -> None:
    writer = SpoolWriter(folder)
    for number, (stream, data) in enumerate(adds, at):
        writer.add(stream, number, data)
    writer.close()


def every(folder: Path) -> list[str]:
    return [clean_line(line.text) for line in lines_in(folder)]


def holds(query: tuple[str, bool], text: str) -> bool:
    """The plain rule: a query in lower case matches any case of each character."""
    wanted, regex = query
    flags = re.IGNORECASE if wanted == wanted.lower() else 0
    if regex:
        return re.search(wanted, text, flags) is not None
    if not flags:
        return wanted in text
    forms = [{one, one.upper(), one.title()} for one in wanted]
    return any(
        all(shown in form for shown, form in zip(text[at:], forms, strict=False))
        and len(text) - at >= len(forms)
        for at in range(len(text))
    )


@FAST
@given(adds=ADDS, query=QUERIES, small=st.booleans())
def test_the_rows_found_are_those_that_show_it(
    make_folder: Make, adds: list[tuple[int, bytes]], query: tuple[str, bool], small: bool
) -> None:
    folder = make_folder()
    write(folder, *adds)
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(reader, "PIECE", 64)
            patch.setattr(reader, "_ROWS", 3)
        matches = Matches(folder, Query(*query))
        matches.scan()

    shown = every(folder)
    assert list(matches.rows) == [row for row, text in enumerate(shown) if holds(query, text)]
    assert matches.whole


@FAST
@given(parts=st.lists(ADDS, max_size=4), query=QUERIES)
def test_lines_that_arrive_during_a_search_are_found(
    make_folder: Make, parts: list[list[tuple[int, bytes]]], query: tuple[str, bool]
) -> None:
    folder = make_folder()
    matches = Matches(folder, Query(*query))
    for part in parts:
        write(folder, *part)
        matches.scan()

    at_once = Matches(folder, Query(*query))
    at_once.scan()
    assert list(matches.rows) == list(at_once.rows)


@FAST
@given(adds=ADDS, one=QUERIES, other=QUERIES)
def test_two_queries_find_the_matches_of_both(
    make_folder: Make, adds: list[tuple[int, bytes]], one: tuple[str, bool], other: tuple[str, bool]
) -> None:
    folder = make_folder()
    write(folder, *adds)
    both, first, second = (
        Matches(folder, *(Query(*query) for query in queries))
        for queries in ([one, other], [one], [other])
    )
    for matches in (both, first, second):
        matches.scan()
    assert set(both.rows) == set(first.rows) & set(second.rows)


@FAST
@given(found=st.sets(st.integers(0, 40)), row=st.integers(-2, 42))
def test_next_previous_and_place(tmp_path: Path, found: set[int], row: int) -> None:
    matches = Matches(tmp_path, Query("x"))
    matches.rows.extend(sorted(found))
    assert matches.after(row) == min((one for one in found if one > row), default=None)
    assert matches.before(row) == max((one for one in found if one < row), default=None)
    place = sorted(found).index(row) + 1 if row in found else None
    assert matches.place(row) == place


@given(text=TEXTS.map(clean_line), query=QUERIES)
def test_exactly_the_matches_are_highlighted(text: str, query: tuple[str, bool]) -> None:
    made = Query(*query)
    spans = list(made.spans(text))
    assert bool(spans) == holds(query, text)
    for start, end in spans:
        assert made.holds(text[start:end]) or query[1]


def test_a_spool_that_was_cut_back_is_looked_at_again(tmp_path: Path) -> None:
    write(tmp_path, (STDOUT, b"foo\n" * 10))
    matches = Matches(tmp_path, Query("foo"))
    matches.scan()
    writer = SpoolWriter(tmp_path)
    writer.truncate(4 * 4, 4, 0)
    writer.add(STDOUT, 0, b"bar\nfoo\n")
    writer.close()
    matches.scan()
    assert list(matches.rows) == [0, 1, 2, 3, 5]


def test_a_cancelled_scan_ends(tmp_path: Path) -> None:
    write(tmp_path, (STDOUT, b"foo\n" * 200_000))
    matches = Matches(tmp_path, Query("foo"))
    matches.scan(matches.cancel)
    assert not matches.whole
    assert 0 < len(matches.rows) < 200_000


@pytest.mark.parametrize("regex", [False, True])
def test_a_line_of_many_megabytes_is_searched_to_its_end(tmp_path: Path, regex: bool) -> None:
    line = b"x" * 5_000_000 + b" the end\n"
    write(tmp_path, (STDOUT, b"before\n" + line + b"after the end\n"))
    matches = Matches(tmp_path, Query("the end", regex))
    matches.scan()
    assert list(matches.rows) == [1, 2]


def test_a_word_across_two_chunks_is_found(tmp_path: Path) -> None:
    line = b"x" * (search.PIECE - 3) + b"needle" + b"x" * search.PIECE + b"\n"
    write(tmp_path, (STDOUT, line))
    matches = Matches(tmp_path, Query("needle"))
    matches.scan()
    assert list(matches.rows) == [0]


def test_an_invalid_regular_expression_is_reported() -> None:
    with pytest.raises(RequestError, match="not a regular expression"):
        Query("(", regex=True)


# --- errors ---------------------------------------------------------------------------------------

TRACEBACK = b"""\
Traceback (most recent call last):
  File "x.py", line 1, in <module>
    raise ValueError("no error here")
ValueError: no error here

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "x.py", line 3, in <module>
KeyError: 'x'
"""


def errors(folder: Path, step: int) -> list[int]:
    found = [-1 if step > 0 else 10_000]
    while (row := next_error(folder, found[-1], step, lambda: False)) is not None:
        found.append(row)
    del found[0]
    return found if step > 0 else found[::-1]


def test_errors_are_error_words_tracebacks_and_the_first_stderr_line(tmp_path: Path) -> None:
    write(
        tmp_path,
        (STDOUT, b"fine\n0 errors, a terror\n"),
        (STDERR, TRACEBACK),  # 2-11
        (STDOUT, b"2026-11-21 \x1b[31mERROR\x1b[0m it broke\n  more of it\nfine\nfine\n"),  # 12-15
        (STDERR, b"usage: x\nusage: y\n"),  # 16, 17
        (STDOUT, b"fine\n"),  # 18
        (STDERR, b"INFO:root:begun\n"),  # 19
        (STDERR, b" 10%|#   | 1/10\n"),  # 20
        (STDOUT, b"fatal: no\n"),  # 21
        (STDOUT, b"fine\nfine\nTimeoutError\n"),  # 22-24
    )
    assert errors(tmp_path, 1) == [2, 16, 21, 24]
    assert errors(tmp_path, -1) == [2, 16, 21, 24]


def test_a_log_that_begins_on_stderr_has_no_error_there(tmp_path: Path) -> None:
    write(tmp_path, (STDERR, b"one\ntwo\n" * 100))
    assert errors(tmp_path, 1) == []


def test_errors_far_apart(tmp_path: Path) -> None:
    write(tmp_path, (STDOUT, b"fine\n" * 100_000 + b"panic\n" + b"fine\n" * 100_000 + b"error\n"))
    assert next_error(tmp_path, -1, 1, lambda: False) == 100_000
    assert next_error(tmp_path, 100_000, 1, lambda: False) == 200_001
    assert next_error(tmp_path, 200_001, -1, lambda: False) == 100_000
    assert next_error(tmp_path, 200_001, 1, lambda: False) is None
    assert next_error(tmp_path, -1, 1, lambda: True) is None


# --- times ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000


def two_days() -> Span:
    return Span(at("2026-11-20 23:30:00"), at("2026-11-22 08:15:30"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("23:45", "2026-11-21 23:45:00"),
        ("08:00:05", "2026-11-22 08:00:05"),
        ("9:00", "2026-11-21 09:00:00"),
        ("2026-11-21 00:10", "2026-11-21 00:10:00"),
        ("11-21 00:10", "2026-11-21 00:10:00"),
        ("2026-11-21T00:10:30", "2026-11-21 00:10:30"),
        ("-5m", "2026-11-22 08:10:30"),
        ("-1h 15m30s", "2026-11-22 07:00:00"),
        ("-10", "2026-11-22 08:15:20"),
        ("+90s", "2026-11-20 23:31:30"),
        ("+1d", "2026-11-21 23:30:00"),
        ("2024-02-29 00:00", "2024-02-29 00:00:00"),
    ],
)
def test_a_moment_is_meant_within_the_log(text: str, meant: str) -> None:
    assert moment(text, two_days(), at("2026-11-22 08:00:00")) == at(meant)


def test_a_time_that_the_log_does_not_reach_is_the_nearest() -> None:
    short = Span(at("2026-11-21 10:00:00"), at("2026-11-21 11:00:00"))
    assert moment("11:30", short, short.first) == at("2026-11-21 11:30:00")
    assert moment("23:59", short, short.first) == at("2026-11-20 23:59:00")
    assert moment("10:30:00.25", short, short.first) == at("2026-11-21 10:30:00") + 250_000_000


@pytest.mark.parametrize(
    "text", ["", "-", "noon", "25:00", "12", "12:61", "2026-02-30 12:00", "--5m"]
)
def test_an_invalid_time_is_reported(text: str) -> None:
    with pytest.raises(RequestError, match="not a time"):
        moment(text, two_days(), at("2026-11-22 08:00:00"))


@FAST
@given(times=st.lists(st.integers(0, 100), max_size=30), wanted=st.integers(0, 101))
def test_the_row_at_a_time_is_the_first_that_is_not_earlier(
    make_folder: Make, times: list[int], wanted: int
) -> None:
    folder, times = make_folder(), sorted(times)
    writer = SpoolWriter(folder)
    for one in times:
        writer.add(STDOUT, one, b"x\n")
    writer.close()
    rows = [row for row, one in enumerate(times) if one >= wanted]
    with closing(SpoolReader(folder)) as reader:
        assert row_at(reader, wanted) == (rows[0] if rows else max(0, len(times) - 1))


# --- saving ---------------------------------------------------------------------------------------


@FAST
@given(adds=st.lists(st.tuples(st.sampled_from([STDOUT, STDERR, NOTE]), TEXTS), max_size=8))
def test_a_saved_log_has_its_notes_marked(make_folder: Make, adds: Any) -> None:
    folder = make_folder()
    adds = [(stream, b"note\n" if stream == NOTE else data) for stream, data in adds]
    write(folder, *adds)
    target = folder / "saved"
    size = save(folder, target)
    expected = b"".join(b"-- note\n" if stream == NOTE else data for stream, data in adds)
    assert target.read_bytes() == expected
    assert size == len(expected)


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    write(tmp_path / "job", (STDOUT, b"new\n"))
    target = tmp_path / "log.txt"
    target.write_text("old")
    with pytest.raises(FileExistsError):
        save(tmp_path / "job", target)
    assert target.read_text() == "old"
    save(tmp_path / "job", target, replace=True)
    assert target.read_text() == "new\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "job", "log.txt"]


def test_a_failed_save_leaves_no_file(tmp_path: Path) -> None:
    write(tmp_path / "job", (STDOUT, b"new\n"))
    with pytest.raises(StokeError, match="cannot save the log"):
        save(tmp_path / "job", tmp_path / "no" / "where")
    with pytest.raises(StokeError, match="cannot save the log"):
        save(tmp_path / "job", tmp_path / "home", replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "job"]


# ------------------------------------------------------------------ rows longer than a piece

LONG_WORDS = st.sampled_from(["a", "b", "foo", "Foo", " ", "x" * 40, "é", "bar"])
LONG_ROWS = st.lists(st.lists(LONG_WORDS, max_size=60).map("".join), min_size=1, max_size=4)
LONG_QUERIES = st.sampled_from(
    [("foo", False), ("foo", True), ("^foo", True), ("foo$", True), ("^$", True), (r"a.{3}b", True),
     ("é", False), ("(?<=a)foo", True), ("Foob", False), ("bar$", True), ("^a", True)]
)  # fmt: skip


@FAST
@given(LONG_ROWS, LONG_QUERIES, LONG_QUERIES)
def test_a_row_in_parts_is_searched_as_one(
    make_folder: Make, texts: list[str], one: tuple[str, bool], other: tuple[str, bool]
) -> None:
    folder = make_folder()
    write(folder, (STDOUT, "".join(f"{text}\n" for text in texts).encode()))
    queries = [Query(*one), Query(*other)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "PIECE", 300)
        patch.setattr(reader, "PART_OVERLAP", 150)
        found = Matches(folder, *queries)
        found.scan()
    expected = [
        row for row, text in enumerate(texts) if all(query.holds(text) for query in queries)
    ]
    assert list(found.rows) == expected


def test_a_match_at_the_end_of_a_line_of_megabytes_is_found(make_folder: Make) -> None:
    folder = make_folder()
    write(folder, (STDOUT, b"x" * (3 << 20) + b" ERROR at the end\n" + b"ERROR\n"))
    for query in (Query("ERROR"), Query("error at the end$", regex=True)):
        found = Matches(folder, query)
        found.scan()
        assert found.rows[0] == 0
    found = Matches(folder, Query("^ERROR", regex=True))
    found.scan()
    assert list(found.rows) == [1]
