"""The list of jobs: sorting, filtering, grouping, marking, columns, and bad days."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from textual.pilot import Pilot

from stoke.config.model import Config
from stoke.files.paths import job_dir
from stoke.history.job import JobState, Phase
from stoke.history.listing import PAGE
from stoke.history.volume_index import ScopeCache, VolumeIndex
from stoke.logs.spool import ENGINE_LOG
from tests.tui.conftest import NOW, Desk, FakeBackend, said, screen_text, shows, shows_all, until
from tests.tui.test_hostile import ALL, harmless
from tests.tui.test_jobs_screen import jobs_screen
from tui.app import StokeApp
from tui.dialogs.prompts import Confirm
from tui.jobs.compare import CompareScreen
from tui.jobs.job_list import JobList


def order(app: StokeApp) -> list[str]:
    """Return the jobs on the terminal, from the top."""
    return [word for line in listed(app) for word in line.split() if word.endswith("-7k2pqa")]


def listed(app: StokeApp) -> list[str]:
    """Return the lines of the list, its headings first."""
    table = jobs_screen(app).table.region
    lines = screen_text(app).splitlines()[table.y : table.bottom]
    return [line[table.x : table.right] for line in lines]


async def ready(pilot: Pilot[None]) -> JobList:
    app = pilot.app
    assert isinstance(app, StokeApp)
    await until(pilot, lambda: jobs_screen(app)._detail is not None)
    return jobs_screen(app).table


@pytest.fixture
def three(desk: Desk) -> Desk:
    desk.job("fit-7k2pqa", age=60, finished_at=NOW, log=b"1\n", backend="docker")
    desk.job("eval-7k2pqa", JobState.FAILED, age=120, finished_at=NOW - 110, reason="no memory")
    desk.job("clean-7k2pqa", age=180, finished_at=NOW - 150)
    return desk


async def test_sorting_by_each_column_in_both_directions(app: StokeApp, three: Desk) -> None:
    async with app.run_test(size=(160, 40), notifications=True) as pilot:
        await ready(pilot)
        await until(pilot, lambda: order(app) == ["fit-7k2pqa", "eval-7k2pqa", "clean-7k2pqa"])
        await until(pilot, lambda: "age▼" in screen_text(app))
        await pilot.press("o")
        await until(pilot, lambda: "time▼" in screen_text(app))
        assert order(app) == ["fit-7k2pqa", "clean-7k2pqa", "eval-7k2pqa"]
        await pilot.press("O")
        await until(pilot, lambda: "time▲" in screen_text(app))
        assert order(app) == ["eval-7k2pqa", "clean-7k2pqa", "fit-7k2pqa"]
        assert jobs_screen(app).table.current == "fit-7k2pqa"
        await pilot.click(JobList, offset=(16, 0))
        await until(pilot, lambda: "job▲" in screen_text(app))
        assert order(app) == ["clean-7k2pqa", "eval-7k2pqa", "fit-7k2pqa"]


async def test_groups_have_headings_with_counts_that_the_cursor_passes_over(
    app: StokeApp, three: Desk
) -> None:
    async with app.run_test(size=(160, 40), notifications=True) as pilot:
        table = await ready(pilot)
        await pilot.press("b")
        await until(pilot, lambda: shows_all(app, "succeeded · 2", "failed · 1"))
        assert order(app) == ["eval-7k2pqa", "fit-7k2pqa", "clean-7k2pqa"]
        await pilot.press("g")
        assert table.current == "eval-7k2pqa"
        await pilot.press("j")
        assert table.current == "fit-7k2pqa"
        await pilot.click(JobList, offset=(20, 2))
        await until(pilot, lambda: table.current == "eval-7k2pqa")
        await pilot.press("b")
        await until(pilot, lambda: "docker · 1" in screen_text(app))
        await pilot.press("b")
        await until(pilot, lambda: shows(app, "3 jobs", without="docker · 1"))


async def test_the_filter_matches_fields_and_packages_and_reports_no_match(
    app: StokeApp, three: Desk
) -> None:
    three.job("rich-7k2pqa", age=1, request_hash="abc")
    three.history.add_asked("abc", "python", ["polars"])
    async with app.run_test(size=(160, 40), notifications=True) as pilot:
        table = await ready(pilot)
        await pilot.press("slash", *"polars")
        await until(pilot, lambda: order(app) == ["rich-7k2pqa"])
        await until(pilot, lambda: "1 of 4 jobs" in screen_text(app))
        await pilot.press("escape", "slash", *"reason:memory")
        await until(pilot, lambda: order(app) == ["eval-7k2pqa"])
        await pilot.press(*"xx")
        await until(pilot, lambda: "No matching jobs" in screen_text(app))
        assert table.current is None
        await pilot.press("enter", "s", "d", "r", "e", "y", "c", "enter")
        assert not app.screen.is_modal
        await pilot.press("escape", "escape")
        await until(pilot, lambda: len(order(app)) == 4)


async def test_marked_jobs_are_removed_together_and_the_question_names_them(
    app: StokeApp, three: Desk, backends: dict[str, FakeBackend]
) -> None:
    three.job("busy-7k2pqa", JobState.RUNNING, age=10)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        table = await ready(pilot)
        await pilot.press("a")
        await until(pilot, lambda: "4 marked" in screen_text(app))
        await pilot.press("g", "j", "space")
        await until(pilot, lambda: "3 marked" in screen_text(app))
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await until(pilot, lambda: "Remove 2 jobs?" in said(app))
        await until(pilot, lambda: "1 marked job still running: skipped" in said(app))
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, Confirm))
        assert len(three.history.list()) == 4
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("tab", "enter")
        left = {"busy-7k2pqa", "fit-7k2pqa"}
        await until(pilot, lambda: {job.id for job in three.history.list()} == left)
        await until(pilot, lambda: list(table.marked) == ["busy-7k2pqa"])
        await pilot.press("escape")
        await until(pilot, lambda: not table.marked)


async def test_stopping_marked_jobs_stops_those_that_run(
    app: StokeApp, three: Desk, backends: dict[str, FakeBackend]
) -> None:
    three.job("busy-7k2pqa", JobState.RUNNING, age=10)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("a", "s")
        await until(pilot, lambda: "Stop this job?" in said(app))
        assert "busy-7k2pqa" in said(app) and "3 marked jobs already ended: skipped" in said(app)
        await pilot.press("tab", "enter")
        await until(pilot, lambda: backends["local"].stopped == ["busy-7k2pqa"])


async def test_columns_order_and_groups_are_restored(app: StokeApp, three: Desk) -> None:
    async with app.run_test(size=(160, 40), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("C")
        await until(pilot, lambda: "[x] state" in screen_text(app))
        # Hide the state, show the image, and move it forward.
        await pilot.press("space", "end", "space", "K", "escape")
        await pilot.press("O", "b")
        await until(pilot, lambda: "succeeded · 2" in screen_text(app))
        head = listed(app)[0]
        assert "image" in head and "state" not in head
    again = StokeApp(Config(), clock=lambda: NOW)
    async with again.run_test(size=(160, 40), notifications=True) as pilot:
        await ready(pilot)
        await until(pilot, lambda: listed(again)[0] == head)
        await until(pilot, lambda: "succeeded · 2" in screen_text(again))


@pytest.mark.parametrize("kept", ['{"jobs": 3}', '{"jobs": {"columns": [1, "no"], "order": []}}'])
async def test_invalid_ui_state_is_ignored(desk: Desk, kept: str) -> None:
    desk.job("fit-7k2pqa")
    (desk.history.path.parent / "screens.json").write_text(kept)
    app = StokeApp(Config(), clock=lambda: NOW)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "age▼" in screen_text(app))


async def test_only_visible_jobs_are_read(app: StokeApp, desk: Desk) -> None:
    with desk.history.transaction():
        for number in range(10 * PAGE):
            desk.history.query(
                "INSERT INTO jobs (id, name, backend, scope, state, submitted_at, finished_at) "
                "VALUES (?, 'job', 'local', 'default', 'succeeded', ?, ?)",
                (f"job-{number}", NOW - number, NOW),
            )
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        table = await ready(pilot)
        assert set(table.listing._pages) == {0}
        await pilot.press("G")
        await until(pilot, lambda: f"job-{10 * PAGE - 1}" in screen_text(app))
        # A refresh of the list drops pages that are not shown.
        assert {9} <= set(table.listing._pages) <= {0, 9}
        await pilot.press("pageup", "k", "g")
        await until(pilot, lambda: "job-0 " in screen_text(app))


async def test_the_two_marked_jobs_are_compared_the_older_first(app: StokeApp, desk: Desk) -> None:
    for job_id, age, package in (("fit-7k2pqa", 60, "numpy==2"), ("eval-7k2pqa", 120, "numpy==1")):
        desk.job(job_id, age=age, spec={"env": {"A": job_id}})
        desk.history.set_phase(job_id, Phase("python", NOW, 1, False, 1, 0, 5, job_id))
        place = ScopeCache("local", "default", "python")
        VolumeIndex(desk.history).record_use(place, job_id, NOW, None, [package])
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("space", "space", "c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        await until(pilot, lambda: "numpy 1 → 2" in screen_text(app))
        text = screen_text(app)
        assert text.index("eval-7k2pqa") < text.index("fit-7k2pqa")
        assert "env.A" in text and "1 changed" in text
        await pilot.press("X")
        await until(pilot, lambda: "numpy 2 → 1" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: jobs_screen(app).table.has_focus)


async def test_without_marks_a_job_is_compared_with_its_previous_run(
    app: StokeApp, desk: Desk
) -> None:
    desk.job("fit-7k2pqa", age=60, name="fit")
    desk.job("other-7k2pqa", age=70, name="other")
    desk.job("fit-m3x5ab", age=120, name="fit")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        await until(pilot, lambda: "fit-m3x5ab" in screen_text(app))
        await pilot.press("escape", "j", "c")
        await until(pilot, lambda: "Mark exactly two jobs" in said(app))


async def test_a_key_shows_the_lines_of_the_engine(app: StokeApp, desk: Desk) -> None:
    desk.job("fit-7k2pqa", log=b"the job's line\n")
    (job_dir("fit-7k2pqa") / ENGINE_LOG).write_text(f"level=info msg=sub-process {ALL}\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "the job's line" in screen_text(app))
        await pilot.press("enter", "x")
        await until(pilot, lambda: "level=info msg=sub-process" in harmless(app))
        assert "the job's line" not in screen_text(app)
        await pilot.press("x")
        await until(pilot, lambda: "the job's line" in screen_text(app))
        assert jobs_screen(app).detail.log_view.has_focus


async def test_each_part_of_a_request_can_be_copied(
    app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []

    def copy(_: object, text: str) -> str:
        copied.append(text)
        return "copied"

    monkeypatch.setattr("tui.terminal.clipboard.copy", copy)
    desk.job("fit-7k2pqa", name="fit", spec={"code": "x = 1\n", "env": {"TOKEN": "hunter2"}})
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "stoke rerun fit-7k2pqa" in screen_text(app))
        for keys in (("y",), ("j", "y"), ("j", "j", "enter")):
            count = len(copied)
            await pilot.press("y")
            await until(pilot, lambda: app.screen.is_modal)
            await pilot.press(*keys)
            await until(pilot, lambda count=count: len(copied) > count)  # type: ignore[misc]
        assert copied[0].startswith("stoke run -b local --name fit")
        assert copied[1] == "x = 1\n"
        assert '"code": "x = 1\\n"' in copied[2]
        assert not any("hunter2" in text for text in copied)


async def test_a_locked_history_is_reported_and_the_list_remains(
    app: StokeApp, three: Desk
) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await until(pilot, lambda: len(order(app)) == 3)
        three.history.query("PRAGMA wal_checkpoint(TRUNCATE)")
        with hold(three.history.path) as held:
            held.execute("BEGIN EXCLUSIVE")
            await pilot.press("o", "j", "enter", "escape", "b")
            await until(pilot, lambda: len(order(app)) == 3)
            held.execute("ROLLBACK")
        await pilot.press("g")
        await until(pilot, lambda: shows(app, "3 jobs", without="history"))


def hold(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=5, isolation_level=None)


async def test_a_history_damaged_while_shown_is_reported(app: StokeApp, three: Desk) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await until(pilot, lambda: len(order(app)) == 3)
        three.history.query("PRAGMA wal_checkpoint(TRUNCATE)")
        three.history.path.write_bytes(b"no database at all " * 5000)
        await pilot.press("o", "b", "j", "slash", "x", "escape", "c", "d")
        await until(pilot, lambda: "history" in said(app))
        assert app.is_running


@pytest.mark.parametrize("size", [(20, 5), (40, 8)])
async def test_keys_in_a_tiny_terminal_do_no_harm(
    app: StokeApp, three: Desk, size: tuple[int, int]
) -> None:
    async with app.run_test(size=size, notifications=True) as pilot:
        table = await ready(pilot)
        await pilot.press("b", "j", "G", "g", "space", "a", "C", "escape", "o", "O", "pagedown")
        await pilot.press("enter", "x", "escape", "right_square_bracket", "c")
        await pilot.pause()
        await pilot.resize_terminal(120, 40)
        await pilot.press("escape", "escape", "escape", "g")
        await until(pilot, lambda: len(order(app)) == 3)
        assert table.current is not None


@pytest.mark.parametrize(("width", "title"), [
    (120, "4 jobs · ● 1 · ◔ 1 · ○ 1 · ✗ 1 today"),
    (200, "4 jobs · 1 running · 1 starting · 1 queued · 1 failed today"),
])  # fmt: skip
async def test_the_title_has_symbols_where_words_do_not_fit(
    app: StokeApp, desk: Desk, width: int, title: str
) -> None:
    for number, state in enumerate(
        (JobState.RUNNING, JobState.STARTING, JobState.QUEUED, JobState.FAILED)
    ):
        desk.job(f"job-{number}aaaaa", state, age=60 + number)
    async with app.run_test(size=(width, 40), notifications=True) as pilot:
        await until(pilot, lambda: title in screen_text(app))
