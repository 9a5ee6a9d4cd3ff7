"""The spool preserves a job's bytes and their order, for readers at any moment."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoke.errors import EngineError
from stoke.logs.spool import ENGINE_LOG, NOTE, STDERR, STDOUT, LogLine, SpoolReader, SpoolWriter
from tests.spools import lines_in
from tests.writes import replace_write

FAST = settings(suppress_health_check=list(HealthCheck), max_examples=150)

Adds = list[tuple[int, bytes]]
ADDS = st.lists(
    st.tuples(
        st.sampled_from([STDOUT, STDERR]),
        st.lists(
            st.one_of(st.binary(max_size=12), st.just(b"\n"), st.just(b"a\nb")), max_size=4
        ).map(b"".join),
    ),
    max_size=12,
)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[[], Path]:
    """Return a new folder at every call, one for each example."""
    numbers = iter(range(1_000_000))
    return lambda: tmp_path / str(next(numbers))


def write(folder: Path, adds: Adds) -> None:
    writer = SpoolWriter(folder)
    for time, (stream, data) in enumerate(adds):
        writer.add(stream, time, data)
    writer.close()


def read(folder: Path) -> dict[int, bytes]:
    out = {STDOUT: b"", STDERR: b"", NOTE: b""}
    for line in lines_in(folder):
        out[line.stream] += line.text
    return out


def of_stream(adds: Adds, stream: int) -> bytes:
    return b"".join(data for where, data in adds if where == stream)


@FAST
@given(adds=ADDS)
def test_each_streams_bytes_come_back_exactly(make_folder: Callable[[], Path], adds: Adds) -> None:
    folder = make_folder()
    write(folder, adds)

    assert read(folder) == {
        STDOUT: of_stream(adds, STDOUT),
        STDERR: of_stream(adds, STDERR),
        NOTE: b"",
    }
    assert (folder / "log").read_bytes() == b"".join(data for _, data in adds)


@FAST
@given(adds=ADDS, closed_after=st.sets(st.integers(0, 12)))
def test_a_later_writer_appends(
    make_folder: Callable[[], Path], adds: Adds, closed_after: set[int]
) -> None:
    once, again = make_folder(), make_folder()
    write(once, adds)
    SpoolWriter(again).close()
    start = 0
    for end in [*sorted(closed_after), len(adds)]:
        write(again, adds[start:end])
        start = max(start, end)

    assert read(again) == read(once)
    assert [(line.stream, line.text) for line in lines_in(again)] == [
        (line.stream, line.text) for line in lines_in(once)
    ]


@FAST
@given(text=st.binary(max_size=60), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_a_row_is_a_line_however_it_arrived(
    make_folder: Callable[[], Path], text: bytes, cuts: list[int]
) -> None:
    folder = make_folder()
    edges = [0, *sorted(cuts), 60]
    write(folder, [(STDOUT, text[a:b]) for a, b in pairwise(edges)])

    lines = [line.text for line in lines_in(folder)]

    assert lines == [line + b"\n" for line in text.split(b"\n")[:-1]] + (
        [text.rpartition(b"\n")[2]] if not text.endswith(b"\n") and text else []
    )


def test_c14_blank_lines_and_carriage_returns_are_kept(tmp_path: Path) -> None:
    write(tmp_path, [(STDOUT, b"\n\r\n\x0c\xe2\x80\xa8\x85\n10%\r20%\n")])
    assert [line.text for line in lines_in(tmp_path)] == [
        b"\n",
        b"\r\n",
        b"\x0c\xe2\x80\xa8\x85\n",
        b"10%\r20%\n",
    ]


def test_lines_keep_number_stream_time_and_order(tmp_path: Path) -> None:
    time = 1_763_680_000_123_456_789
    writer = SpoolWriter(tmp_path)
    writer.add(STDOUT, time, b"one\ntwo\n")
    writer.add(STDERR, time + 1, b"oops\n")
    writer.note(time + 2, "2 s may be missing")
    writer.add(STDOUT, time + 3, b"three")
    writer.close()

    assert lines_in(tmp_path) == [
        LogLine(0, STDOUT, time, b"one\n"),
        LogLine(1, STDOUT, time, b"two\n"),
        LogLine(2, STDERR, time + 1, b"oops\n"),
        LogLine(3, NOTE, time + 2, b"2 s may be missing\n"),
        LogLine(4, STDOUT, time + 3, b"three"),
    ]


def test_a_newline_after_output_of_the_other_stream_adds_no_empty_line(
    tmp_path: Path,
) -> None:
    """Stderr's last newline is often held back (see `stoke.remote.events`) and arrives late."""
    write(
        tmp_path,
        [(STDERR, b"warning"), (STDOUT, b"out\n"), (STDERR, b"\nnext"), (STDERR, b"\n\nend\n")],
    )

    lines = [(line.stream, line.text) for line in lines_in(tmp_path)]

    assert lines == [
        (STDERR, b"warning"),
        (STDOUT, b"out\n"),
        (STDERR, b"\nnext\n"),
        (STDERR, b"\n"),
        (STDERR, b"end\n"),
    ]


def test_after_a_late_newline_a_blank_line_is_a_line(tmp_path: Path) -> None:
    adds = [(STDERR, b"warning"), (STDOUT, b"a\n"), (STDERR, b"\n"), (STDOUT, b"b\n"),
            (STDERR, b"\n")]  # fmt: skip
    write(tmp_path, adds)
    assert [line.text for line in lines_in(tmp_path)][2:] == [b"\n", b"b\n", b"\n"]


def test_a_window_of_lines_equals_that_part_of_the_whole(tmp_path: Path) -> None:
    write(tmp_path, [(STDOUT, b"".join(b"line %d\n" % n for n in range(10_000)))])
    reader = SpoolReader(tmp_path)
    every = list(reader.lines())
    assert len(every) == 10_000
    for first, count in [(0, 1), (4095, 3), (4096, 1), (9_998, 50), (10_000, 5), (0, 0)]:
        assert list(reader.lines(first, count)) == every[first : first + count]
    reader.close()


def test_a_missing_spool_is_empty_until_it_is_created(tmp_path: Path) -> None:
    reader = SpoolReader(tmp_path / "later")
    assert reader.size() == (0, 0)
    assert list(reader.lines()) == []
    write(tmp_path / "later", [(STDOUT, b"here\n")])
    assert [line.text for line in reader.lines()] == [b"here\n"]
    reader.close()


def between_system_calls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, look: Callable[[], None], slice_size: int
) -> None:
    """Call `look` after every write, and make every write a short one."""
    real = os.write

    def write(descriptor: int, data: bytes | memoryview) -> int:
        done = real(descriptor, bytes(data[:slice_size]))
        look()
        return done

    replace_write(monkeypatch, tmp_path, write)


@pytest.mark.parametrize("slice_size", [1, 7, 16, 10**6])
def test_a_reader_never_gives_bytes_to_the_wrong_stream_or_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slice_size: int
) -> None:
    """At any time, a reader gets a beginning of the final streams."""
    adds = [
        (STDOUT, b"a\nb"),
        (STDERR, b"error\n"),
        (STDOUT, b"c\n\n"),
        (STDERR, b"e"),
        (STDOUT, b"d"),
    ]
    looks = 0
    reader = SpoolReader(tmp_path)

    def look() -> None:
        nonlocal looks
        looks += 1
        size, rows = reader.size()
        lines = list(reader.lines())
        assert len(lines) >= rows
        assert sum(len(line.text) for line in lines) >= size
        for stream in (STDOUT, STDERR):
            seen = b"".join(line.text for line in lines if line.stream == stream)
            assert of_stream(adds, stream).startswith(seen)
        offsets = [row[0] for row in reader.rows(0, rows)]
        assert offsets == sorted(offsets)
        assert not offsets or offsets[-1] < size, "a row of which nothing can be read yet"

    between_system_calls(monkeypatch, tmp_path, look, slice_size)
    writer = SpoolWriter(tmp_path)
    for stream, data in adds:
        writer.add(stream, 0, data)
        writer.flush()
    for stream, data in adds:
        writer.add(stream, 0, data)
    adds += adds
    writer.close()

    reader.close()
    assert looks >= 4
    assert read(tmp_path) == {STDOUT: of_stream(adds, 1), STDERR: of_stream(adds, 2), NOTE: b""}


def test_truncating_to_a_checkpoint_removes_later_output(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path)
    writer.add(STDOUT, 1, b"kept\nhalf")
    writer.flush()
    size, lines = writer.bytes, writer.lines
    writer.add(STDOUT, 2, b" a line\n")
    writer.add(STDERR, 3, b"gone\n")
    writer.flush()

    writer.truncate(size, lines, 0)

    assert (writer.bytes, writer.lines) == (size, lines)
    writer.add(STDOUT, 4, b" and the rest\n")
    writer.close()
    assert [(line.stream, line.text) for line in lines_in(tmp_path)] == [
        (STDOUT, b"kept\n"),
        (STDOUT, b"half and the rest\n"),
    ]


@pytest.fixture
def full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int | None], None]]:
    """Give the disk space for this many more bytes; None removes the limit."""
    real = os.write
    left: list[int | None] = [None]

    def write(descriptor: int, data: bytes | memoryview) -> int:
        room = left[0]
        if room is None:
            return real(descriptor, data)
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(descriptor, bytes(data[:room]))
        left[0] = room - done
        return done

    def set_room(room: int | None) -> None:
        left[0] = room

    replace_write(monkeypatch, tmp_path, write)
    yield set_room
    left[0] = None


@pytest.mark.parametrize("room", range(0, 90, 3))
def test_F13_a_full_disk_loses_neither_stored_nor_pending_output(
    tmp_path: Path, full_disk: Callable[[int | None], None], room: int
) -> None:
    writer = SpoolWriter(tmp_path)
    writer.add(STDOUT, 1, b"before\n")
    writer.flush()
    full_disk(room)
    writer.add(STDERR, 2, b"e1\ne2\n")
    writer.add(STDOUT, 3, b"too much\nfor the disk\n" * 2)

    with pytest.raises(EngineError) as caught:
        writer.flush()

    assert str(tmp_path) in caught.value.what and "No space left" in caught.value.what
    assert caught.value.hint and "STOKE_STATE_DIR" in caught.value.hint
    assert read(tmp_path)[STDOUT].startswith(b"before\n")
    assert lines_in(tmp_path)[0].text == b"before\n"

    full_disk(None)
    writer.add(STDERR, 4, b"e3\n")
    writer.close()
    assert read(tmp_path) == {
        STDOUT: b"before\n" + b"too much\nfor the disk\n" * 2,
        STDERR: b"e1\ne2\ne3\n",
        NOTE: b"",
    }


def test_F13_an_engine_line_that_does_not_fit_is_omitted_completely(
    tmp_path: Path, full_disk: Callable[[int | None], None]
) -> None:
    writer = SpoolWriter(tmp_path)
    writer.put_aside(b"before\n")
    full_disk(3)
    with pytest.raises(EngineError, match="No space left"):
        writer.put_aside(b"too much\n")
    full_disk(None)
    assert (tmp_path / ENGINE_LOG).read_bytes() == b"before\n"
    writer.put_aside(b"after\n")
    assert (tmp_path / ENGINE_LOG).read_bytes() == b"before\nafter\n"
    assert writer.aside_bytes == len(b"before\nafter\n")
    writer.close()


def test_F13_a_real_limit_on_the_files_size(tmp_path: Path) -> None:
    """The kernel refuses: the process may not write a file beyond 4 KiB."""
    code = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from stoke.errors import EngineError
        from stoke.logs.spool import STDOUT, SpoolWriter

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        writer = SpoolWriter(Path(sys.argv[1]))
        for number in range(1000):
            writer.add(STDOUT, number, b"a line of this log\\n")
            try:
                writer.flush()
            except EngineError as error:
                print(error.what)
                break
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"cannot save the log in {tmp_path}")
    lines = [line.text for line in lines_in(tmp_path)]
    assert len(lines) > 100
    assert set(lines) == {b"a line of this log\n"}


def test_a_reader_beside_a_writer_that_is_killed(tmp_path: Path) -> None:
    """A real process, killed in the middle: the spool has a beginning of what it wrote."""
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from stoke.logs.spool import STDERR, STDOUT, SpoolWriter

        writer = SpoolWriter(Path(sys.argv[1]))
        number = 0
        while True:
            for stream in (STDOUT, STDERR):
                writer.add(stream, number, b"%d of %d\\n" % (number, stream))
            writer.flush()
            number += 1
        """
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    reader = SpoolReader(tmp_path)
    try:
        while reader.size()[1] < 5000:
            assert writer.poll() is None
            for line in reader.lines(max(0, reader.size()[1] - 20)):
                if line.text.endswith(b"\n"):
                    assert line.text == b"%d of %d\n" % (line.time, line.stream)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        reader.close()
    expected = {
        stream: b"".join(b"%d of %d\n" % (n, stream) for n in range(10**5)) for stream in (1, 2)
    }
    found = read(tmp_path)
    assert expected[STDOUT].startswith(found[STDOUT])
    assert expected[STDERR].startswith(found[STDERR])
