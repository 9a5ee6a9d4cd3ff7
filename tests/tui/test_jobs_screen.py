"""Jobs: the list, the current job, and the keys that act on it."""

from __future__ import annotations

import json
import re

import pytest

from stoke.backend.api import EngineState, EngineStatus
from stoke.config.model import Config
from stoke.errors import EngineError
from stoke.history.database import Note
from stoke.history.job import JobState
from stoke.logs.spool import STDERR
from tests.tui.conftest import NOW, Desk, FakeBackend, screen_text, shows, shows_all, until
from tui.app import StokeApp
from tui.command_palette import CommandPalette
from tui.dialogs.prompts import Confirm
from tui.jobs.job_list import JobList
from tui.jobs.screen import JobsScreen
from tui.log.view import LogView

SIZES = [(80, 24), (120, 40)]


def jobs_screen(app: StokeApp) -> JobsScreen:
    screen = app.get_screen_stack("jobs")[0]
    assert isinstance(screen, JobsScreen)
    return screen


@pytest.mark.parametrize("size", SIZES)
async def test_an_empty_list_explains_how_to_start(app: StokeApp, size: tuple[int, int]) -> None:
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: shows_all(app, "No jobs yet", "stoke run"))


@pytest.mark.parametrize("size", SIZES)
async def test_the_newest_job_is_first_and_shown(
    app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    desk.job("old-aaaaaa", age=7200, log=b"old line\n")
    desk.job("new-bbbbbb", JobState.FAILED, age=60, log=b"new line\n", reason="it broke")
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: "new line" in screen_text(app))
        text = screen_text(app)
        assert text.index("new-bbbbbb") < text.index("old-aaaaaa")
        assert "it broke" in text
        assert "1 line · 9 B" in text and "gap" not in text
        await pilot.press("j")
        await until(pilot, lambda: "old line" in screen_text(app))


async def test_the_filter_hides_other_jobs_and_escape_clears_it(app: StokeApp, desk: Desk) -> None:
    desk.job("train-aaaaaa", age=60)
    desk.job("clean-bbbbbb", age=120)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "clean-bbbbbb" in screen_text(app))
        await pilot.press("slash", *"clean")
        await until(pilot, lambda: shows(app, "1 of 2 jobs", without="train-aaaaaa"))
        assert jobs_screen(app).table.current == "clean-bbbbbb"
        await pilot.press("enter")
        await until(pilot, lambda: jobs_screen(app).table.has_focus)
        await pilot.press("escape")
        await until(pilot, lambda: "train-aaaaaa" in screen_text(app))


async def test_a_long_error_is_shown_once_with_its_lines(app: StokeApp, desk: Desk) -> None:
    reason = "python: Failed to build `spam==1`"
    desk.job("built-aaaaaa", JobState.FAILED, age=60, reason=reason, hit=False)
    text = f"{reason}\nThe build backend returned an error\nmain.c:3:5: error: \x1b[31mno ;\n   ^"
    desk.history.add_note("built-aaaaaa", Note("error", text, "look at the log"))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "The build backend returned an error" in screen_text(app))
        lines = [line.strip(" │┃▏▎▊▉█") for line in screen_text(app).splitlines()]
        assert sum("Failed to build" in line for line in lines) == 1
        at = next(n for n, line in enumerate(lines) if line.endswith("backend returned an error"))
        assert lines[at + 1].endswith("main.c:3:5: error: no ;")
        assert lines[at + 2].endswith("^")
        assert lines[at + 3].endswith("look at the log")


async def test_phases_and_spec_show_figures_and_hide_secrets(app: StokeApp, desk: Desk) -> None:
    spec = {
        "dependencies": ["pandas>=2,<3"],
        "env": {"API_TOKEN": "hunter2", "MODE": "fast"},
        "secrets": {"DB": "env:DB_URL"},
    }
    desk.job("job-aaaaaa", hit=False, spec=spec)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: shows_all(app, "2 of 41", "MISS"))
        assert "46.1 MiB" in screen_text(app)
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "stoke rerun job-aaaaaa" in screen_text(app))
        text = screen_text(app)
        assert "MODE=fast" in text
        assert "API_TOKEN=***" in text
        assert "hunter2" not in text


@pytest.mark.parametrize(("no", "yes"), [(["enter"], ["tab", "enter"]), (["n"], ["y"])])
async def test_stop_asks_with_cancel_focused_and_takes_letters(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend], no: list[str], yes: list[str]
) -> None:
    desk.job("job-aaaaaa", JobState.RUNNING)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "running" in screen_text(app))
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press(*no)
        await until(pilot, lambda: not isinstance(app.screen, Confirm))
        assert backends["local"].stopped == []
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press(*yes)
        await until(pilot, lambda: backends["local"].stopped == ["job-aaaaaa"])


async def test_remove_deletes_a_finished_job(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    desk.job("job-aaaaaa", age=60)
    desk.job("job-bbbbbb", age=120)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: jobs_screen(app).job is not None)
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("right", "enter")
        await until(pilot, lambda: desk.history.get("job-aaaaaa") is None)
        await until(pilot, lambda: jobs_screen(app).table.current == "job-bbbbbb")
        assert backends["local"].removed == ["job-aaaaaa"]


async def test_keys_that_cannot_work_are_not_offered(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    desk.job("job-aaaaaa")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: jobs_screen(app).job is not None)
        await pilot.pause()
        keys = screen_text(app).splitlines()[-1]
        assert "Stop" not in keys
        assert "d Remove" in keys
        # The key says why it does nothing.
        await pilot.press("s")
        await until(pilot, lambda: "Nothing to stop: already ended" in screen_text(app))
        assert not app.screen.is_modal


async def test_zoom_shows_only_the_log_and_toggles_back(app: StokeApp, desk: Desk) -> None:
    desk.job("job-aaaaaa", log=b"".join(b"line %d\n" % number for number in range(100)))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "line 99" in screen_text(app))
        assert len(re.findall(r"line \d+ ", screen_text(app))) >= 15
        await pilot.press("enter", "z")
        await until(pilot, lambda: len(re.findall(r"line \d+ ", screen_text(app))) >= 19)
        assert "state" not in screen_text(app)
        await pilot.press("z")
        await until(pilot, lambda: "state" in screen_text(app))
        assert jobs_screen(app).detail.log_view.has_focus


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_keys_move_the_split_and_the_next_start_restores_it(
    app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    desk.job("job-aaaaaa", log=b"line\n")

    def side(app: StokeApp) -> int:
        region = app.screen.query_one("#jobs-side").region
        return region.width if size[0] > 100 else region.height

    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        before = side(app)
        await pilot.press("plus", "plus")
        await until(pilot, lambda: side(app) > before + 1)
        enlarged = side(app)
        await pilot.press("enter", "plus")
        await until(pilot, lambda: side(app) < enlarged)
        left = side(app)
    again = StokeApp(Config(), clock=lambda: NOW)
    async with again.run_test(size=size) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(again))
        assert side(again) == left


async def test_the_title_counts_states_and_a_column_tells_why(app: StokeApp, desk: Desk) -> None:
    desk.job("job-aaaaaa", JobState.RUNNING)
    desk.job("job-bbbbbb", JobState.FAILED, exit_code=1)
    desk.job("job-cccccc", JobState.FAILED, reason="lock: no solution found: numpy needs more")
    desk.job("job-dddddd", JobState.FAILED, reason="no", age=90_000)
    desk.job("job-eeeeee", JobState.QUEUED, reason="waits for a slot: 2 of 2 are in use")
    desk.job("job-ffffff", JobState.QUEUED, reason="waits for fit-aaaaaa to succeed (running)")
    async with app.run_test(size=(80, 24)) as pilot:
        title = "6 jobs · 1 running · 2 queued · 2 failed today"
        await until(pilot, lambda: title in screen_text(app))
        assert "exit 1 " in screen_text(app) and " no solution " in screen_text(app)
        assert " slot " in screen_text(app) and " after fit-aa" in screen_text(app)


async def test_a_filter_without_a_match_leaves_no_log_on_the_screen(
    app: StokeApp, desk: Desk
) -> None:
    desk.job("job-aaaaaa", log=b"a line of the log\n")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "a line of the log" in screen_text(app))
        await pilot.press("slash", *"nothing")
        await until(pilot, lambda: "No matching jobs" in screen_text(app))
        await until(pilot, lambda: "a line of the log" not in screen_text(app))


async def test_a_notification_covers_nothing(app: StokeApp, desk: Desk) -> None:
    desk.job("job-aaaaaa", log=b"".join(b"line %d\n" % number for number in range(100)))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "line 99" in screen_text(app))
        app.notify("something happened")
        await until(pilot, lambda: "something happened" in screen_text(app))
        await until(pilot, lambda: shows_all(app, "line 99", "Help"))


@pytest.mark.parametrize("mode", ["jobs", "new", "caches", "metrics", "race"])
async def test_ctrl_p_opens_the_palette_on_every_screen(
    app: StokeApp, desk: Desk, mode: str
) -> None:
    desk.job("job-aaaaaa")
    async with app.run_test() as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        app.action_switch(mode)
        await until(pilot, lambda: app.current_mode == mode)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))


async def test_rerun_submits_the_same_request_and_shows_it(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    desk.job("fit-aaaaaa", name="fit", spec={"code": "print('{{x}}')", "args": ["-v"]})
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: jobs_screen(app).job is not None)
        await pilot.press("r")
        await until(pilot, lambda: backends["local"].deliveries)
        made = backends["local"].deliveries[0]
        assert made.spec.code == "print('{{x}}')"
        assert made.spec.args == ("-v",)
        await until(pilot, lambda: jobs_screen(app).table.current == made.job_id)
        assert jobs_screen(app).query_one(LogView).has_focus


YAML = b"Traceback (most recent call last):\n  line\nModuleNotFoundError: No module named 'yaml'\n"


async def test_a_job_without_its_package_is_run_again_with_it(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    desk.job("fit-aaaaaa", JobState.FAILED, spec={"code": "import yaml"}, exit_code=1)
    desk.spool("fit-aaaaaa", YAML, STDERR)
    desk.job("fit-bbbbbb", JobState.FAILED, spec={"code": "import yaml"}, exit_code=2, age=7200)
    desk.spool("fit-bbbbbb", YAML, STDERR)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "f6 adds pyyaml and runs again" in screen_text(app))
        await pilot.press("down")
        await until(pilot, lambda: shows(app, "exit 2", without="f6 adds"))
        await pilot.press("f6", "up")
        await until(pilot, lambda: "f6 adds pyyaml and runs again" in screen_text(app))
        await pilot.press("f6")
        await until(pilot, lambda: backends["local"].deliveries)
        (made,) = backends["local"].deliveries
        assert (made.spec.code, made.spec.dependencies) == ("import yaml", ("pyyaml",))


async def test_a_guessed_package_is_asked_for_first(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    desk.job("fit-aaaaaa", JobState.FAILED, spec={"code": "import yamlx"}, exit_code=1)
    desk.spool("fit-aaaaaa", YAML.replace(b"yaml", b"yamlx"), STDERR)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "f6 adds yamlx (PyPI name guessed" in screen_text(app))
        await pilot.press("f6")
        await until(pilot, lambda: "The code imports yamlx." in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: not app.screen.is_modal)
        assert not backends["local"].deliveries
        await pilot.press("f6")
        await until(pilot, lambda: app.screen.is_modal)
        await pilot.press("right", "enter")
        await until(pilot, lambda: backends["local"].deliveries)
        assert backends["local"].deliveries[0].spec.dependencies == ("yamlx",)


async def test_a_failing_backend_is_reported_and_its_jobs_are_unconfirmed(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    backends["docker"].down = EngineError("the engine does not answer", "systemctl start docker")
    desk.job("job-aaaaaa", JobState.RUNNING, backend="docker", log=b"so far\n", started_at=1.0)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: "the engine does not answer" in screen_text(app))
        text = screen_text(app)
        assert "systemctl start docker" in text
        assert "● running?" in text
        assert "so far" in text
        desk.let_go()
        backends["docker"].down = None
        backends["docker"].states["job-aaaaaa"] = EngineState(EngineStatus.EXITED, exit_code=0)
        await until(pilot, lambda: shows(app, "succeeded", without="does not answer"))


async def test_a_job_that_another_program_submits_appears(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "No jobs yet" in screen_text(app))
        desk.job("late-aaaaaa", age=1)
        await until(pilot, lambda: "late-aaaaaa" in screen_text(app))


async def test_the_cursor_remains_on_its_job_when_a_new_one_arrives(
    app: StokeApp, desk: Desk
) -> None:
    for number in range(30):
        desk.job(f"job-{number:06}", age=100 + number)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: len(app.screen.query_one(JobList).listing) == 30)
        await pilot.press("j", "j", "j")
        await until(pilot, lambda: jobs_screen(app).table.current == "job-000003")
        desk.job("new-aaaaaa", age=1)
        await until(pilot, lambda: len(app.screen.query_one(JobList).listing) == 31)
        await pilot.pause()
        assert jobs_screen(app).table.current == "job-000003"
        assert jobs_screen(app).table.cursor == 4


async def test_edit_opens_new_job_with_the_request(app: StokeApp, desk: Desk) -> None:
    desk.job("fit-aaaaaa", name="fit", spec={"code": "import x\n", "dependencies": ["x>=1,<2"]})
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: jobs_screen(app).job is not None)
        await pilot.press("e")
        await until(pilot, lambda: app.current_mode == "new")
        await until(pilot, lambda: "import x" in screen_text(app))
        await until(pilot, lambda: "x>=1,<2" in screen_text(app))


async def test_an_unreadable_request_is_reported(app: StokeApp, desk: Desk) -> None:
    desk.job("job-aaaaaa")
    desk.stored_spec("job-aaaaaa", {"code": "print(1)", "colour": "red"})
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: jobs_screen(app).job is not None)
        await pilot.press("r")
        await until(pilot, lambda: "colour" in screen_text(app))
        assert json.loads(desk.history.spec("job-aaaaaa") or "{}")["colour"] == "red"


async def test_help_and_palette_list_every_key(app: StokeApp, desk: Desk) -> None:
    desk.job("job-aaaaaa")
    async with app.run_test(size=(120, 60), notifications=True) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        await pilot.press("question_mark")
        await until(pilot, lambda: "Keys: Jobs" in screen_text(app))
        for what in ("Find", "Run again", "Remove", "Timestamps", "New job", "Quit"):
            assert what in screen_text(app)
        await pilot.press("escape", "colon")
        await pilot.press(*"timest")
        await until(pilot, lambda: re.search(r"Timestamps +t ", screen_text(app)))
        await pilot.press("enter")
        await until(pilot, lambda: jobs_screen(app).query_one(LogView).stamps)


async def test_quitting_needs_no_confirmation(app: StokeApp, desk: Desk) -> None:
    desk.job("job-aaaaaa", JobState.RUNNING)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: jobs_screen(app).job is not None)
        await pilot.press("3", "q")
        await until(pilot, lambda: app.current_mode == "jobs")
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
