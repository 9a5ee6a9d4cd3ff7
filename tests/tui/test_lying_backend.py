"""Backends that violate the protocol: no screen fails, and errors name the backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stoke.backend.api import EngineState, EngineStatus, FoundJob, Frame, Volume
from stoke.history.job import JobState
from tests.tui.conftest import Desk, FakeBackend, said, shows, until
from tui.app import StokeApp


def raises(*_: object) -> Any:
    raise ValueError("neither here nor there")


def nothing(*_: object) -> None:
    return None


class Junk:
    """A log stream whose items are not valid frames."""

    def __iter__(self) -> Any:
        yield ["no frame"]
        yield [Frame(7, -5, b"of no stream\n")]

    def close(self) -> None:
        pass


def flips() -> Callable[[str], EngineState]:
    """Report another state at each call."""
    said = [
        EngineState(EngineStatus.EXITED, 0),
        EngineState(EngineStatus.RUNNING),
        EngineState(EngineStatus.ABSENT),
        EngineState(EngineStatus.EXITED, 3),
        EngineState("dancing"),  # type: ignore[arg-type]
    ]

    def inspect(_: str) -> EngineState:
        said.append(said.pop(0))
        return said[-1]

    return inspect


def volumes() -> list[Volume]:
    return [Volume("local", "default", "python", "stoke-default-python", None, -5, -1.0, -2)]


LIES: dict[str, dict[str, Callable[..., Any]]] = {
    "it raises": {
        "inspect": raises,
        "logs": raises,
        "jobs": raises,
        "volumes": raises,
        "housekeep": raises,
        "stop": raises,
    },
    "it answers with nothing": {
        "inspect": nothing,
        "logs": nothing,
        "jobs": nothing,
        "volumes": nothing,
        "housekeep": nothing,
    },
    "it changes its mind": {"inspect": flips()},
    "its log is junk": {"logs": lambda *_: Junk()},
    "its figures are none": {
        "volumes": volumes,
        "housekeep": lambda *_: {"bytes": "many", "environments": None},
        "jobs": lambda *_: [FoundJob("", "", -1.0)],
    },
}


# A thread that ends with an exception would write over the screen.
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("lie", LIES)
async def test_no_screen_fails_with_a_broken_backend(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend], lie: str
) -> None:
    desk.job("running-aaaaaa", JobState.RUNNING)
    desk.let_go()
    for name, does in LIES[lie].items():
        setattr(backends["local"], name, does)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: app.context.snapshot.jobs)
        # Each key with a text that shows that it has had its effect.
        for key, shown in (
            ("s", ""),  # Offered only while the backend calls the job unfinished.
            ("escape", "Log Phases Spec"),
            ("enter", "Spec"),
            ("escape", "Log Phases Spec"),
            ("3", "share a scope"),
        ):
            await pilot.press(key)
            await until(pilot, lambda shown=shown: shown in said(app), shown)  # type: ignore[misc]
        await until(pilot, lambda: shows(app, "share a scope", without="Loading ..."))
        await pilot.press("m", "p")
        await pilot.press("escape", "4")
        await until(pilot, lambda: app.current_mode == "metrics")
        await pilot.press("2")
        await until(pilot, lambda: "prediction" in said(app))
        app.action_switch("jobs")
        if lie in ("it raises", "it answers with nothing"):
            await until(pilot, lambda: "local: " in said(app))
        await pilot.press("j", "question_mark", "escape")
        assert app.is_running
