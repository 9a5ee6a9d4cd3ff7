"""Text from outside neither drives the terminal nor is parsed as markup."""

from __future__ import annotations

import re

import pytest
from textual.widgets import TextArea

from stoke.backend.api import Volume
from stoke.cache.metrics import CacheFigures, Metrics, Point, PredictionFigures
from stoke.errors import EngineError
from stoke.history.cache_runs import PackageUse
from stoke.history.job import JobState
from stoke.logs.spool import STDERR
from tests.tui.conftest import NOW, Desk, FakeBackend, screen_text, until
from tui.app import StokeApp
from tui.jobs.screen import JobsScreen
from tui.new_job.form import widgets
from tui.new_job.form_field import FormField

HOSTILE = [
    "\x1b]0;PWN\x1b\\",
    "\x1b]52;c;UFdOQ0xJUA==\x1b\\",
    "\x1b[2J\x1b[H",
    "\x1b]8;;http://evil\x1b\\x",
    '\x1bP$q"p\x1b\\',
    "\x1b[6n",
    "\x1b[?1049l",
    "\x9b31m",
    "\x9d0;x\x9c",
    "\u202e",
    "\x07\x08\x7f",
    "[@click=app.quit]CLICK[/]",
    "[/nope]",
    "[link=file:///etc/passwd]x[/]",
    "[tag=value: z]",
    "[/",
]
ALL = " ".join(HOSTILE)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(app: StokeApp) -> str:
    """Return the screen, after checking that nothing in it acts on a terminal or a click.

    An empty screen would pass, so callers wait for a text that the tested action shows.
    """
    for line in app.screen._compositor.render_strips():
        for segment in line:
            assert not CONTROL.search(segment.text), repr(segment.text)
            meta = segment.style.meta if segment.style else {}
            assert "quit" not in str(meta.get("@click", ""))
            assert not (segment.style and segment.style.link)
    return screen_text(app)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_names_reasons_logs_specs_and_errors(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend], size: tuple[int, int]
) -> None:
    job = "job-aaaaaa"
    spec = {"code": f"x = {ALL!r}\n# {ALL}\n", "args": [ALL], "env": {"A": ALL}}
    desk.job(job, JobState.FAILED, spec=spec, hit=True, reason=f"end-of-reason {ALL}")
    desk.spool(job, ("start-of-line " + ALL + "\n").encode())
    desk.spool(job, (ALL + "\n").encode(), STDERR)
    desk.raw(job, "UPDATE jobs SET name = ?, backend = ?, scope = ? WHERE id = ?", ALL, ALL, ALL)
    backends["local"].down = EngineError(ALL, ALL)
    desk.job("job-bbbbbb", JobState.RUNNING, age=9999)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: "end-of-reason" in screen_text(app))
        await until(pilot, lambda: "start-of-line" in screen_text(app))
        assert "[/nope]" in harmless(app)
        await pilot.press("w")
        # Each key with a text that shows that it has had its effect.
        for key, shown in (
            ("right_square_bracket", "41 of 41"),
            ("right_square_bracket", "arguments"),
            ("question_mark", "Keys: Jobs"),
            ("escape", "arguments"),
            ("d", "Remove this job?"),
            ("escape", "arguments"),
            ("y", "job id"),
            ("escape", "arguments"),
        ):
            await pilot.press(key)
            await until(pilot, lambda shown=shown: shown in harmless(app), shown)  # type: ignore[misc]
        await pilot.press("r")
        # The backend of this job is one that does not exist.
        await until(pilot, lambda: "there is no backend" in " ".join(harmless(app).split()))


async def test_a_hostile_name_in_dialogs_and_toasts(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    desk.job("job-aaaaaa", name=f"[/nope]{HOSTILE[0]}")
    backends["local"].down = EngineError(f"[/nope] {ALL}", ALL)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        screen = app.get_screen_stack("jobs")[0]
        assert isinstance(screen, JobsScreen)
        await until(pilot, lambda: screen.job is not None)
        await pilot.press("d")
        await until(pilot, lambda: "Remove this job?" in screen_text(app))
        harmless(app)
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "[tag=value: z]" in harmless(app))


NEVER_WRONG = (
    *("name", "image", "args", "requirements", "locked", "use_cache", "results"),
    *("recorded", "no_folder", "include", "exclude", "group", "extra", "no_dev", "notify"),
)


async def test_form_fields_and_editor_keep_hostile_text_and_draw_it_sanitized(
    app: StokeApp, desk: Desk
) -> None:
    async with app.run_test(size=(120, 70), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: app.screen.query(FormField))
        await until(pilot, lambda: app.screen.query_one("#code").has_focus)
        code = app.screen.query_one("#code", TextArea)
        code.load_text(ALL)
        for field in app.screen.query(FormField):
            field.text = ALL
            await until(
                pilot,
                lambda field=field: (
                    field.field.name in NEVER_WRONG  # type: ignore[misc]
                    or field.query_one(".field-error").display
                ),
            )
            harmless(app)
        assert code.text == ALL
        assert len(app.screen.query(FormField)) == len(widgets())
        await pilot.press("ctrl+r")
        # The notification repeats the error of a field.
        await until(pilot, lambda: app._notifications)
        harmless(app)


async def test_volumes(app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]) -> None:
    volume = Volume("local", ALL, ALL, ALL, ALL, 1, NOW, 1, (ALL,))
    backends["local"].held = [volume]
    backends["local"].measured = {ALL: (10**9, 2)}
    backends["local"].packages = HOSTILE
    backends["docker"].down = EngineError(ALL, ALL)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "[/nope]" in harmless(app))
        await pilot.press("d")
        await until(pilot, lambda: "Clear this cache?" in harmless(app))
        await pilot.press("escape", "p", "enter")
        await until(pilot, lambda: "2 environments" in harmless(app))
        await pilot.press("escape", "W")
        await until(pilot, lambda: "packages" in harmless(app))
        await pilot.press(*"./[/nope]", "enter")
        await until(pilot, lambda: "does not travel" in harmless(app))
        await pilot.press("escape", "enter")
        await until(pilot, lambda: "in 2 environments" in harmless(app))
        await pilot.press("escape", "m")
        backends["local"].down = EngineError(ALL, ALL)
        await pilot.press("m")
        await until(pilot, lambda: "[tag=value: z]" in harmless(app))


async def test_figures(app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = tuple(
        CacheFigures(name, name, kind, 10, 5, 0.5, 3.0, 0.1, 10.0, 10**6)
        for kind, name in zip(("python", "system", ALL), (ALL, HOSTILE[0], "[/nope]"), strict=True)
    )
    made = Metrics(
        None,
        figures,
        {(one.backend, one.scope, one.kind): (Point(NOW - 60, 10, 5),) for one in figures},
        (),
        tuple(PackageUse(name, ALL, 5) for name in (ALL, *HOSTILE)),
        PredictionFigures(10, 9, 0.9),
    )
    monkeypatch.setattr("tui.metrics.cache_figures.read_metrics", lambda *_, **__: made)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "90% of 10 predictions" in harmless(app))
        await pilot.press("B", "I")
        await until(
            pilot, lambda: "predictions" in harmless(app) and "all backends" not in harmless(app)
        )
