"""`stoke setup argo`: what a namespace needs, printed without a cluster."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Stoke


@pytest.mark.parametrize("option", ["--namespace", "-n"])
def test_the_namespace_of_the_option_is_in_what_is_printed(stoke: Stoke, option: str) -> None:
    done = stoke("setup", "argo", option, "team-a", env={"KUBECONFIG": "/nonexistent"})
    assert done.returncode == 0, done.stderr
    assert b"namespace: team-a\n" in done.stdout
