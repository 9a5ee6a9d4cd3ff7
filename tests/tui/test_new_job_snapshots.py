"""How New job looks. After a wanted change: pytest tests/tui/test_new_job_snapshots.py
--snapshot-update"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Collapsible

from stoke.config.model import Config, ProjectConfig
from stoke.request import presets
from tests.projects import write
from tests.tui.conftest import NOW, Desk, FakeBackend, said, until
from tests.tui.new_job_form import field
from tests.tui.test_hostile import ALL
from tests.tui.test_snapshots import Compare, shows, still
from tui import ui_state
from tui.app import StokeApp
from tui.new_job.code_editor import CodeEditor
from tui.new_job.project_files import FilesLine
from tui.new_job.screen import NewJobScreen

SIZES = pytest.mark.parametrize(
    "size", [(80, 24), (120, 40), (200, 60)], ids=["80x24", "120x40", "200x60"]
)
Fill = Callable[[NewJobScreen], None]
CODE = '''\
# /// script
# dependencies = ["six>=1.17"]
# ///
import numpy


def main() -> None:
    """Prints three numbers."""
    print(numpy.arange(3))


main()
'''


def filled(fill: Fill, wanted: str, *keys: str) -> Any:
    """Opens the form, fills it, presses keys, and waits for `wanted`."""

    async def run(pilot: Pilot[Any]) -> None:
        await shows("nothing to build", "2")(pilot)
        screen = pilot.app.screen
        assert isinstance(screen, NewJobScreen)
        fill(screen)
        await pilot.pause()
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
        app = pilot.app
        assert isinstance(app, StokeApp)
        await until(pilot, lambda: wanted in said(app), wanted)
        await still(pilot)

    return run


def job(screen: NewJobScreen) -> None:
    screen.query_one(CodeEditor).put(CODE)
    field(screen, "name").text = "fit-model"
    field(screen, "dependencies").text = "numpy\npandas>=2,<3\nscipy\nuvicorn[standard]>=0.30"


@SIZES
def test_empty(snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shows("nothing to build", "2"))


@SIZES
def test_filled(snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]) -> None:
    assert snap_compare(app, terminal_size=size, run_before=filled(job, "in the code"))


@SIZES
def test_the_fold(snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]) -> None:
    def fill(screen: NewJobScreen) -> None:
        job(screen)
        field(screen, "env").text = "MODE=fast\nDEBUG=1"
        field(screen, "secrets").text = "DB=env:HOME"
        field(screen, "timeout").text = "5m"
        screen.query_one("#more", Collapsible).collapsed = False

    run = filled(fill, "Where and how: local, 2 variables")
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_the_request_beside_it(
    snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    run = filled(job, '"dependencies": [', "ctrl+g")
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_failing(snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]) -> None:
    def fill(screen: NewJobScreen) -> None:
        job(screen)
        field(screen, "dependencies").text = "numpy\n./mine\nx=1"
        field(screen, "system").text = "gcc"
        field(screen, "dependencies").control.focus()

    # The rest may be on the next line, behind a line of the code.
    run = filled(fill, "(and")
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_with_a_backend_that_is_not_there(
    snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    ui_state.save("draft", {"code": CODE, "backend": "gone", "values": {}})

    async def run(pilot: Pilot[Any]) -> None:
        await shows("fix first: backend", "2")(pilot)

    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_hostile(snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]) -> None:
    def fill(screen: NewJobScreen) -> None:
        screen.query_one(CodeEditor).put(f"# {ALL}\nx = '''{ALL}'''\n")
        for name in ("name", "dependencies", "system", "env"):
            field(screen, name).text = ALL
        field(screen, "dependencies").control.focus()

    run = filled(fill, "prediction: -", "left")
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_presets(
    snap_compare: Compare,
    app: StokeApp,
    desk: Desk,
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A path that is the same wherever the tests run.
    monkeypatch.setenv("HOME", os.environ["STOKE_STATE_DIR"])
    monkeypatch.setenv("STOKE_CONFIG", os.environ["STOKE_STATE_DIR"] + "/config.toml")
    presets.save(presets.path_of("fit"), '{"code": "1", "dependencies": ["numpy", "pandas>=2"]}')
    presets.save(presets.path_of("bad"), '{"code": "[/nope]"')
    presets.save(presets.path_of("old"), '{"pythonCode": "1", "dependencies": "six"}')
    run = filled(lambda _: None, "pandas>=2", "f4")
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_the_first_start(
    snap_compare: Compare,
    app: StokeApp,
    backends: dict[str, FakeBackend],
    desk: Desk,
    size: tuple[int, int],
) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shows("somewhere else", "f2"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # A path that is the same wherever the tests run.
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "demo"
    write(
        folder,
        {
            "stoke.toml": "",
            "train.py": "import model\n\nmodel.fit()\n",
            "model.py": "def fit():\n    pass\n",
            "data/in.csv": "1,2\n" * 500,
            ".env": "TOKEN=1\n",
            "node_modules/x/y.js": "",
        },
    )
    return folder


def with_project(project: Path, wanted: str, *keys: str) -> Any:
    """Opens the script of the project, and shows its files with f7."""

    async def run(pilot: Pilot[Any]) -> None:
        await shows("nothing to build", "2")(pilot)
        screen, app = pilot.app.screen, pilot.app
        assert isinstance(screen, NewJobScreen) and isinstance(app, StokeApp)
        screen._open(project / "train.py")
        await until(pilot, lambda: field(screen, "folder").text)
        # The field has the whole path, which differs from machine to machine.
        field(screen, "folder").text = "~/demo"
        screen._script = str(project / "train.py")
        await until(pilot, lambda: "left out" in str(screen.query_one(FilesLine).render()))
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
        await until(pilot, lambda: wanted in said(app), wanted)
        await still(pilot)

    return run


@SIZES
def test_a_project(
    snap_compare: Compare, app: StokeApp, desk: Desk, project: Path, size: tuple[int, int]
) -> None:
    run = with_project(project, "looks like a secret")
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_the_files_of_a_project(
    snap_compare: Compare, app: StokeApp, desk: Desk, project: Path, size: tuple[int, int]
) -> None:
    run = with_project(project, "is made by a tool", "f7", "G")
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_hostile_names_in_a_project_that_is_too_large(
    snap_compare: Compare,
    desk: Desk,
    backends: dict[str, FakeBackend],
    project: Path,
    size: tuple[int, int],
) -> None:
    with (project / ALL.replace("/", "-")[:120]).open("wb") as file:
        file.truncate(5 * 1024**2)
    (project / "a\nb").mkdir()
    app = StokeApp(Config(project=ProjectConfig(max_size=4 * 1024**2)), clock=lambda: NOW)
    run = with_project(project, "the limit is 4.0 MiB", "f7")
    assert snap_compare(app, terminal_size=size, run_before=run)
