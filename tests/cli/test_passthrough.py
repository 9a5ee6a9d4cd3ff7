"""The copy of a log to our own streams, while another process changes the log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoke.cli.passthrough import OutputStream, Passthrough
from stoke.logs.spool import STDERR, STDOUT, SpoolReader, SpoolWriter


@pytest.mark.parametrize("began", [False, True])
def test_a_spool_that_is_truncated_meanwhile_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, began: bool
) -> None:
    """As another follower does that takes over, and one whose disk is full."""
    read, write = os.pipe()
    copied = Passthrough(tmp_path, OutputStream(write), OutputStream(write))
    real = SpoolReader.size

    def size_of_before(reader: SpoolReader) -> tuple[int, int]:
        size = real(reader)
        os.truncate(tmp_path / "log.idx", 0)
        os.truncate(tmp_path / "log", 0)
        return size

    def add(*lines: bytes) -> None:
        writer = SpoolWriter(tmp_path)
        for line in lines:
            writer.add(STDOUT, 1, line)
        writer.close()

    if began:
        add(b"one\n")
        copied.pump()
        os.truncate(tmp_path / "log.idx", 0)
        os.truncate(tmp_path / "log", 0)
    add(b"one\n", b"two\n")
    monkeypatch.setattr(SpoolReader, "size", size_of_before)
    copied.pump()
    monkeypatch.undo()
    add(b"one\n", b"two\n")
    copied.pump()
    copied.close()
    os.close(write)
    assert os.read(read, 100) == b"one\ntwo\n"
    os.close(read)


def test_rows_that_come_while_it_copies_are_neither_doubled_nor_the_other_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's size is looked at first; its file may have grown by half a write, or more, since."""
    pipes = [os.pipe(), os.pipe()]
    copied = Passthrough(tmp_path, OutputStream(pipes[0][1]), OutputStream(pipes[1][1]))
    whole = {STDOUT: b"", STDERR: b""}
    writer = SpoolWriter(tmp_path)

    def add() -> None:
        for stream in (STDOUT, STDERR, STDERR, STDOUT, STDERR):
            line = b"%d of %d\n" % (len(whole[stream]), stream)
            whole[stream] += line
            writer.add(stream, 1, line)
        writer.flush()

    real = SpoolReader.size

    def size_of_before(reader: SpoolReader) -> tuple[int, int]:
        """As if the writer was in the middle of a row."""
        size, _ = real(reader)
        early = size - 7
        rows = sum(offset < early for offset, _, _ in reader.rows(0, 1000))
        add()
        return early, rows

    add()
    monkeypatch.setattr(SpoolReader, "size", size_of_before)
    for _ in range(5):
        copied.pump()
    monkeypatch.undo()
    copied.pump()
    copied.close()
    for (read, write), stream in zip(pipes, (STDOUT, STDERR), strict=True):
        os.close(write)
        assert os.read(read, 100_000) == whole[stream]
        os.close(read)
    writer.close()
