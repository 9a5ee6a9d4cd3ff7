"""Exhausted limits of this process and machine: an error that names the limit, not a bug of stoke."""

from __future__ import annotations

import errno
import os
import re
import resource
import shlex
import sqlite3
import subprocess
from pathlib import Path

import pytest

from stoke.errors import EngineError, StokeError
from stoke.files.crash_report import crash_file, report_crash
from stoke.system_limits import exhausted_limit
from tests.cli.conftest import only_job
from tests.hints import is_hint
from tests.terminals import PROGRAM

RUN = f"{shlex.quote(PROGRAM)} run -b local -c 'print(1)'"
MANY = "raise the limit: ulimit -n {}"
MANY_AS_ROOT = "raise the limit of this shell: sudo prlimit --pid $$ --nofile={}"


def in_shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("most", [6, 8, 10])
def test_too_few_open_files_are_reported_with_the_limit(own_home: Path, most: int) -> None:
    done = in_shell(f"ulimit -n {most}; {RUN}")
    assert done.returncode in (2, 125), done.stderr
    *_, what, printed = done.stderr.splitlines()
    assert re.match("error: .*too many open files", what, re.IGNORECASE), done.stderr
    is_hint(printed.removeprefix("hint: "), MANY_AS_ROOT)
    assert not crash_file().exists()


def test_a_job_that_can_no_longer_be_followed_continues(own_home: Path) -> None:
    done = in_shell(f"ulimit -n 10; {RUN}")
    assert f"the job continues; follow it with: stoke logs -f {only_job().id}" in done.stderr


def test_the_limit_is_raised_as_the_hint_says(own_home: Path) -> None:
    failed = in_shell(f"ulimit -S -n 10; {RUN}")
    hint = is_hint(failed.stderr.splitlines()[-1].removeprefix("hint: "), MANY)
    done = in_shell(f"ulimit -S -n 10; {hint.partition(': ')[2]}; {RUN}")
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_the_hint_of_any_error_is_that_of_the_limit_behind_it() -> None:
    try:
        try:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/x")
        except OSError as error:
            raise EngineError("cannot start x", "make room there") from error
    except StokeError as error:
        assert "ulimit -n" in (error.hint or "") or "prlimit" in (error.hint or "")
    assert EngineError("cannot start x", "make room there").hint == "make room there"
    try:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x")
        except OSError as error:
            raise EngineError("cannot start x", "make room in x") from error
    except StokeError as error:
        assert error.hint == "make room in x"


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.ENFILE, "x"), "this machine has too many open files"),
        (OSError(errno.ENOMEM, "x"), "no memory is left"),
        (MemoryError(), "no memory is left"),
        (RuntimeError("can't start new thread"), "no process or thread can be started"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "cannot write /a/b: No space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/a/b"), "cannot write /a/b: Disk quota"),
        (OSError(errno.EROFS, "Read-only file system", "/a/b"), "cannot write /a/b: Read-only"),
        (OSError(errno.EFBIG, "File too large", "/a/b"), "cannot write /a/b: File too large"),
    ],
)
def test_no_limit_is_reported_as_a_bug(own_home: Path, error: BaseException, what: str) -> None:
    assert report_crash(error)[0].startswith(what)
    assert not crash_file().exists()


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "x", "/a"), BlockingIOError(), ValueError()]
)
def test_any_other_error_is_a_bug(own_home: Path, error: BaseException) -> None:
    assert report_crash(error)[0].startswith("stoke itself failed")
    assert crash_file().exists()


def test_a_program_that_cannot_be_started_is_no_bug() -> None:
    """A limit on processes, which does not hold for root: the error is that of a real fork."""
    error = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    code = compile("def start(): raise error", subprocess.__file__, "exec")
    names: dict[str, object] = {"error": error}
    exec(code, names)
    with pytest.raises(BlockingIOError) as caught:
        names["start"]()  # type: ignore[operator]
    found = exhausted_limit(caught.value)
    assert found is not None and found[0].startswith("no process or thread")


def test_a_database_that_cannot_be_opened_without_descriptors(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("unable to open database file")
    assert exhausted_limit(error) is None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        found = exhausted_limit(error)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found is not None and found[0].startswith("too many open files")
