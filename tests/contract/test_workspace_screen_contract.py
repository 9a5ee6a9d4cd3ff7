"""The screen of workspaces, on every backend: each action does what its command does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Button, Input

from tests.contract.test_workspace_contract import READS, WAITS, WRITES, Workspaces, spaces
from tests.lab import Lab
from tests.tui.conftest import said, screen_text, until
from tui.app import StokeApp
from tui.caches.screen import CachesScreen
from tui.caches.workspace_dialogs import RemoveWorkspace, WorkspaceForm
from tui.caches.workspaces import WorkspacesScreen, WorkspacesTable

__all__ = ["spaces"]


async def opened(pilot: Pilot[Any], app: StokeApp) -> WorkspacesScreen:
    await pilot.press("3")
    await until(pilot, lambda: isinstance(app.screen, CachesScreen))
    await pilot.press("V")
    await until(pilot, lambda: isinstance(app.screen, WorkspacesScreen))
    assert isinstance(app.screen, WorkspacesScreen)
    return app.screen


async def select(pilot: Pilot[Any], screen: WorkspacesScreen, backend: str, name: str) -> None:
    table = screen.query_one(WorkspacesTable)
    key = f"{backend}/{name}"
    await until(pilot, lambda: key in [one.value for one in table.rows], name)
    # The rows of other backends may still come in.
    await until(pilot, lambda: "Loading" not in screen_text_of(screen) and not screen._listing)
    table.move_cursor(row=table.get_row_index(key))
    await pilot.pause()


def screen_text_of(screen: WorkspacesScreen) -> str:
    app = screen.app
    assert isinstance(app, StokeApp)
    return screen_text(app)


async def fill(pilot: Pilot[Any], app: StokeApp, *values: str) -> None:
    await until(pilot, lambda: isinstance(app.screen, WorkspaceForm))
    for number, value in enumerate(values):
        app.screen.query_one(f"#line-{number}", Input).value = value
    await pilot.pause()
    app.screen.query_one("#go", Button).press()
    await until(pilot, lambda: isinstance(app.screen, WorkspacesScreen))


async def test_each_action_of_the_screen(lab: Lab, spaces: Workspaces, tmp_path: Path) -> None:
    lab.run(WRITES, workspace=spaces.name())
    backend = lab.backend.name
    app = StokeApp(lab.config)
    async with app.run_test(size=(160, 50), notifications=True) as pilot:
        screen = await opened(pilot, app)
        await select(pilot, screen, backend, spaces.name())

        await pilot.press("m")
        await until(pilot, lambda: "in 1 file, measured" in said(app))

        await pilot.press("Y")
        await fill(pilot, app, spaces.name("copy"))
        await until(pilot, lambda: "copied 1 file" in said(app))
        await select(pilot, screen, backend, spaces.name("copy"))

        await pilot.press("E")
        await fill(pilot, app, spaces.name("other"))
        await until(pilot, lambda: "renamed" in said(app))
        await select(pilot, screen, backend, spaces.name("other"))

        (tmp_path / "in.txt").write_text("brought in")
        await pilot.press("u")
        await fill(pilot, app, str(tmp_path / "in.txt"), "/in.txt")
        await until(pilot, lambda: "copied 1 file, 10 B" in said(app))

        await pilot.press("D")
        await fill(pilot, app, "/", str(tmp_path / "out"))
        await until(pilot, lambda: "copied 2 files" in said(app))
        assert (tmp_path / "out/in.txt").read_text() == "brought in"
        assert (tmp_path / "out/out.txt").read_text() == "kept\n"

        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, RemoveWorkspace))
        await until(pilot, lambda: "in 2 files" in said(app) and "Not in use" in said(app))
        assert app.screen.query_one("#go", Button).disabled
        app.screen.query_one(Input).value = spaces.name("other")
        await until(pilot, lambda: not app.screen.query_one("#go", Button).disabled)
        app.screen.query_one("#go", Button).press()
        await until(pilot, lambda: "removed" in said(app))
        await until(pilot, lambda: spaces.mine() == [spaces.name()])
    assert lab.run(READS, workspace=spaces.name()).stdout == b"kept\n"


async def test_one_in_use_is_shown_so_and_not_removed(lab: Lab, spaces: Workspaces) -> None:
    job = lab.submit(WAITS, workspace=spaces.name())
    tracker = lab.track(job)
    lab.until_output(job, b"holding\n")
    app = StokeApp(lab.config)
    async with app.run_test(size=(160, 50), notifications=True) as pilot:
        screen = await opened(pilot, app)
        await select(pilot, screen, lab.backend.name, spaces.name())
        await until(pilot, lambda: f"in use by {job.id}" in said(app))
        await pilot.press("E")
        await until(pilot, lambda: "it was not renamed" in said(app))
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, RemoveWorkspace))
        await until(pilot, lambda: f"In use by {job.id}" in said(app))
        app.screen.query_one(Input).value = spaces.name()
        await pilot.pause()
        assert app.screen.query_one("#go", Button).disabled
    tracker.close()
    lab.backend.stop(job.id, 0)
    lab.finish(job)
