"""The package whose absence ended a job, found by its log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stoke.history.job import Job, JobState
from stoke.jobs.missing_module import packages_to_add
from stoke.logs.spool import NOTE, STDERR, STDOUT, SpoolWriter
from stoke.request.sources import request_from_options

TRACEBACK = b'Traceback (most recent call last):\n  File "main.py", line 1\n    import yaml\n'
ERROR = b"ModuleNotFoundError: No module named 'yaml'\n"


def found(
    folder: Path,
    *rows: tuple[int, bytes],
    exit_code: int = 1,
    state: JobState = JobState.FAILED,
    **fields: Any,
) -> list[str]:
    writer = SpoolWriter(folder)
    for stream, data in rows:
        writer.add(stream, 1, data)
    writer.close()
    job = Job("a", "a", "local", "default", state, 0.0, exit_code=exit_code)
    spec = request_from_options(**{"code": "import yaml", **fields})
    return [package.name for package in packages_to_add(job, spec, folder, folder)]


def test_the_last_of_stderr_counts(tmp_path: Path) -> None:
    rows = (
        (STDOUT, b"1\n"),
        (STDERR, TRACEBACK),
        (STDOUT, b"2\n"),
        (STDERR, ERROR),
        (STDOUT, b"3\n"),
    )
    assert found(tmp_path, *rows, (NOTE, b"end\n")) == ["pyyaml"]


@pytest.mark.parametrize(
    "error",
    [
        ERROR.replace(b"\n", b""),
        ERROR.replace(b"\n", b"\r\n"),
        ERROR.replace(b"\n", b". Did you mean: 'yam'?\n"),
    ],
)
def test_the_error_as_other_versions_of_python_write_it(tmp_path: Path, error: bytes) -> None:
    assert found(tmp_path, (STDERR, TRACEBACK + error)) == ["pyyaml"]


@pytest.mark.parametrize(
    "rows",
    [
        [(STDERR, ERROR)],
        [(STDOUT, TRACEBACK + ERROR)],
        [(STDERR, TRACEBACK), (STDOUT, ERROR)],
        [(STDERR, TRACEBACK + ERROR + b"more\n")],
        [(STDERR, TRACEBACK + b"x " + ERROR)],
        [(STDERR, TRACEBACK + b"ModuleNotFoundError: No module named 'yaml; rm -rf /'\n")],
        [(STDERR, TRACEBACK + b"ModuleNotFoundError: No module named '\x1b[31myaml'\n")],
        [(STDERR, TRACEBACK + b"ModuleNotFoundError: No module named 'evil'\n")],
        [(STDERR, TRACEBACK + b"ModuleNotFoundError: No module named '..yaml'\n")],
        [],
    ],
)
def test_anything_else_proposes_nothing(tmp_path: Path, rows: list[tuple[int, bytes]]) -> None:
    assert found(tmp_path, *rows) == []


@pytest.mark.parametrize(
    "more",
    [
        {"exit_code": 2},
        {"state": JobState.STOPPED},
        {"dependencies": ["PyYAML==6"]},
        {"requirements": "pyyaml"},
        {"image": "some/image"},
        {"requirements": "six==1.0 --hash=sha256:" + "0" * 64, "locked": True},
    ],
)
def test_a_request_that_takes_no_more_gets_no_proposal(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    assert found(tmp_path, (STDERR, TRACEBACK + ERROR), **more) == []
