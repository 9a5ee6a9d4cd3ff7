"""`stoke setup argo`: what a namespace needs, printed without a cluster."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Stoke
from tests.cluster.layout import RESTRICTED_NAMESPACE
from tests.conftest import TestCluster


@pytest.mark.parametrize("option", ["--namespace", "-n"])
def test_the_namespace_of_the_option_is_in_what_is_printed(stoke: Stoke, option: str) -> None:
    done = stoke("setup", "argo", option, "team-a", env={"KUBECONFIG": "/nonexistent"})
    assert done.returncode == 0, done.stderr
    assert b"namespace: team-a\n" in done.stdout


@pytest.mark.cluster
def test_a_restricted_namespace_gets_claims_and_the_settings_are_named(
    real_cluster: TestCluster, stoke: Stoke
) -> None:
    done = stoke(
        "setup", "argo", "-n", RESTRICTED_NAMESPACE, env={"KUBECONFIG": real_cluster.kubeconfig}
    )
    assert done.returncode == 0, done.stderr
    assert b'argo.restricted = true and argo.cache = "claim"' in done.stderr
    assert done.stdout.count(b"kind: PersistentVolumeClaim") == 1  # no system packages without root
    assert b"name: stoke-default-python\n" in done.stdout
