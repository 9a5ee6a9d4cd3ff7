"""Snapshots of Caches and Metrics. After an intended change: pytest tests/tui/test_caches_snapshots.py
--snapshot-update"""

from __future__ import annotations

from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from stoke.backend.api import Volume
from stoke.backend.capabilities import Workspace
from stoke.cache.metrics import CacheFigures, Metrics, Point, PredictionFigures
from stoke.errors import EngineError
from stoke.history.cache_runs import PackageUse
from stoke.history.database import CacheSize
from stoke.history.workspace_index import WorkspaceIndex
from tests.tui.conftest import NOW, Desk, FakeBackend, screen_text, until
from tests.tui.test_snapshots import Compare, shows, still
from tui.app import StokeApp
from tui.metrics.bars import Bars

SIZES = pytest.mark.parametrize(
    "size", [(80, 24), (120, 40), (200, 60)], ids=["80x24", "120x40", "200x60"]
)
HOSTILE = "[/nope]\x1b]0;PWN\x1b\\\u202e日本[@click=app.quit]x"
DAY = 86400.0


@pytest.fixture
def held(desk: Desk, backends: dict[str, FakeBackend]) -> dict[str, FakeBackend]:
    """Four volumes: one is in use, one was never measured."""
    backends["local"].held = [
        Volume("local", "default", "python", "stoke-default-python"),
        Volume("local", "team-a", "python", "stoke-team-a-python", in_use_by=("fit-model-aaaaaa",)),
    ]
    backends["local"].measured = {"stoke-default-python": (3 * 10**9, 4)}
    backends["local"].packages = ["numpy==2.4.0", "pandas==2.9.1", "six==1.17.0"]
    backends["docker"].held = [
        Volume("docker", "default", kind, f"stoke-default-{kind}") for kind in ("python", "system")
    ]
    for day in range(20):
        size = (2 + day % 5 + day / 4) * 10**8
        for backend, kind in (("docker", "python"), ("docker", "system"), ("local", "python")):
            when = NOW - (20 - day) * DAY
            row = CacheSize(backend, None, "default", kind, when, int(size), 10 + day)
            desk.history.add_cache_size(row)
    return backends


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces figures of the history, which depend on the clock of the machine."""
    rows = (
        CacheFigures("docker", "default", "python", 120, 104, 0.87, 12.4, 0.002, 1289.5, 5 * 10**9),
        CacheFigures("docker", "default", "system", 25, 20, 0.8, 38.0, 0.001, 760.0, 3 * 10**9),
        CacheFigures("local", "default", "python", 48, 24, 0.5, 7.5, 0.002, 180.0, None),
        CacheFigures("local", "team-a", "python", 3, 0, 0.0, 5.5, None, None, None),
    )  # fmt: skip
    over_time = {
        (one.backend, one.scope, one.kind): tuple(
            Point(NOW - (24 - hour) * DAY, 5, min(5, hour * (one.hits > 20) // 4))
            for hour in range(24)
        )
        for one in rows
    }
    names = ("numpy", "pandas", "scikit-learn", "torch", "gcc", "polars", "requests", "pydantic")
    packages = tuple(
        PackageUse(name, "system" if name == "gcc" else "python", 100 - 9 * number)
        for number, name in enumerate(names)
    )
    made = Metrics(None, rows, over_time, (), packages, PredictionFigures(196, 190, 190 / 196))
    monkeypatch.setattr("tui.metrics.cache_figures.read_metrics", lambda *_, **__: made)


@SIZES
def test_caches_empty(
    snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shows("No caches yet", "3"))


@SIZES
def test_caches(
    snap_compare: Compare,
    app: StokeApp,
    held: dict[str, FakeBackend],
    figures: None,
    size: tuple[int, int],
) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shows("hit rate  python 87%", "3"))


@SIZES
def test_caches_at_work(
    snap_compare: Compare,
    app: StokeApp,
    held: dict[str, FakeBackend],
    figures: None,
    size: tuple[int, int],
) -> None:
    held["local"].at_work = True
    keys = ("3", "G", "m")
    run = shows("measured 1,200 of 3,000", *keys)
    assert snap_compare(app, terminal_size=size, run_before=run)
    held["local"].at_work = False


@SIZES
def test_caches_with_an_engine_down(
    snap_compare: Compare,
    app: StokeApp,
    held: dict[str, FakeBackend],
    figures: None,
    size: tuple[int, int],
) -> None:
    held["docker"].down = EngineError("no Docker engine answers", "start it: dockerd")
    assert snap_compare(app, terminal_size=size, run_before=shows("no Docker engine answers", "3"))


@SIZES
def test_caches_with_hostile_names(
    snap_compare: Compare, app: StokeApp, held: dict[str, FakeBackend], size: tuple[int, int]
) -> None:
    held["local"].held = [Volume("local", HOSTILE, HOSTILE, HOSTILE, None, 1, NOW, 1, (HOSTILE,))]
    held["docker"].down = EngineError(HOSTILE, HOSTILE)
    assert snap_compare(app, terminal_size=size, run_before=shows("[/nope]", "3"))


@SIZES
def test_environments(
    snap_compare: Compare, app: StokeApp, held: dict[str, FakeBackend], size: tuple[int, int]
) -> None:
    held["docker"].held = []
    run = shows("in 4 environments", "3", "enter")
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_clear_asks(
    snap_compare: Compare, app: StokeApp, held: dict[str, FakeBackend], size: tuple[int, int]
) -> None:
    held["docker"].held = []
    run = shows("in 4 entries", "3", "d")
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_prune_lists_the_dry_run(
    snap_compare: Compare, app: StokeApp, held: dict[str, FakeBackend], size: tuple[int, int]
) -> None:
    held["docker"].held = []

    async def run(pilot: Pilot[Any]) -> None:
        await shows("Dry run", "3", "p")(pilot)
        app.screen.query_one("#prune-size", Input).value = "1g"
        await pilot.press("enter")
        await until(pilot, lambda: "4 environments" in screen_text(app))
        await still(pilot)

    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_warm_asks(
    snap_compare: Compare, app: StokeApp, held: dict[str, FakeBackend], size: tuple[int, int]
) -> None:
    held["docker"].held = []
    run = shows("Warm default on local", "3", "W")
    assert snap_compare(app, terminal_size=size, run_before=run)


@SIZES
def test_metrics_empty(
    snap_compare: Compare, app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shows("No figures yet", "4"))


@SIZES
def test_metrics(
    snap_compare: Compare,
    app: StokeApp,
    held: dict[str, FakeBackend],
    figures: None,
    size: tuple[int, int],
) -> None:
    assert snap_compare(app, terminal_size=size, run_before=shows("97% of", "4"))


@SIZES
def test_metrics_failed(
    snap_compare: Compare,
    app: StokeApp,
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise EngineError("the history is damaged (file is not a database)", f"mv {HOSTILE} aside")

    monkeypatch.setattr("tui.metrics.cache_figures.read_metrics", broken)
    assert snap_compare(app, terminal_size=size, run_before=shows("history is damaged", "4"))


@SIZES
def test_metrics_with_hostile_names(
    snap_compare: Compare,
    app: StokeApp,
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
) -> None:
    row = CacheFigures("local", HOSTILE, "python", 9, 8, 8 / 9, 3.0, 0.1, 10.0, 10**6)
    use = PackageUse(HOSTILE, "python", 9)
    made = Metrics(None, (row,), {}, (), (use,), PredictionFigures(0, 0, None))
    monkeypatch.setattr("tui.metrics.cache_figures.read_metrics", lambda *_, **__: made)

    async def run(pilot: Pilot[Any]) -> None:
        await shows("[/nope]", "4")(pilot)
        await until(pilot, lambda: app.screen.query(Bars))

    assert snap_compare(app, terminal_size=size, run_before=run)


class WithWorkspaces(FakeBackend):
    """A backend that has workspaces."""

    there: tuple[Workspace, ...] = ()

    def workspaces(self) -> list[Workspace]:
        return list(self.there)

    def check_workspace(self, spec: object) -> None: ...

    def tend_workspace(self, workspace: Workspace, operation: object, progress: object) -> Any:
        return {"bytes": 3 * 10**9, "files": 12_345, "measured_at": NOW - 7200}

    def read_workspace(self, workspace: Workspace, path: str, name: str) -> Any: ...

    def write_workspace(self, workspace: Workspace, folder: str, archive: object) -> Any: ...

    def clone_workspace(self, workspace: Workspace, new: str, progress: object) -> Any: ...

    def remove_workspace(self, workspace: Workspace) -> None: ...


@pytest.fixture
def workspaces(desk: Desk, backends: dict[str, FakeBackend]) -> None:
    docker = backends["docker"]
    docker.__class__ = WithWorkspaces
    assert isinstance(docker, WithWorkspaces)
    docker.there = (
        Workspace("docker", "ada", "stoke-workspace.ada", "default", created_at=NOW - 3 * DAY),
        Workspace(
            "docker", "grace.hopper_2026-11", "stoke-workspace.grace.hopper_2026-11", "team-a",
            created_at=NOW - 90 * DAY, in_use_by=("fit-model-aaaaaa", "fit-model-bbbbbb"),
        ),
        Workspace("docker", HOSTILE, HOSTILE, HOSTILE, node=HOSTILE, in_use_by=(HOSTILE,)),
    )  # fmt: skip
    index = WorkspaceIndex(desk.history)
    index.record_size("docker", "ada", NOW - 7200, 3 * 10**9, 12_345)
    index.record_use("docker", "ada", NOW - 3600)


async def selected(pilot: Pilot[Any]) -> None:
    await shows("2.8 GiB", "3", "V")(pilot)
    await pilot.press("down")
    app = pilot.app
    assert isinstance(app, StokeApp)
    await until(pilot, lambda: "measured 2h ago" in screen_text(app))
    await still(pilot)


@SIZES
def test_workspaces(
    snap_compare: Compare, app: StokeApp, workspaces: None, size: tuple[int, int]
) -> None:
    assert snap_compare(app, terminal_size=size, run_before=selected)


@pytest.mark.parametrize("key", ["Y", "u", "d"])
def test_questions_of_workspaces(
    snap_compare: Compare, app: StokeApp, workspaces: None, key: str
) -> None:
    async def run(pilot: Pilot[Any]) -> None:
        await selected(pilot)
        await pilot.press(key)
        asked = {"Y": "name of the copy", "u": "path in it", "d": "in 12,345 files"}[key]
        await until(pilot, lambda: asked in screen_text(app))
        for one in app.screen.query("#line-0").results(Input):
            one.value = "somewhere"
            await pilot.press("end")  # Nothing stays selected.
        await still(pilot)

    assert snap_compare(app, terminal_size=(80, 24), run_before=run)
