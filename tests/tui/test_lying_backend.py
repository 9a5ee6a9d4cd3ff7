"""Backends that break their word, as somebody else's may: every screen stays, and says which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stoke.backend.api import EngineState, FoundJob, Frame, Volume
from stoke.history.job import JobState
from tests.tui.conftest import Desk, FakeBackend, said, until
from tui.app import StokeApp


def raises(*_: object) -> Any:
    raise ValueError("neither here nor there")


def nothing(*_: object) -> None:
    return None


class Junk:
    """A log of what are no frames."""

    def __iter__(self) -> Any:
        yield ["no frame"]
        yield [Frame(7, -5, b"of no stream\n")]

    def close(self) -> None:
        pass


def flips() -> Callable[[str], EngineState]:
    """Over, running, gone, over with another code: another word each time."""
    said = [
        EngineState("exited", 0),
        EngineState("running"),
        EngineState("absent"),
        EngineState("exited", 3),
        EngineState("dancing"),
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


# A thread that dies of it would write over the screen.
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("lie", LIES)
async def test_every_screen_stays(
    app: StokeApp, desk: Desk, backends: dict[str, FakeBackend], lie: str
) -> None:
    desk.job("running-aaaaaa", JobState.RUNNING)
    desk.let_go()
    for name, does in LIES[lie].items():
        setattr(backends["local"], name, does)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: app.snapshot.jobs)
        for key in ("s", "escape", "enter", "escape", "3", "m", "p", "escape", "4", "2"):
            await pilot.press(key)
            await pilot.pause(0.2)
            assert app.is_running
        app.action_switch("jobs")
        if lie in ("it raises", "it answers with nothing"):
            await until(pilot, lambda: "local: " in said(app))
        await pilot.press("j", "question_mark", "escape")
        assert app.is_running
