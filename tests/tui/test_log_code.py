"""From a line of a traceback to its code, and several logs in one."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from stoke.errors import StokeError
from stoke.files.paths import cache_dir, job_dir
from stoke.history.job import JobState
from stoke.remote.protocol import JobFolder
from stoke.request.spec import JobSpec, Project
from tests.tui.conftest import Desk, screen_text, until
from tests.tui.open_log import opened
from tui.app import StokeApp
from tui.log.code import CodePlace, places_above

JOB = "fit-7k2pqa"
CODE = "def half(x):\n    return 1 / x\n\nhalf(0)\n"
TRACEBACK = """\
before
Traceback (most recent call last):
  File "/stoke/work/files/fit.py", line 4, in <module>
    half(0)
  File "/stoke/work/files/fit.py", line 2, in half
    return 1 / x
  File "/usr/lib/python3/inner.py", line 77, in deep
    raise ZeroDivisionError
ZeroDivisionError: division by zero
"""


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: StokeApp) -> Path:
    """Return where a program that takes the place of vi records its arguments and the file."""
    seen = tmp_path / "seen"
    program = tmp_path / "vi"
    program.write_text(f'#!/bin/sh\n{{ echo "$1"; basename "$2"; cat "$2"; }} > {seen}.new\n'
                       f"mv {seen}.new {seen}\n")  # fmt: skip
    program.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(program))
    monkeypatch.setattr(app, "suspend", nullcontext)
    return seen


@pytest.mark.parametrize(("ups", "line"), [(0, 2), (4, 2), (6, 4)])
async def test_enter_opens_the_jobs_own_code_at_the_line(
    app: StokeApp, desk: Desk, editor: Path, ups: int, line: int
) -> None:
    desk.job(JOB, JobState.FAILED, log=TRACEBACK.encode(), spec={"code": CODE}, exit_code=1)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press(*["up"] * ups, "enter")
        await until(pilot, editor.exists)
        assert editor.read_text() == f"+{line}\nfit.py\n{CODE}"


async def test_a_line_of_a_library_or_none_is_explained(
    app: StokeApp, desk: Desk, editor: Path
) -> None:
    desk.job(JOB, JobState.FAILED, log=TRACEBACK.encode(), spec={"code": CODE}, exit_code=1)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("up", "up", "enter")
        await until(pilot, lambda: "inner.py is not a file of this job" in screen_text(app))
        await pilot.press("g", "enter")
        await until(pilot, lambda: "no traceback here" in screen_text(app))
        assert not editor.exists()


@pytest.mark.parametrize(
    "root",
    [
        f"{job_dir(JOB)}/{JobFolder.WORK}/{JobFolder.PROJECT}",
        "/stoke/work/project",
        f"{cache_dir()}/scopes/default/python/snapshots/copies/0123456789abcdef.0",
        "/cache/python/snapshots/copies/0123456789abcdef.3",
    ],
    ids=["this machine", "container", "copy on this machine", "copy in a container"],
)
def test_a_file_of_the_project_is_that_of_this_machine(tmp_path: Path, root: str) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/part.py").write_text("1\n")
    spec = JobSpec(code="1", project=Project(root=str(tmp_path)))
    place = CodePlace(f"{root}/pkg/part.py", 1)
    assert place.file_of(spec, JOB) == tmp_path / "pkg/part.py"
    for path in (f"{root}/pkg/gone.py", f"{root}/../../etc/passwd", "/etc/passwd",
                 f"{root}/pkg/../../../etc/passwd"):  # fmt: skip
        with pytest.raises(StokeError):
            CodePlace(path, 1).file_of(spec, JOB)


def test_places_end_at_the_title_of_the_traceback() -> None:
    lines = [*TRACEBACK.splitlines(), *TRACEBACK.splitlines()]
    assert [place.line for place in places_above(reversed(lines))] == [77, 2, 4]
    assert places_above([]) == []


async def test_the_logs_of_marked_jobs_are_one_in_the_pager(
    app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    pager = tmp_path / "pager"
    pager.write_text(f'#!/bin/sh\ncat "$1" > {copy}.new\nmv {copy}.new {copy}\n')
    pager.chmod(0o755)
    monkeypatch.setenv("PAGER", str(pager))
    monkeypatch.setattr(app, "suspend", nullcontext)
    desk.job("one-7k2pqa", log=b"first\nlast\n", age=10)
    desk.job("two-7k2pqa", log=b"middle\n", age=20)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "two-7k2pqa" in screen_text(app))
        await pilot.press("space", "space", "vertical_line")
        await until(pilot, copy.exists)
    text = copy.read_text()
    assert all(word in text for word in ("one-7k2pqa", "two-7k2pqa", "first", "middle", "last"))
