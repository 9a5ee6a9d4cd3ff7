"""Caches on volumes that real jobs filled, on the local backend, with a package index of our own."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input

from stoke.backend.api import Backend
from stoke.backend.pool import Backends
from stoke.config.loader import load_config
from stoke.config.model import Config
from stoke.request.spec import IndexSettings
from tests.lab import Lab
from tests.package_index import PackageIndex
from tests.tui.conftest import said, screen_text, shows, until
from tui.app import StokeApp
from tui.caches.environments import EnvironmentsScreen
from tui.caches.prune import PruneCache
from tui.caches.screen import CachesScreen

SCOPE = "team-a"


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    served = PackageIndex("127.0.0.1")
    for name in ("alpha", "beta", "gamma"):
        served.add(name, "1.0", size=1_000_000)
    yield served
    served.stop()


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """Leave only the local backend in the registry: engines of this machine are not for tests."""
    (point,) = entry_points(group="stoke.backends", name="local")
    monkeypatch.setattr("stoke.backend.registry._entry_points", lambda *_: [point])
    backends = Backends(load_config())
    yield backends.get("local")
    backends.close()


@pytest.fixture
def lab(local: Backend, index: PackageIndex) -> Lab:
    made = Lab(local, load_config(), SCOPE, "127.0.0.1")
    made.defaults["index"]["url"] = index.url
    return made


@pytest.fixture
def real_app(lab: Lab, index: PackageIndex) -> StokeApp:
    return StokeApp(Config(scope=SCOPE, index=IndexSettings(url=index.url)))


@pytest.fixture
def folder() -> Path:
    """The volume."""
    return Path(os.environ["STOKE_CACHE_DIR"]) / "scopes" / SCOPE / "python"


@contextmanager
def other_housekeeping(folder: Path) -> Iterator[None]:
    """Hold the lock of housekeeping as another program."""
    with (folder / "housekeeping.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def take_away(folder: Path) -> None:
    """Remove the volume in one step: the app may be measuring it, which writes files into it."""
    folder.rename(folder.parents[3] / "taken-away")


def environments(folder: Path) -> list[Path]:
    return [one for one in (folder / "venvs").iterdir() if one.is_dir()]


async def opened(pilot: Pilot[Any], app: StokeApp) -> None:
    await pilot.press("3")
    await until(pilot, lambda: isinstance(app.screen, CachesScreen))
    await until(pilot, lambda: SCOPE in screen_text(app))


async def asked_to_prune(pilot: Pilot[Any], app: StokeApp, unused: str) -> None:
    """Open the dialog and wait for the result of its dry run."""
    await pilot.press("p")
    await until(pilot, lambda: isinstance(app.screen, PruneCache))
    app.screen.query_one("#prune-unused", Input).value = unused
    await pilot.pause()
    await pilot.press("enter")
    await until(pilot, lambda: app.screen.query_one("#cancel").has_focus)


async def test_enter_lists_the_environments_of_a_volume(lab: Lab, real_app: StokeApp) -> None:
    lab.run("import alpha", dependencies=["alpha"])
    lab.run("import alpha", dependencies=["alpha"])
    lab.run("import beta", dependencies=["beta", "gamma"])
    app = real_app
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("enter")
        await until(pilot, lambda: "in 2 environments" in screen_text(app))
        text = screen_text(app)
        assert "beta==1.0, gamma==1.0" in text
        # The one that frees more comes first, and its packages are listed below.
        assert text.index("beta==1.0") < text.index("alpha==1.0")
        assert "2 packages" in text
        await pilot.press("j")
        await until(pilot, lambda: "1 package" in screen_text(app))
        # The list shows that measurement.
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, CachesScreen))
        await until(pilot, lambda: shows(app, " in total", without="not measured"))


async def test_pruning_frees_what_its_dry_run_listed(
    lab: Lab, real_app: StokeApp, folder: Path
) -> None:
    lab.run("import alpha", dependencies=["alpha"])
    lab.run("import beta", dependencies=["beta"])
    app = real_app
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        await asked_to_prune(pilot, app, "0s")
        await until(pilot, lambda: "2 packages: alpha, beta" in said(app))
        assert "2 environments: " in said(app)
        assert app.screen.query_one("#cancel", Button).has_focus
        assert len(environments(folder)) == 2, "a dry run touches nothing"
        # Another limit needs another dry run.
        app.screen.query_one("#prune-unused", Input).value = "1d"
        await pilot.pause()
        assert app.screen.query_one("#go", Button).disabled
        await pilot.press("escape")
        await asked_to_prune(pilot, app, "0s")
        await until(pilot, lambda: "Frees " in screen_text(app))
        promised = screen_text(app).split("Frees ")[1].split(",")[0]
        app.screen.query_one("#go", Button).press()
        await until(pilot, lambda: f"freed {promised}" in said(app))
        assert environments(folder) == []
        await until(pilot, lambda: shows(app, SCOPE, without="esc cancels"))


async def test_pruning_waits_for_other_housekeeping_and_can_be_cancelled(
    lab: Lab, real_app: StokeApp, folder: Path
) -> None:
    lab.run("import alpha", dependencies=["alpha"])
    app = real_app
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        await asked_to_prune(pilot, app, "0s")
        with other_housekeeping(folder):
            app.screen.query_one("#go", Button).press()
            await until(pilot, lambda: "waiting for other housekeeping to end" in screen_text(app))
            # Other keys of the screen work meanwhile.
            await pilot.press("question_mark")
            await until(pilot, lambda: "Keys: Caches" in screen_text(app))
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, CachesScreen))
            await pilot.press("escape")
            await until(pilot, lambda: ": cancelled" in said(app))
        assert isinstance(app.screen, CachesScreen)
        assert len(environments(folder)) == 1
        await until(pilot, lambda: shows(app, SCOPE, without="esc cancels"))


async def test_a_volume_that_vanishes_is_reported_and_its_row_removed(
    lab: Lab, real_app: StokeApp, folder: Path
) -> None:
    lab.run("import alpha", dependencies=["alpha"])
    app = real_app
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        take_away(folder)
        await pilot.press("m")
        await until(pilot, lambda: "is not a cache of stoke" in said(app))
        await until(pilot, lambda: "No caches yet" in screen_text(app))


async def test_environments_of_a_volume_that_vanished(
    lab: Lab, real_app: StokeApp, folder: Path
) -> None:
    lab.run("import alpha", dependencies=["alpha"])
    app = real_app
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        take_away(folder)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, EnvironmentsScreen))
        await until(pilot, lambda: "is not a cache of stoke" in said(app))
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, CachesScreen))


async def test_warming_runs_a_job_that_builds_the_environment(lab: Lab, real_app: StokeApp) -> None:
    app = real_app
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "No caches yet" in screen_text(app))
        await pilot.press("W")
        await until(pilot, lambda: f"Warm {SCOPE} on local" in screen_text(app))
        await pilot.press(*"alpha, beta", "enter")
        await until(pilot, lambda: "succeeded in" in screen_text(app))
        await until(
            pilot, lambda: "2 environments" in screen_text(app) or SCOPE in screen_text(app)
        )
        (job,) = app.context.history.list()
        assert job.name == "warm" and job.scope == SCOPE
        await pilot.press("1")
        await until(pilot, lambda: job.id in screen_text(app))
    done = lab.run("import alpha, beta", dependencies=["alpha", "beta"])
    assert done.phase("python").hit is True


async def test_warming_the_most_used_and_from_a_file(
    lab: Lab, real_app: StokeApp, folder: Path, tmp_path: Path
) -> None:
    lab.run("import alpha", dependencies=["alpha"])
    shutil.rmtree(folder)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("gamma==1.0\n")
    app = real_app
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("3")
        for number, text in ((4, "3"), (1, str(requirements))):
            await pilot.press("W")
            await until(pilot, lambda: f"Warm {SCOPE} on local" in screen_text(app))
            app.screen.query_one(f"#warm-{number}", Input).value = text
            app.screen.query_one("#go", Button).press()
            await until(pilot, lambda: isinstance(app.screen, CachesScreen))
        warm = [job for job in app.context.history.list() if job.name == "warm"]

        def both() -> bool:
            warm[:] = [job for job in app.context.history.list() if job.name == "warm"]
            return len(warm) == 2 and all(job.state.finished for job in warm)

        await until(pilot, both)
        assert [job.exit_code for job in warm] == [0, 0]
    assert lab.run("import gamma", requirements="gamma==1.0\n").phase("python").hit is True
    assert lab.run("import alpha", dependencies=["alpha"]).phase("python").hit is True


async def test_the_warm_dialog_shows_why_a_request_is_refused(lab: Lab, real_app: StokeApp) -> None:
    app = real_app
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press("3", "W")
        await until(pilot, lambda: f"Warm {SCOPE} on local" in screen_text(app))
        for number, text, why in (
            (0, "", "nothing to warm"),
            (0, "./mine", "does not travel"),
            (0, "", "nothing to warm"),
            (1, "/no/such/file", "cannot be read"),
            (1, "", "nothing to warm"),
            (2, "gcc", "the local backend has no system packages"),
            (2, "", "nothing to warm"),
            (3, "debian", "nothing to warm"),
            (3, "", "nothing to warm"),
            (4, "many", "is not a number from 1 to 20"),
            (4, "3", "no job has asked for packages"),
        ):
            app.screen.query_one(f"#warm-{number}", Input).value = text
            app.screen.query_one(f"#warm-{number}", Input).focus()
            await pilot.pause()
            await pilot.press("enter")
            await until(pilot, lambda why=why: why in said(app), why)  # type: ignore[misc]
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, CachesScreen))
        assert app.context.history.list() == []
