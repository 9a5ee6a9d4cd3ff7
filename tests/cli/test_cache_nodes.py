"""`stoke cache` where each node has a cache of its own, all with the same name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from stoke.backend.api import Volume
from stoke.cli.main import main
from stoke.config.model import Config
from stoke.errors import EngineError
from tests.tui.conftest import FakeBackend

NAME = "/var/lib/stoke/default/python"


class Nodes(FakeBackend):
    """A backend with a cache on each of three nodes, of which two take no pods."""

    def housekeep(
        self, volume: Volume, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        if volume.node != "node-b":
            raise EngineError(f"no pod gets to {volume.node}", "kubectl get nodes")
        return super().housekeep(volume, operation, progress)


@pytest.fixture
def nodes(own_home: Any, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    made = Nodes("argo", measured={NAME: (7_000_000, 2)})
    made.held = [
        Volume("argo", "default", "python", NAME, node) for node in ("node-a", "node-b", "node-c")
    ]

    class Point:
        name = "argo"

        def load(self) -> Callable[[Config], Nodes]:
            return lambda _: made

    monkeypatch.setattr("stoke.backend.registry._entry_points", lambda *_: [Point()])
    return made


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Its exit code and what it wrote to stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["stoke", "cache", *arguments, "-b", "argo"])
        code = main()
    return code, capsys.readouterr().err


def test_a_volume_that_cannot_be_cleared_is_named_and_the_rest_are_cleared(
    nodes: Nodes, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = told(capsys, "clear", "--yes")
    assert code == 125
    assert f"{NAME} on node-b: 6.7 MiB, 2 environments" in said
    assert "freed 6.7 MiB" in said
    for node in ("node-a", "node-c"):
        assert f"error: {NAME} on {node} was not cleared: no pod gets to {node}" in said
    assert nodes.cleared == [NAME]


def test_a_volume_that_cannot_be_pruned_is_named_on_each_node(
    nodes: Nodes, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = told(capsys, "prune", "--unused", "0s", "--yes")
    assert code == 125
    assert f"{NAME} on node-b: 2 environments" in said
    for node in ("node-a", "node-c"):
        assert said.count(f"{NAME} on {node} was not pruned") == 1


def test_a_volume_that_cannot_be_measured_is_named_with_its_node(
    nodes: Nodes, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = told(capsys, "ls", "--measure")
    assert code == 0
    for node in ("node-a", "node-c"):
        assert f"{NAME} on {node} could not be measured: no pod gets to {node}" in said
