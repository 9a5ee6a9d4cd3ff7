"""Helpers of the tests of the New job screen."""

from __future__ import annotations

from typing import Any

from textual.pilot import Pilot

from tests.tui.conftest import until
from tui.app import StokeApp
from tui.new_job.form_field import FormField
from tui.new_job.screen import NewJobScreen

SIZE = (120, 50)


async def opened(pilot: Pilot[Any], app: StokeApp) -> NewJobScreen:
    await pilot.press("2")
    await until(pilot, lambda: isinstance(app.screen, NewJobScreen))
    screen = app.screen
    assert isinstance(screen, NewJobScreen)
    await until(pilot, lambda: screen.query("#code") and screen.query_one("#code").has_focus)
    return screen


def field(screen: NewJobScreen, name: str) -> FormField:
    return screen.query_one(f"#field-{name}", FormField)
