"""The pages of a log, one after the other, are the log."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.agents.json_text import json_size
from stoke.agents.log_page import Cursor, LogPage, Selection, last_page, parse_cursor, read_page
from stoke.logs.search import Query
from stoke.logs.spool import STDERR, STDOUT, SpoolReader, SpoolWriter
from tests.hints import refused

EVERYTHING = Selection()


def write(folder: Path, *pieces: tuple[int, bytes]) -> None:
    writer = SpoolWriter(folder)
    for time, (stream, data) in enumerate(pieces, 1):
        writer.add(stream, time, data)
    writer.close()


def pages(
    folder: Path, limit: int, start: Cursor | None = None, wanted: Selection = EVERYTHING
) -> list[LogPage]:
    """All pages of an ended job's log from `start` on."""
    found = []
    at = start or Cursor()
    with closing(SpoolReader(folder)) as reader:
        while True:
            page = read_page(reader, at, limit, True, wanted)
            assert len(json.dumps(page.text, ensure_ascii=False).encode()) - 2 <= limit
            found.append(page)
            if page.reaches_end:
                return found
            assert page.next > at, "no progress"
            at = parse_cursor(str(page.next))


printable = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=400)


@given(lines=st.lists(printable, max_size=20), last=printable, limit=st.integers(20, 500))
def test_pages_are_the_whole_text(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], last: str, limit: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    text = "".join(f"{line}\n" for line in lines) + last
    write(folder, (STDOUT, text.encode()))
    assert "".join(page.text for page in pages(folder, limit)) == text


@given(
    pieces=st.lists(st.tuples(printable, st.sampled_from(("", "\n"))), max_size=12),
    limit=st.integers(20, 500),
)
def test_a_log_that_grows_is_read_without_a_gap(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[str, str]], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    at, text = Cursor(), ""
    for number, (piece, end) in enumerate(pieces, 1):
        writer = SpoolWriter(folder)
        writer.add(STDOUT, number, f"{piece}{end}".encode())
        writer.close()
        with closing(SpoolReader(folder)) as reader:
            while True:
                page = read_page(reader, at, limit, False, EVERYTHING)
                text, at = text + page.text, page.next
                if page.reaches_end:
                    break
    text += "".join(page.text for page in pages(folder, limit, at))
    assert text == "".join(f"{piece}{end}" for piece, end in pieces)


@given(raw=st.binary(max_size=3000), limit=st.integers(20, 400))
def test_any_bytes_make_progress_and_harmless_text(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, limit: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    write(folder, (STDOUT, raw))
    for page in pages(folder, limit):
        assert all(one.isprintable() or one in "\n\t" or ord(one) > 0x9F for one in page.text)


def test_streams_mixed_within_lines(tmp_path: Path) -> None:
    write(tmp_path, (STDOUT, b"half"), (STDERR, b"error\n"), (STDOUT, b"\n"), (STDOUT, b"next\n"))
    assert "".join(page.text for page in pages(tmp_path, 1000)) == "half\nerror\nnext\n"
    only = Selection(stream=STDERR)
    assert [page.text for page in pages(tmp_path, 1000, wanted=only)] == ["error\n"]


def test_a_newline_that_comes_late_is_no_line_while_its_row_may_grow(tmp_path: Path) -> None:
    write(tmp_path, (STDOUT, b"half"), (STDERR, b"error\n"), (STDOUT, b"\n"))
    with closing(SpoolReader(tmp_path)) as reader:
        first = read_page(reader, Cursor(), 1000, False, EVERYTHING)
    writer = SpoolWriter(tmp_path)
    writer.add(STDOUT, 9, b"next\n")
    writer.close()
    rest = pages(tmp_path, 1000, first.next)
    assert first.text + rest[0].text == "half\nerror\nnext\n"


def test_stokes_own_lines_are_no_output(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    writer.add(STDOUT, 1, b"a\n")
    writer.note(2, "a gap of 10 bytes")
    writer.add(STDOUT, 3, b"b\n")
    writer.close()
    (page,) = pages(tmp_path, 1000)
    assert (page.text, page.notes) == ("a\nb\n", ("a gap of 10 bytes",))


def test_only_matching_lines(tmp_path: Path) -> None:
    write(tmp_path, (STDOUT, b"".join(b"line %d\n" % number for number in range(5000))))
    wanted = Selection(grep=Query("7{3}$", regex=True))
    found = "".join(page.text for page in pages(tmp_path, 30, wanted=wanted))
    assert found == "".join(f"line {number}\n" for number in (777, 1777, 2777, 3777, 4777))


def test_a_long_line_that_matches_comes_once_and_whole(tmp_path: Path) -> None:
    long = "needle " * 400_000
    write(tmp_path, (STDOUT, f"before\n{long}\nafter\nneedle\n".encode()))
    wanted = Selection(grep=Query("needle", regex=True))
    found = "".join(page.text for page in pages(tmp_path, 100_000, wanted=wanted))
    assert found == f"{long}\nneedle\n"


@pytest.mark.parametrize(
    ("begin", "rest"),
    [
        ([(STDOUT, b"no\nneed")], b"le\n"),
        ([(STDOUT, b"no\n"), (STDOUT, b"needle")], b"\n"),
        ([(STDOUT, b"half"), (STDERR, b"no\n"), (STDOUT, b"\n")], b"needle\n"),
    ],
)
def test_a_line_that_grows_is_searched_once_it_is_whole(
    tmp_path: Path, begin: list[tuple[int, bytes]], rest: bytes
) -> None:
    write(tmp_path, *begin)
    wanted = Selection(grep=Query("needle", regex=True))
    with closing(SpoolReader(tmp_path)) as reader:
        first = read_page(reader, Cursor(), 1000, False, wanted)
    assert first.text == "" and first.reaches_end
    writer = SpoolWriter(tmp_path)
    writer.add(STDOUT, 9, rest)
    writer.close()
    assert [page.text for page in pages(tmp_path, 1000, first.next, wanted)] == ["needle\n"]


@pytest.mark.parametrize("wanted", [EVERYTHING, Selection(grep=Query("x"))])
@pytest.mark.parametrize("is_over", [True, False])
def test_an_empty_log(tmp_path: Path, wanted: Selection, is_over: bool) -> None:
    for written in (False, True):
        if written:
            write(tmp_path)
        with closing(SpoolReader(tmp_path)) as reader:
            page = read_page(reader, Cursor(), 1000, is_over, wanted)
            assert page == LogPage("", (), Cursor(), True)
            assert last_page(reader, 1000, is_over) == (Cursor(), page)


@pytest.mark.parametrize("line", [b"x" * 90, b'"' * 90, "é".encode() * 45, b"\xff" * 90])
def test_the_last_page_reaches_the_end(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, (STDOUT, (line + b"\n") * 2000 + b"the end"))
    with closing(SpoolReader(tmp_path)) as reader:
        start, page = last_page(reader, 1000, True)
    assert page.reaches_end and page.text.endswith("the end") and start.line > 1900
    assert json_size(page.text) <= 1000


@pytest.mark.parametrize("text", ["x" * 9999, "é" * 9999, '"\\' * 9999])
def test_the_last_page_of_a_line_that_is_longer(tmp_path: Path, text: str) -> None:
    write(tmp_path, (STDOUT, text.encode()))
    with closing(SpoolReader(tmp_path)) as reader:
        start, page = last_page(reader, 1000, True)
    assert page.reaches_end and page.text and text.endswith(page.text)
    assert (start.line, json_size(page.text) <= 1000) == (0, True)
    assert "\ufffd" not in page.text


@pytest.mark.parametrize("text", ["", "-1", "1+", "a", "1" * 40, "1\n", "\u0661"])
def test_a_cursor_is_one_of_ours(text: str) -> None:
    refused(lambda: parse_cursor(text), "pass the next_cursor of an answer, or leave it out")
    assert parse_cursor("12+345") == (12, 345)
