"""Race: both runs on the local backend, stopping, failures, recordings and replay."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from stoke.backend.api import EngineState, EngineStatus
from stoke.cache.scopes import is_ephemeral
from stoke.config.defaults import with_changes
from stoke.config.model import Config
from stoke.errors import EngineError
from stoke.history.job import Job, JobState, Phase
from stoke.race.earlier import earlier_races
from stoke.race.recording import Recording, read_recording, run_of
from tests.package_index import PackageIndex
from tests.tui.conftest import NOW, Desk, FakeBackend, said, screen_text, shows, shows_all, until
from tools.screenshots import race_result
from tui.app import StokeApp
from tui.dialogs.prompts import Confirm
from tui.new_job.form_field import FormField
from tui.race.lists import JobsToRace
from tui.race.open_recording import OpenRecording
from tui.race.screen import RaceScreen

COLD_FAILED = ("the cold run failed: exit code 7", "[b]so far", "Warm, not started")
FOREVER = "import time\nwhile True: time.sleep(0.05)"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    served = PackageIndex("127.0.0.1")
    served.add("alpha", "1.0")
    monkeypatch.setenv("STOKE_INDEX__URL", served.url)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    yield served
    served.stop()


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a temporary folder the current one, into which races are saved."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def finished(job_id: str, scope: str, *phases: Phase) -> Job:
    end = max(phase.started_at + (phase.seconds or 0) for phase in phases)
    return Job(job_id, "fit", "docker", scope, JobState.SUCCEEDED, 0.0, phases=list(phases),
               finished_at=end, exit_code=0)  # fmt: skip


def recorded(name: str = "fit", packages: list[str] | None = None, **more: Any) -> Recording:
    """A race on Docker, 6.2 s against 0.5 s."""
    cold = finished(
        "fit-aaaaaa", "ephemeral-00000000",
        Phase("start", 0.0, 0.4),
        Phase("lock", 0.5, 0.9, False, 41, None, 6_600_000),
        Phase("python", 1.4, 4.8, False, 41, 0, 48_300_000),
        Phase("run", 6.2, 2.1, bytes=240),
    )  # fmt: skip
    warm = finished(
        "fit-bbbbbb", "default",
        Phase("start", 0.0, 0.4),
        Phase("lock", 0.497, 0.002, True, 41, None, 0),
        Phase("python", 0.499, 0.001, True, 41, 41, 0),
        Phase("run", 0.5, 1.2, bytes=240),
    )  # fmt: skip
    return Recording(
        name=name, backend="docker", scope="default", packages=packages or ["numpy", "pandas"],
        raced_at=NOW, cold=run_of(cold), warm=run_of(warm), **more,
    )  # fmt: skip


async def raced(pilot: Pilot[Any], app: StokeApp, code: str, packages: str = "alpha") -> None:
    """Fill the form of New job and press its key for a race."""
    await pilot.press("2")
    await until(pilot, lambda: app.screen.query("#code"))
    app.screen.query_one("#code", TextArea).load_text(code)
    app.screen.query_one("#field-dependencies", FormField).text = packages
    await pilot.press("ctrl+t")


def left(home: Path, app: StokeApp) -> list[str]:
    folders = (home / "state/ephemeral", home / "cache/scopes")
    found = [str(path) for folder in folders for path in folder.glob("ephemeral-*")]
    return found + [job.id for job in app.context.history.list() if is_ephemeral(job.scope)]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_a_race_from_the_form_to_its_files(
    index: PackageIndex, own_home: Path, in_a_folder: Path, size: tuple[int, int]
) -> None:
    app = StokeApp(Config.model_validate({"index": {"url": index.url}}))
    async with app.run_test(size=size, notifications=True) as pilot:
        await raced(pilot, app, "print('ran')")
        await until(pilot, lambda: isinstance(app.screen, RaceScreen))
        await until(pilot, lambda: "Cold, with nothing cached" in screen_text(app))
        await until(pilot, lambda: race_result(app))
        assert race_result(app).endswith("x")
        await until(pilot, lambda: shows_all(app, "x faster", "MISS", "HIT", "code started"))
        assert left(own_home, app) == []
        await pilot.press("S")
        await until(pilot, lambda: len(list(in_a_folder.iterdir())) == 2)
        recording, picture = sorted(in_a_folder.iterdir())
        assert read_recording(recording).packages == ["alpha"]
        assert picture.read_text().startswith("<svg") and "font-face" not in picture.read_text()
        # A second race, with warm caches.
        await pilot.press("r")
        await until(pilot, lambda: len(earlier_races()) == 2)
        await until(pilot, lambda: "x faster" in screen_text(app))
        assert "Filling the caches" not in screen_text(app)
    assert left(own_home, app) == []


async def test_a_race_from_a_job_and_from_the_lists(index: PackageIndex, own_home: Path) -> None:
    app = StokeApp(Config.model_validate({"index": {"url": index.url}}))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await raced(pilot, app, "raise SystemExit(3)")
        await until(pilot, lambda: "the cold run failed" in screen_text(app))
        assert earlier_races() == []
        await pilot.press("escape")
        await until(pilot, lambda: shows(app, "Earlier races", without="the cold run failed"))
        await raced(pilot, app, "print('out', 'put')")
        await until(pilot, lambda: screen_text(app).count("out put") == 2)
        await until(pilot, lambda: len(earlier_races()) == 1)
        # The warm run is a job like others.
        await pilot.press("1")
        await until(pilot, lambda: app.current_mode == "jobs" and "✓ succeeded" in screen_text(app))
        await pilot.press("ctrl+t")
        await until(pilot, lambda: len(earlier_races()) == 2)
        await until(pilot, lambda: race_result(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.focused, JobsToRace))
        await pilot.press("enter")
        await until(pilot, lambda: len(earlier_races()) == 3)
        await until(pilot, lambda: race_result(app))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.focused, JobsToRace))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "Replay of both" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: "Earlier races" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.current_mode == "jobs")
    assert left(own_home, app) == []


async def test_the_files_of_a_race_have_no_secret(
    in_a_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = PackageIndex("127.0.0.1", "ada:correct horse")
    index.add("alpha", "1.0")
    (tmp_path / "token").write_text("from-a-file")
    monkeypatch.setenv("TOKEN", "from-a-variable")
    monkeypatch.setenv("LOGIN", "ada:correct horse")
    app = StokeApp(Config.model_validate({"index": {"url": index.url, "credentials": "env:LOGIN"}}))
    code = "import alpha, os; print(os.environ['A'], os.environ['B'])"
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: app.screen.query("#field-secrets"))
        secrets = f"A=env:TOKEN\nB=file:{tmp_path / 'token'}"
        app.screen.query_one("#field-secrets", FormField).text = secrets
        await raced(pilot, app, code)
        await until(pilot, lambda: "x faster" in screen_text(app))
        await pilot.press("S")
        await until(pilot, lambda: len(list(in_a_folder.iterdir())) == 2)
    index.stop()
    for file in in_a_folder.iterdir():
        text = file.read_text()
        assert "alpha" in text
        for secret in ("from-a-file", "from-a-variable", "correct", "horse"):
            assert secret not in text, file.name


async def test_stopping_a_race_asks_first(index: PackageIndex, own_home: Path) -> None:
    app = StokeApp(Config.model_validate({"index": {"url": index.url}}))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await raced(pilot, app, FOREVER)
        await until(
            pilot, lambda: any(job.state == "running" for job in app.context.history.list())
        )
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")  # Cancel has the focus.
        await until(pilot, lambda: isinstance(app.screen, RaceScreen))
        assert left(own_home, app) != []
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "Race stopped" in screen_text(app))
        assert left(own_home, app) == []


async def test_a_second_race_is_refused_until_the_first_is_stopped(index: PackageIndex) -> None:
    app = StokeApp(Config.model_validate({"index": {"url": index.url}}))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await raced(pilot, app, FOREVER)
        await until(
            pilot, lambda: any(job.state == "running" for job in app.context.history.list())
        )
        race = app.screen
        assert isinstance(race, RaceScreen) and race._request is not None
        backend, request = race._request
        race.race(backend, request)
        await until(pilot, lambda: "wait for it, or stop it first" in said(app))
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "Race stopped" in screen_text(app))
        race.race(backend, replace(request, spec=with_changes(request.spec, code="print(1)")))
        await until(pilot, lambda: "x faster" in screen_text(app))


async def test_quitting_during_a_race_removes_the_cold_run(
    index: PackageIndex, own_home: Path
) -> None:
    first = StokeApp(Config.model_validate({"index": {"url": index.url}}))
    async with first.run_test(size=(80, 24)) as pilot:
        await raced(pilot, first, FOREVER)
        await until(
            pilot, lambda: any(job.state == "running" for job in first.context.history.list())
        )
        race = first.screen
        assert isinstance(race, RaceScreen)
    # The process of the tests continues, so the test ends the race.
    assert race._race is not None
    race._race.stop(0)
    second = StokeApp(Config())
    async with second.run_test(size=(80, 24)) as pilot:
        jobs = second.get_screen_stack("jobs")[0]
        await until(pilot, lambda: jobs.query("#log-view"), "the deferred widgets")
        await until(pilot, lambda: left(own_home, second) == [])


async def test_a_failed_run_shows_the_reason_and_its_output(
    index: PackageIndex, own_home: Path
) -> None:
    app = StokeApp(Config.model_validate({"index": {"url": index.url}}))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await raced(pilot, app, "print('[b]so far\\x1b]0;PWN\\x07'); raise SystemExit(7)")
        await until(
            pilot,
            lambda: shows_all(
                app, "the cold run failed: exit code 7", "[b]so far", "Warm, not started"
            ),
        )
        assert left(own_home, app) == []


async def test_the_form_shows_why_a_request_cannot_be_raced(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await raced(pilot, app, "print(1)", packages="")
        await until(pilot, lambda: "a race needs packages" in said(app))
        assert app.current_mode == "new"


async def test_an_unreachable_engine_is_reported_with_its_hint(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    backends["local"].down = EngineError("the engine is gone", "bring it back")
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await raced(pilot, app, "print(1)")
        await until(pilot, lambda: shows_all(app, "the engine is gone", "bring it back"))


async def test_a_backend_that_cannot_throw_scopes_away_is_raced_without_a_cache(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend]
) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await raced(pilot, app, "print(1)")
        await until(pilot, lambda: backends["local"].deliveries)
        (delivery,) = backends["local"].deliveries
        assert not delivery.spec.use_cache and is_ephemeral(delivery.spec.scope)
        app.context.history.update(delivery.job_id, started_at=time.time())
        backends["local"].states[delivery.job_id] = EngineState(EngineStatus.EXITED, 3)
        await until(pilot, lambda: "the cold run failed: exit code 3" in screen_text(app))


async def test_a_recording_is_opened_and_replayed(
    desk: Desk, in_a_folder: Path, tmp_path: Path
) -> None:
    now = [NOW]
    app = StokeApp(Config(), clock=lambda: now[0])
    (in_a_folder / "race-fit-1.json").write_text(recorded().model_dump_json())
    (in_a_folder / "other.json").write_text(json.dumps({"format": "none"}))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("5")
        await until(pilot, lambda: "A race runs a request twice" in screen_text(app))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, OpenRecording))
        file = app.screen.query_one(Input)
        assert file.value == "race-fit-1.json"
        file.value = "other.json"
        await pilot.press("enter")
        await until(pilot, lambda: "is not a recording of a race" in said(app))
        file.value = "race-fit-1.json"
        await pilot.press("enter")
        await until(pilot, lambda: "Replay of both" in screen_text(app))
        now[0] += 1.0
        await until(pilot, lambda: shows(app, "HIT", without="MISS"))
        now[0] += 3.0
        await until(pilot, lambda: "MISS" in screen_text(app))
        assert "x faster" not in screen_text(app)
        now[0] += 60.0
        await until(pilot, lambda: shows_all(app, "12x faster", "52.4 MiB"))
        await pilot.press("R")
        await until(pilot, lambda: "Replay of both" in screen_text(app))


async def test_read_only_races_nothing_and_still_replays(desk: Desk, in_a_folder: Path) -> None:
    (in_a_folder / "race-fit-1.json").write_text(recorded().model_dump_json())
    app = StokeApp(Config(read_only=True))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await raced(pilot, app, "print(1)")
        assert app.current_mode == "new"
        await pilot.press("escape")
        await until(pilot, lambda: app.focused is None or app.focused.id != "code")
        app.action_switch("race")
        await until(pilot, lambda: isinstance(app.screen, RaceScreen))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, OpenRecording))
        await pilot.press("enter")
        await until(pilot, lambda: "Replay of both" in screen_text(app))
