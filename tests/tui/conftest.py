"""Screens over a prepared history and spool, with backends that tests control and a still clock."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet
from textual.pilot import Pilot

from stoke.backend.api import (
    Capabilities,
    CheckResult,
    Delivery,
    EngineState,
    EngineStatus,
    FoundJob,
    Frame,
    PhaseReport,
    Volume,
)
from stoke.config.model import Config, QueueConfig
from stoke.errors import EngineError
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState, Phase
from stoke.logs.spool import STDOUT, SpoolWriter
from stoke.request.spec import JobSpec
from tui import ui_state
from tui.app import StokeApp

NOW = 1_790_000_000.0
"""The still clock, in epoch seconds."""

WAIT_SECONDS = 20.0


@pytest.fixture(autouse=True)
def no_tmux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep copied text out of the tmux session in which the tests run."""
    monkeypatch.delenv("TMUX", raising=False)


@pytest.fixture(autouse=True)
def not_the_first_start(own_home: Path) -> None:
    """Skip the introduction of the first start."""
    ui_state.save("screens", {"welcomed": True})


@pytest.fixture(autouse=True, scope="session")
def sheets_are_parsed_once() -> Iterator[None]:
    """Parse each style sheet once: parsing is half of the start of an app, and each test starts one."""
    parsed: dict[Any, list[RuleSet]] = {}
    parse = Stylesheet._parse_rules

    def parse_once(sheet: Stylesheet, *source: Any, **more: Any) -> list[RuleSet]:
        key = (tuple(sheet._variables.items()), source, tuple(more.items()))
        if key not in parsed:
            parsed[key] = parse(sheet, *source, **more)
        return parsed[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stylesheet, "_parse_rules", parse_once)
        yield


async def until(
    pilot: Pilot[Any], true: Callable[[], object], what: str = "", seconds: float = WAIT_SECONDS
) -> None:
    """Wait until `true()` holds; fail after a deadline."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"never came true: {what or true}"
        await pilot.pause(0.02)


class FakeStream:
    """An open log without output; it ends when `goes_on` says no more."""

    def __init__(self, goes_on: Callable[[], bool]) -> None:
        self.closed = False
        self._goes_on = goes_on

    def __iter__(self) -> Iterator[list[Frame]]:
        while not self.closed and self._goes_on():
            time.sleep(0.02)
            yield []

    def close(self) -> None:
        self.closed = True


PLAIN = Capabilities(
    images=False, limits=False, system_packages=False, counts_bytes=True, isolation="none"
)


@dataclass
class FakeBackend:
    """A backend whose jobs run until a test ends them; `down` makes every call fail."""

    name: str
    capabilities: Capabilities = PLAIN
    down: EngineError | None = None
    states: dict[str, EngineState] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    held: list[Volume] = field(default_factory=list)
    measured: dict[str, tuple[int, int]] = field(default_factory=dict)
    packages: list[str] = field(default_factory=list)
    """In every environment."""
    at_work: bool = False
    """Housekeeping runs while this is set."""
    hesitates: bool = False
    """`submit` blocks while this is set."""

    def _answer(self) -> None:
        if self.down is not None:
            raise self.down

    def submit(self, delivery: Delivery, report: PhaseReport) -> None:
        while self.hesitates:
            time.sleep(0.02)
        self._answer()
        report("start", time.time(), 0.01)
        self.deliveries.append(delivery)
        self.states[delivery.job_id] = EngineState(EngineStatus.RUNNING)

    def inspect(self, job_id: str) -> EngineState:
        self._answer()
        return self.states.get(job_id, EngineState(EngineStatus.ABSENT))

    def logs(self, job_id: str, since: int, follow: bool) -> FakeStream:
        self._answer()
        return FakeStream(lambda: follow and self.inspect(job_id).status == "running")

    def stop(self, job_id: str, grace: float) -> None:
        self._answer()
        self.stopped.append(job_id)

    def remove(self, job_id: str) -> None:
        self._answer()
        self.removed.append(job_id)

    def jobs(self) -> list[FoundJob]:
        self._answer()
        return []

    def volumes(self) -> list[Volume]:
        self._answer()
        return list(self.held)

    def housekeep(
        self, volume: Volume, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        self._answer()
        while self.at_work:
            progress("measured 1,200 of 3,000")
            time.sleep(0.02)
        size, entries = self.measured[volume.name]
        if operation["do"] == "usage":
            row = {
                "bytes": 1,
                "reclaimable": 1,
                "built_at": NOW,
                "last_used": NOW,
                "uses": 1,
                "busy": False,
            }
            rows = [
                {**row, "key": str(number), "packages": self.packages} for number in range(entries)
            ]
            result: dict[str, Any] = {
                "bytes": size,
                "uv_bytes": 0,
                "garbage": 0,
                "measured_at": NOW,
            }
            return {**result, "environments": rows, "requests": {}}
        pruned = {
            "bytes": size, "left": 0, "entries": 0, "environments": [], "packages": [], "busy": [],
            "trouble": None,
        }  # fmt: skip
        if operation["do"] == "prune":
            keys = [str(number) * 32 for number in range(entries)]
            return {**pruned, "environments": keys, "packages": self.packages}
        progress("environments")
        self.cleared.append(volume.name)
        self.held = [one for one in self.held if one.name != volume.name]
        return pruned

    def check(self) -> list[CheckResult]:
        return []

    def close(self) -> None:
        pass


class _Point:
    def __init__(self, backend: FakeBackend) -> None:
        self.name = backend.name
        self._backend = backend

    def load(self) -> Callable[[Config], FakeBackend]:
        return lambda _: self._backend


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeBackend]:
    """Two backends in the registry, in place of ours."""
    made = {
        "local": FakeBackend("local"),
        "docker": FakeBackend(
            "docker",
            Capabilities(
                images=True,
                limits=True,
                system_packages=True,
                counts_bytes=True,
                isolation="a container with no capabilities",
            ),
        ),
    }
    points = [_Point(backend) for backend in made.values()]
    monkeypatch.setattr("stoke.backend.registry._entry_points", lambda *_: points)
    return made


@dataclass
class Desk:
    """Fills the history and the spool before the screens open."""

    history: History
    backends: dict[str, FakeBackend]
    locks: list[int] = field(default_factory=list)

    def job(
        self,
        job_id: str,
        state: JobState = JobState.SUCCEEDED,
        *,
        age: float = 3600,
        name: str = "job",
        backend: str = "local",
        log: bytes = b"",
        hit: bool | None = None,
        spec: dict[str, Any] | None = None,
        **columns: Any,
    ) -> Job:
        begun = NOW - age
        job = Job(job_id, name, backend, "default", JobState.QUEUED, begun)
        job.request_hash = columns.pop("request_hash", None)
        made = JobSpec.model_validate({"code": "print(1)\n", **(spec or {})})
        self.history.add(job, made.model_dump_json(), "0" * 16)
        if hit is not None:
            self.history.set_phase(job_id, Phase("start", begun, 0.4))
            self.history.set_phase(job_id, Phase("lock", begun + 0.4, 0.002, True, 41, 41, 0))
            self.history.set_phase(
                job_id,
                Phase("python", begun + 0.402, 0.001 if hit else 5.2, hit, 41, 41 if hit else 2,
                      0 if hit else 48_300_000),
            )  # fmt: skip
            self.history.set_phase(job_id, Phase("run", begun + 5.7, 3.1))
        self.spool(job_id, log)
        if state.finished:
            columns.setdefault("finished_at", begun + 8.8)
            columns.setdefault("log_bytes", len(log))
            columns.setdefault("log_lines", log.count(b"\n"))
        else:
            # Another program follows it, so the spool is not changed.
            self.backends[backend].states.setdefault(job_id, EngineState(EngineStatus.RUNNING))
            lock = os.open(job_dir(job_id) / "follow.lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.locks.append(lock)
        self.history.update(job_id, state=state, **columns)
        found = self.history.get(job_id)
        assert found is not None
        return found

    def let_go(self) -> None:
        """End the other program that follows the unfinished jobs."""
        while self.locks:
            os.close(self.locks.pop())

    def spool(self, job_id: str, log: bytes, stream: int = STDOUT) -> None:
        writer = SpoolWriter(job_dir(job_id))
        writer.add(stream, int(NOW * 1e9), log)
        writer.close()

    def raw(self, job_id: str, sql: str, *values: Any) -> None:
        """Write into the history what a `JobSpec` would reject."""
        self.history.query(sql, (*values, job_id))

    def stored_spec(self, job_id: str, fields: dict[str, Any]) -> None:
        self.raw(job_id, "UPDATE jobs SET spec = ? WHERE id = ?", json.dumps(fields))


@pytest.fixture
def desk(backends: dict[str, FakeBackend]) -> Iterator[Desk]:
    history = History()
    made = Desk(history, backends)
    yield made
    made.let_go()
    history.close()


@pytest.fixture
def app(backends: dict[str, FakeBackend]) -> StokeApp:
    # More slots than a small machine has, so that no job of a test waits for its turn.
    return StokeApp(Config(queue=QueueConfig(slots=20)), clock=lambda: NOW)


def screen_text(app: StokeApp) -> str:
    """Return what is on the terminal now, line by line."""
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line) for line in lines)


def shows_all(app: StokeApp, *texts: str) -> bool:
    """Whether one frame shows all of the texts."""
    shown = screen_text(app)
    return all(text in shown for text in texts)


def shows(app: StokeApp, present: str, *, without: str) -> bool:
    """Whether the terminal shows one text and not another.

    A text is also absent from a frame that is not drawn yet, so its absence alone proves nothing.
    """
    text = screen_text(app)
    return present in text and without not in text


def said(app: StokeApp) -> str:
    """Return the words on the terminal, joined where a border or a notification breaks a line."""
    return " ".join(screen_text(app).translate(dict.fromkeys(map(ord, "│▌╭╮╰╯─"), " ")).split())


class Frames:
    """Counts what the app draws."""

    def __init__(self, app: StokeApp, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._last = time.monotonic()
        self._draw = app._display
        monkeypatch.setattr(app, "_display", self._drawn)

    def _drawn(self, *what: Any) -> None:
        self.count += 1
        self._last = time.monotonic()
        self._draw(*what)

    def have_ceased(self) -> bool:
        return time.monotonic() - self._last > 0.5
