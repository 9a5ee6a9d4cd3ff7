"""New job: what is wrong with a request is named at its field before anything is submitted."""

from __future__ import annotations

import pytest
from textual.widgets import Collapsible, Select

from tests.tui.conftest import Desk, FakeBackend, said, screen_text, until
from tests.tui.new_job_form import SIZE, field, opened
from tui.app import StokeApp
from tui.new_job.code_editor import CodeEditor


async def test_a_wrong_requirement_is_named_below_its_field(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        field(screen, "dependencies").control.focus()
        await pilot.press(*"-e .")
        await until(pilot, lambda: "does not travel" in screen_text(app))
        field(screen, "dependencies").text = "numpy"
        await until(pilot, lambda: "does not travel" not in screen_text(app))


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("requirements", "numpy\n-e .", "does not travel"),
        ("scope", "Team A", "is not a scope name"),
        ("python", "three", "is not a Python version"),
        ("timeout", "soon", "is not a duration"),
        ("memory", "lots", "is not a size"),
        ("env", "NAME", "has no ="),
        ("secrets", "DB=hunter2", "does not say where the secret is"),
        ("args", "'unclosed", "cannot be split"),
    ],
)
async def test_each_field_shows_its_own_error(
    app: StokeApp, desk: Desk, name: str, text: str, why: str
) -> None:
    async with app.run_test(size=(120, 70), notifications=True) as pilot:
        screen = await opened(pilot, app)
        field(screen, name).text = text
        error = field(screen, name).query_one(".field-error")
        await until(pilot, lambda: error.display)
        assert why in str(error.render())


async def test_a_field_shows_that_the_backend_cannot_honour_it(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        field(screen, "system").text = "gcc"
        error = field(screen, "system").query_one(".field-error")
        await until(pilot, lambda: error.display)
        assert "the local backend has no system packages" in str(error.render())
        screen.query_one("#more", Collapsible).collapsed = False
        screen.query_one("#backend", Select).value = "docker"
        await until(pilot, lambda: not error.display)
        await until(pilot, lambda: "a container with no capabilities" in said(app))


async def test_a_field_that_the_backend_cannot_honour_is_disabled_with_the_reason(
    app: StokeApp, desk: Desk
) -> None:
    unable = ("system", "image", "cpu", "memory", "shm_size")
    async with app.run_test(size=(120, 70), notifications=True) as pilot:
        screen = await opened(pilot, app)
        await until(pilot, lambda: all(field(screen, name).control.disabled for name in unable))
        assert "local has no system packages" in screen_text(app)
        screen.query_one("#more", Collapsible).collapsed = False
        await until(pilot, lambda: "local sets no limits" in screen_text(app))
        assert not field(screen, "dependencies").control.disabled
        screen.query_one("#backend", Select).value = "docker"
        await until(pilot, lambda: not any(field(screen, one).control.disabled for one in unable))
        assert "local sets no" not in screen_text(app)
        # A value that is there already is not hidden: it is an error until it is emptied.
        field(screen, "memory").text = "1g"
        screen.query_one("#backend", Select).value = "local"
        error = field(screen, "memory").query_one(".field-error")
        await until(pilot, lambda: error.display)
        assert not field(screen, "memory").control.disabled
        field(screen, "memory").control.focus()
        field(screen, "memory").text = ""
        await until(pilot, lambda: not error.display)
        assert field(screen, "memory").control.has_focus
        field(screen, "python").control.focus()
        await until(pilot, lambda: field(screen, "memory").control.disabled)


async def test_a_secret_that_is_missing_is_named(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"print(2)")
        field(screen, "secrets").text = "DB=env:STOKE_TEST_NOT_SET"
        await pilot.press("ctrl+r")
        await until(pilot, lambda: field(screen, "secrets").query_one(".field-error").display)
        assert backends["local"].deliveries == []
        assert field(screen, "secrets").control.has_focus


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ("# dependencies = [", "is not TOML"),
        ('# dependencies = ["./mine"]', "does not travel"),
        ("# dependencies = 3", "must be a list"),
    ],
)
async def test_a_broken_block_of_metadata_is_named_below_the_code(
    app: StokeApp, desk: Desk, block: str, why: str
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        screen.query_one(CodeEditor).put(f"# /// script\n{block}\n# ///\nprint(1)\n")
        error = screen.query_one("#code-error")
        await until(pilot, lambda: error.display)
        assert why in str(error.render())
        await pilot.press("ctrl+r")
        await until(pilot, lambda: screen.query_one("#code").has_focus)
        assert app.current_mode == "new"


async def test_a_request_for_a_backend_that_is_not_here(app: StokeApp, desk: Desk) -> None:
    desk.job("fit-aaaaaa", spec={"code": "import x\n"})
    desk.raw("fit-aaaaaa", "UPDATE jobs SET backend = '[/gone]' WHERE id = ?")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: "fit-aaaaaa" in screen_text(app))
        await pilot.press("e")
        await until(pilot, lambda: "there is no backend called '[/gone]'" in said(app))
        assert "import x" in screen_text(app)
        app.screen.query_one("#backend", Select).value = "docker"
        await until(pilot, lambda: "a container with no capabilities" in said(app))


async def test_code_with_a_syntax_error_is_submitted_only_after_asking(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        screen.query_one(CodeEditor).text = "print(1)\nprint(\n"
        await until(pilot, lambda: "syntax error in line 2" in screen_text(app))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "Submit code with a syntax error?" in screen_text(app))
        await pilot.press("n")
        await until(pilot, lambda: app.screen is screen)
        assert not backends["local"].deliveries
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "Submit code with a syntax error?" in screen_text(app))
        await pilot.press("y")
        await until(pilot, lambda: backends["local"].deliveries)


async def test_every_wrong_field_stays_marked_until_it_is_fixed(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=(120, 60), notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"x = 1")
        field(screen, "secrets").text = "TOKEN=hunter2"
        field(screen, "timeout").text = "soon"
        wrong = [field(screen, name) for name in ("secrets", "timeout")]
        await until(pilot, lambda: all(one.has_class("-wrong") for one in wrong))
        assert "NAME=env:OTHER or NAME=file:/path" in said(app)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: app._notifications)
        assert all(one.has_class("-wrong") for one in wrong)
        field(screen, "secrets").text = "TOKEN=env:HOME"
        await until(pilot, lambda: not wrong[0].has_class("-wrong"))
        assert wrong[1].has_class("-wrong")
