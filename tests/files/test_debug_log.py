"""The debug log's file: private, bounded, shared by processes, without secrets."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.errors import EngineError
from stoke.files import debug
from stoke.files.debug_log import DebugFile, MaskingFormatter, start
from stoke.files.paths import state_dir


@pytest.fixture
def log(own_home: Path) -> Iterator[Path]:
    """The file of a debug log that is on for one test."""
    start()
    yield state_dir() / "debug.log"
    debug.turn_off()


def test_the_file_is_for_its_owner_alone(log: Path) -> None:
    before = os.umask(0)
    try:
        log.unlink()
        DebugFile(log).close()
    finally:
        os.umask(before)
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_link_in_its_place_is_not_followed(own_home: Path, tmp_path: Path) -> None:
    state_dir().mkdir(parents=True)
    (state_dir() / "debug.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="cannot write the debug log"):
        start()
    assert debug.debug_file() is None
    assert not (tmp_path / "elsewhere").exists()


def test_secrets_are_masked_in_messages_and_tracebacks(log: Path) -> None:
    debug.hide(["correct horse/battery"])
    logger = debug.Logger("stoke.test")
    logger.debug("plain correct horse/battery, quoted correct%20horse%2Fbattery")
    logger.debug("GET https://user:hunter2@index/simple, Authorization: Bearer abc.def")
    try:
        raise RuntimeError("correct horse/battery is wrong")
    except RuntimeError:
        logger.exception("failed")
    text = log.read_text()
    assert "RuntimeError: *** is wrong" in text and "plain ***, quoted ***" in text
    assert "https://***@index/simple" in text and "Bearer ***" in text
    for secret in ("horse", "hunter2", "abc.def"):
        assert secret not in text


def test_variables_with_a_secret_name_are_masked(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_TOKEN", "tok-12345678")
    start()
    try:
        debug.Logger("stoke.test").debug("the engine repeats tok-12345678")
        assert "the engine repeats ***\n" in (state_dir() / "debug.log").read_text()
    finally:
        debug.turn_off()


@given(st.text())
def test_one_record_is_one_line_that_no_text_can_forge(text: str) -> None:
    record = logging.LogRecord("stoke.test", logging.DEBUG, "", 0, "%s", (text,), None)
    first, *others = MaskingFormatter().format(record).split("\n")
    assert " stoke.test: " in first
    assert all(line.startswith("    ") for line in others)


def test_processes_that_rotate_together_lose_no_recent_record(own_home: Path) -> None:
    """Four processes write 4 x 200 records of 100 bytes into files of 20 kB."""
    code = """
import logging, sys
from stoke.files import debug_log
from stoke.files.paths import state_dir
handler = debug_log.DebugFile(state_dir() / 'debug.log', max_size=20_000)
for number in range(200):
    message = f'{sys.argv[1]}-{number:03d} '.ljust(99, 'x')
    handler.emit(logging.LogRecord('stoke', 10, '', 0, message, (), None))
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "abcd"]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0, 0]
    names = sorted(path.name for path in state_dir().iterdir())
    assert names == ["debug.log", "debug.log.1"]
    lines = []
    for name in reversed(names):
        path = state_dir() / name
        # One record more than the limit for each process that found the file not full yet.
        assert path.stat().st_size <= 20_000 + 4 * 100
        lines += path.read_text().splitlines()
    assert all(len(line) == 99 for line in lines)
    # Both files were filled, and each process's records are there in order, without holes.
    assert len(lines) > 200
    for name in "abcd":
        numbers = [int(line[2:5]) for line in lines if line.startswith(name)]
        assert numbers == list(range(200 - len(numbers), 200))


def test_a_record_that_cannot_be_written_is_dropped(own_home: Path) -> None:
    handler = DebugFile(state_dir() / "debug.log")
    os.dup2(os.open("/dev/full", os.O_WRONLY), handler._file)
    handler.emit(logging.LogRecord("stoke", logging.DEBUG, "", 0, "text", (), None))
    handler.close()
