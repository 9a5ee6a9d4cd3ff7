"""Hints of the screens, followed with the keys and variables that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stoke.config.model import Config
from stoke.errors import EngineError, StokeError
from stoke.history.job import JobState
from stoke.request.sources import request_from_options
from tests.hints import exported, is_hint, refused
from tests.tui.conftest import Desk, FakeBackend, said, screen_text, until
from tests.tui.open_log import JOB, opened
from tests.tui.test_jobs_list import ready
from tui.app import StokeApp
from tui.jobs.compare import CompareScreen
from tui.new_job.external_editor import edit
from tui.notifications import show_error


@pytest.mark.parametrize("variable", ["VISUAL", "EDITOR"])
def test_another_editor_is_named_where_the_failing_one_was(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "false")
    monkeypatch.setenv(variable, "false")
    hint = refused(lambda: edit("1"), "name another: export {}=...")
    ((name, example),) = exported(hint).items()
    assert example == "..."
    monkeypatch.setenv(name, "true")
    assert edit("1") == "1"


def test_a_missing_editor_is_reported_with_the_variable_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(variable, raising=False)
    with monkeypatch.context() as bare:
        bare.setenv("PATH", str(tmp_path))
        hint = refused(lambda: edit("1"), "export EDITOR=...")
    (name,) = exported(hint)
    monkeypatch.setenv(name, "true")
    assert edit("1") == "1"


async def test_two_jobs_are_marked_and_compared(app: StokeApp, desk: Desk) -> None:
    desk.job("first-aaaaaa", age=7200, name="first")
    desk.job("other-bbbbbb", age=3600, name="other")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("c")
        template = "space marks a job"
        await until(pilot, lambda: template in said(app))
        (key,) = re.findall(r"(\w+) marks a job", said(app))
        await pilot.press(key, key, "c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))


async def test_the_screens_submit_without_read_only(
    backends: dict[str, FakeBackend], desk: Desk
) -> None:
    spec = request_from_options(code="1")
    errors: list[StokeError] = []
    async with StokeApp(Config(read_only=True)).run_test() as pilot:
        assert isinstance(pilot.app, StokeApp)
        app = pilot.app
        app.context.submissions.submit_spec(app, "local", spec, "fit", errors.append)
    (error,) = errors
    assert error.what.startswith("read_only: ")
    is_hint(error.hint, "leave it out")
    async with StokeApp(Config()).run_test() as pilot:
        assert isinstance(pilot.app, StokeApp)
        app = pilot.app
        app.context.submissions.submit_spec(app, "local", spec, "fit", errors.append)
        await until(pilot, lambda: backends["local"].deliveries)
    assert len(errors) == 1


async def test_a_log_that_is_too_long_to_copy_is_saved(
    app: StokeApp, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    desk.job(JOB, log=(b"x" * 1_000_000 + b"\n") * 20)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("v", "g", "y")
        template = "save the log instead: S"
        await until(pilot, lambda: template in said(app))
        (key,) = re.findall(r"save the log instead: (\w)\b", said(app))
        await pilot.press("escape", key, "enter")
        await until(pilot, lambda: any(one.stat().st_size for one in tmp_path.glob("*.log")))


@pytest.mark.parametrize("width", range(112, 122))
async def test_a_notification_of_any_width_shows_its_last_line(
    app: StokeApp, desk: Desk, width: int
) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "No jobs yet" in screen_text(app))
        show_error(app.screen, EngineError("x" * (width - 4) + " end", "the hint"))
        await until(pilot, lambda: " end" in screen_text(app))
        await until(pilot, lambda: "the hint" in screen_text(app))


async def test_one_failure_of_several_jobs_is_notified_once(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    for job in ("job-aaaaaa", "job-bbbbbb"):
        desk.job(job, JobState.RUNNING)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        backends["local"].down = EngineError("no engine answers", "start it")
        await pilot.press("a")
        for _ in range(2):
            await pilot.press("s")
            await until(pilot, lambda: "Stop 2 jobs?" in screen_text(app))
            await pilot.press("y")
            await until(pilot, lambda: "start it" in screen_text(app))
            await pilot.pause(0.1)
            messages = [str(one.message) for one in app._notifications]
            assert messages == ["no engine answers\nstart it"]
