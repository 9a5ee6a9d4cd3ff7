"""The choice of a cluster for a job, with a stand-in that records the chosen one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Collapsible, Input, Select

from stoke.backend.capabilities import ClusterContext
from stoke.errors import EngineError
from tests.tui.conftest import Desk, FakeBackend, said, until
from tests.tui.new_job_form import opened
from tui import ui_state
from tui.app import StokeApp
from tui.dialogs.prompts import Confirm
from tui.new_job.cluster_choice import ClusterChoice
from tui.new_job.screen import NewJobScreen

SIZE = (120, 50)


@dataclass
class FakeClusters(FakeBackend):
    chosen: tuple[str | None, str | None] = (None, None)
    submitted_to: list[tuple[str | None, str | None]] = field(default_factory=list)
    allowed: bool = False
    wrong: EngineError | None = None

    def contexts(self) -> list[ClusterContext]:
        if self.wrong is not None:
            raise self.wrong
        plugin = "/home/kube/config: /usr/bin/login --as '[red]'"
        return [
            ClusterContext("staging", "https://staging.test", "jobs", current=True),
            ClusterContext("[/nope]", "\x1b[31m", plugin=plugin, allowed=self.allowed),
            ClusterContext("broken", trouble="no cluster of that name"),
        ]

    def choose(self, context: str | None, namespace: str | None) -> None:
        self.chosen = (context, namespace)

    def allow_plugin(self) -> str | None:
        assert self.chosen[0] == "[/nope]"
        self.allowed = True
        return "login"

    def submit(self, delivery: Any, report: Any) -> None:
        self.submitted_to.append(self.chosen)
        super().submit(delivery, report)


@pytest.fixture
def clusters(backends: dict[str, FakeBackend], monkeypatch: pytest.MonkeyPatch) -> FakeClusters:
    made = FakeClusters("local")
    point = type("Point", (), {"name": "local", "load": lambda self: lambda _: made})()
    monkeypatch.setattr("stoke.backend.registry._entry_points", lambda *_: [point])
    return made


async def choice_of(pilot: Pilot[Any], app: StokeApp) -> tuple[NewJobScreen, ClusterChoice]:
    screen = await opened(pilot, app)
    screen.query_one("#more", Collapsible).collapsed = False
    choice = screen.query_one(ClusterChoice)
    await until(pilot, lambda: choice.display and "namespace" in said(app))
    return screen, choice


async def test_jobs_go_to_the_chosen_cluster_also_after_a_restart(
    clusters: FakeClusters, app: StokeApp, desk: Desk
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        _, choice = await choice_of(pilot, app)
        await until(pilot, lambda: "as configured: staging" in said(app))
        assert choice.query_one(Input).placeholder == "jobs"
        choice.query_one(Select).value = "staging"
        choice.query_one(Input).focus()
        await pilot.press(*"team-b")
        app.screen.query_one("#code").focus()
        # Submitted at once: the text typed last counts, also while an earlier one is being checked.
        await pilot.press(*"print(1)", "ctrl+n")
        await until(pilot, lambda: clusters.submitted_to)
        assert clusters.submitted_to == [("staging", "team-b")]
        await until(pilot, lambda: "Where and how: local, staging, team-b" in said(app))
    clusters.choose(None, None)
    again = StokeApp(app.context.config)
    async with again.run_test(size=SIZE, notifications=True) as pilot:
        _, choice = await choice_of(pilot, again)
        await until(pilot, lambda: choice.query_one(Input).value == "team-b")
        assert choice.query_one(Select).value == "staging"
        assert clusters.chosen == ("staging", "team-b")


async def test_a_program_for_credentials_is_shown_and_asked_about_once(
    clusters: FakeClusters, app: StokeApp, desk: Desk
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        _, choice = await choice_of(pilot, app)
        choice.query_one(Select).value = "[/nope]"
        await until(pilot, lambda: "/usr/bin/login --as '[red]'" in said(app))
        choice.query_one("#allow-plugin").focus()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await until(pilot, lambda: "It runs on this machine, as you" in said(app))
        await pilot.press("enter")  # Cancel has the focus.
        await pilot.pause()
        assert not clusters.allowed
        choice.query_one("#allow-plugin").focus()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: clusters.allowed)
        await until(pilot, lambda: not choice.query_one("#allow-plugin").display)


async def test_an_unusable_cluster_is_reported_and_not_chosen(
    clusters: FakeClusters, app: StokeApp, desk: Desk
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        _, choice = await choice_of(pilot, app)
        choice.query_one(Select).value = "broken"
        await until(pilot, lambda: "broken cannot be used: no cluster" in said(app))
        assert app.context.cluster("local") == (None, None)
        choice.query_one(Select).value = ""
        choice.query_one(Input).value = "Team [red]"
        await until(pilot, lambda: "is not the name of a namespace" in said(app))
        assert app.context.cluster("local") == (None, None)


async def test_a_kubeconfig_that_cannot_be_read(
    clusters: FakeClusters, app: StokeApp, desk: Desk
) -> None:
    clusters.wrong = EngineError("the kubeconfig [/nope] cannot be read", "look at it")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await choice_of(pilot, app)
        await until(pilot, lambda: "the kubeconfig [/nope] cannot be read" in said(app))


async def test_a_chosen_cluster_that_no_longer_exists_is_marked(
    clusters: FakeClusters, app: StokeApp, desk: Desk
) -> None:
    ui_state.save("screens", {"welcomed": True, "clusters": {"local": ["away", None], "x": 3}})
    app = StokeApp(app.context.config)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await choice_of(pilot, app)
        await until(pilot, lambda: "away (gone)" in said(app))


async def test_a_backend_without_clusters_offers_none(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await until(pilot, lambda: "prediction" in said(app))
        assert not screen.query_one(ClusterChoice).display
