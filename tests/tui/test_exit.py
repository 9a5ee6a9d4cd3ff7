"""The app ends without an error at any moment of its start."""

from __future__ import annotations

import asyncio

import pytest
from textual.app import ComposeResult

from tests.tui.conftest import Desk
from tui.app import StokeApp
from tui.jobs.screen import JobsScreen
from tui.log.pane import LogPane


@pytest.mark.parametrize("part", [LogPane, JobsScreen])
async def test_an_exit_while_widgets_are_made_is_no_error(
    app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch, part: type[LogPane | JobsScreen]
) -> None:
    compose = part.compose

    def leave_first(self: LogPane | JobsScreen) -> ComposeResult:
        app.exit()
        return compose(self)  # type: ignore[arg-type]

    monkeypatch.setattr(part, "compose", leave_first)
    await asyncio.wait_for(app.run_async(headless=True), 60)
    assert app.return_code == 0
