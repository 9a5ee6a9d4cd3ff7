"""Several logs as one spool: order, completeness, and what arrives later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from heapq import merge
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoke.logs.levels import Level, LevelQuery
from stoke.logs.merged import MOST_JOBS, MergedLog
from stoke.logs.reader import Matches
from stoke.logs.search import Query
from stoke.logs.spool import NOTE, STDERR, STDOUT, LogSource, SpoolWriter
from tests.hints import exported, refused
from tests.spools import lines_in


def add(folder: Path, *lines: tuple[int, int, bytes]) -> None:
    writer = SpoolWriter(folder)
    for stream, time, data in lines:
        writer.add(stream, time, data)
    writer.close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[MergedLog]:
    merged = MergedLog({"a": tmp_path / "a", "b": tmp_path / "b"})
    yield merged
    merged.close()


def rows(merged: MergedLog) -> list[tuple[str, int, bytes]]:
    found = enumerate(lines_in(merged.folder))
    return [(merged.job_ids[merged.owner(row)], one.stream, one.text) for row, one in found]


def test_rows_are_ordered_by_time_and_keep_job_stream_and_bytes(
    two: MergedLog, tmp_path: Path
) -> None:
    add(tmp_path / "a", (STDOUT, 10, b"a1\n"), (STDERR, 30, b"a2\n"), (NOTE, 31, b"gap\n"))
    add(tmp_path / "b", (STDOUT, 20, b"b1\n"), (STDOUT, 30, b"\x1b[31mb2\x1b[0m\n"))
    assert two.update(()) == 5
    assert rows(two) == [
        ("a", STDOUT, b"a1\n"),
        ("b", STDOUT, b"b1\n"),
        ("a", STDERR, b"a2\n"),
        ("b", STDOUT, b"\x1b[31mb2\x1b[0m\n"),
        ("a", NOTE, b"gap\n"),
    ]
    assert two.update(()) == 0


def test_an_unfinished_line_waits_until_it_or_its_job_ends(two: MergedLog, tmp_path: Path) -> None:
    add(tmp_path / "a", (STDOUT, 1, b"whole\nhalf"))
    add(tmp_path / "b", (STDOUT, 2, b"b\n"))
    two.update(())
    assert [text for *_, text in rows(two)] == [b"whole\n", b"b\n"]
    add(tmp_path / "a", (STDOUT, 3, b" and half\nend"))
    two.update(())
    assert [text for *_, text in rows(two)][2:] == [b"half and half\n"]
    two.update({"a"})
    add(tmp_path / "b", (STDOUT, 4, b"late\n"))
    two.update({"a"})
    assert rows(two)[3:] == [("a", STDOUT, b"end"), ("b", STDOUT, b"late\n")]


def test_search_and_levels_work_on_it(two: MergedLog, tmp_path: Path) -> None:
    add(tmp_path / "a", (STDOUT, 1, b"ERROR one\nfine\n"))
    add(tmp_path / "b", (STDOUT, 2, b"WARNING two\nERROR three\n"))
    two.update(())
    errors, found = (
        Matches(two.folder, LevelQuery(Level.ERROR)),
        Matches(two.folder, Query("three")),
    )
    errors.scan()
    found.scan()
    owners = [two.owner(row) for row in errors.rows]
    assert owners == [0, 1]
    assert [two.owner(row) for row in found.rows] == [1]


def test_a_log_that_does_not_exist_yet_is_empty(two: MergedLog, tmp_path: Path) -> None:
    assert two.update(()) == 0
    add(tmp_path / "b", (STDOUT, 1, b"b\n"))
    assert two.update(()) == 1


def test_a_log_that_is_cut_to_its_checkpoint_repeats_nothing(
    two: MergedLog, tmp_path: Path
) -> None:
    add(tmp_path / "a", (STDOUT, 1, b"one\n"), (STDOUT, 2, b"two\n"))
    two.update(())
    writer = SpoolWriter(tmp_path / "a")
    writer.truncate(4, 1, 0)
    two.update(())
    writer.add(STDOUT, 2, b"two\n")
    writer.add(STDOUT, 3, b"three\n")
    writer.close()
    two.update(())
    assert [text for *_, text in rows(two)] == [b"one\n", b"two\n", b"three\n"]


def test_closing_removes_the_copy(tmp_path: Path) -> None:
    merged = MergedLog({"a": tmp_path / "a"})
    folder = merged.folder
    assert folder.stat().st_mode & 0o077 == 0
    merged.close()
    assert not folder.exists()


def test_more_logs_than_files_may_be_open_are_refused(tmp_path: Path) -> None:
    logs: dict[str, LogSource] = {
        str(number): tmp_path / str(number) for number in range(MOST_JOBS + 1)
    }
    refused(lambda: MergedLog(logs), "mark fewer jobs")
    logs.popitem()
    MergedLog(logs).close()


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    hint = refused(lambda: MergedLog({}), "name another folder: export TMPDIR=/some/folder")
    monkeypatch.setattr("tempfile.tempdir", None)
    for name, value in exported(hint, tmp_path).items():
        Path(value).mkdir()
        monkeypatch.setenv(name, value)
    merged = MergedLog({})
    assert merged.folder.parent == tmp_path / "folder"
    merged.close()


LOGS = st.lists(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), max_size=12), min_size=1, max_size=4
)


@settings(suppress_health_check=list(HealthCheck), max_examples=150)
@given(logs=LOGS, chunk=st.integers(1, 5))
def test_any_logs_are_merged_as_heapq_does(
    tmp_path_factory: pytest.TempPathFactory, logs: list[list[tuple[int, int]]], chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    wanted = []
    for number, lines in enumerate(logs):
        each = [
            (time, STDOUT, b"%d.%d %s\n" % (number, place, b"x" * 7**size))
            for place, (time, size) in enumerate(lines)
        ]
        add(folder / str(number), *((stream, time, data) for time, stream, data in each))
        wanted.append([(time, number, data) for time, _, data in each])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stoke.logs.merged._ROWS", chunk)
        patch.setattr("stoke.logs.merged.PIECE", 64)
        with closing(MergedLog({str(at): folder / str(at) for at in range(len(logs))})) as merged:
            merged.update(())
            found = [
                (merged.owner(row), line.text) for row, line in enumerate(lines_in(merged.folder))
            ]
    assert found == [(number, data) for _, number, data in merge(*wanted, key=lambda one: one[0])]
