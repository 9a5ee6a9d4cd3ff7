"""A client that is killed while it uploads a long pack to a cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest

from backends.argo.names import PACK_CHUNK
from backends.argo.resources import KubernetesResources
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.jobs.refresh import reconcile
from tests.lab import Lab, until

DIES = """
import os, random, signal, sys
from backends.argo.resources import KubernetesResources
from stoke.backend.pool import Backends
from stoke.config.loader import load_config
from tests.lab import Lab
from tests.snapshots import snapshot, submit_project

create = KubernetesResources.create

def create_and_die(self, resource, *rest):
    made = create(self, resource, *rest)
    if resource == "configmaps":
        os.kill(os.getpid(), signal.SIGKILL)
    return made

KubernetesResources.create = create_and_die
config = load_config()
lab = Lab(Backends(config).get("argo"), config, sys.argv[1], "")
submit_project(lab, snapshot({"main.py": b"", "data": random.randbytes(5 * 2**20)}))
"""


@pytest.mark.cluster
def test_nothing_stays_of_an_upload_whose_client_was_killed(lab: Lab, real_cluster: Any) -> None:
    if lab.backend.name != "argo":
        pytest.skip("local and Docker take a pack in one step")
    resources = KubernetesResources(real_cluster.connect())

    def chunks() -> set[str]:
        found = resources.list_config_maps(f"{PACK_CHUNK}=true")
        return {one["metadata"]["name"] for one in found}

    before = chunks()
    killed = subprocess.run([sys.executable, "-c", DIES, lab.scope], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = chunks() - before
    assert left
    with History() as history:
        (job,) = history.list(unfinished=True)
        reconcile(job, lab.backend, history)
        done = history.get(job.id)
    assert done is not None and done.state is JobState.LOST
    until(lambda: not left & chunks(), "the end of the chunks")
