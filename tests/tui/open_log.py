"""Helpers of the tests of the log window."""

from __future__ import annotations

from typing import Any

from textual.pilot import Pilot
from textual.widgets import Input

from tests.tui.conftest import until
from tui.app import StokeApp
from tui.log.view import LogView

JOB = "job-aaaaaa"


def lines(first: int, last: int) -> bytes:
    return b"".join(f"line {number}\n".encode() for number in range(first, last))


async def opened(pilot: Pilot[Any], app: StokeApp) -> LogView:
    """Return the focused log of the only job."""
    await until(
        pilot, lambda: app.screen.query(LogView) and app.screen.query_one(LogView).lines.rows
    )
    await pilot.press("enter")
    view = app.screen.query_one(LogView)
    await until(pilot, lambda: view.has_focus)
    return view


async def ask(pilot: Pilot[Any], key: str, text: str) -> None:
    """Open a prompt, replace its text and submit it."""
    await pilot.press(key)
    prompt = pilot.app.screen.query_one("#log-prompt-input", Input)
    await until(pilot, lambda: prompt.has_focus)
    prompt.value = text
    await pilot.press("enter")


def styles_of(view: LogView, text: str) -> set[object]:
    """Return the colours of the drawn line that begins with a text."""
    for y in range(view.size.height):
        strip = view.render_line(y)
        if strip.text.strip(" │").startswith(text):
            return {part.style.color for part in strip if part.style and part.text.strip(" │")}
    raise AssertionError(text)
