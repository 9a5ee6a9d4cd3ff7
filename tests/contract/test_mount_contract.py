"""Mounts, on every backend: the same code reads and writes the same files."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoke.errors import RequestError
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.jobs.control import remove
from stoke.request.mounts import MOUNT_ROOT
from tests.lab import Lab

FOLDER = f"import os\nfolder = os.environ['{MOUNT_ROOT}'] + '/stoke-test/data'\n"
WRITES = FOLDER + "print('kept', file=open(folder + '/out.txt', 'w'))\n"
READS = FOLDER + "print(open(folder + '/out.txt').read(), end='')\n"


@pytest.fixture
def source(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[str]:
    """What a mount names before the colon: a folder here, or a claim of the cluster."""
    if lab.backend.name != "argo":
        folder = tmp_path / "a folder"
        folder.mkdir()
        monkeypatch.chdir(tmp_path)
        yield str(folder)
        return
    from backends.argo.cluster import resource_path

    api = request.getfixturevalue("real_cluster").connect()
    name = f"test-{secrets.token_hex(4)}"
    path = resource_path("v1", api.namespace, "persistentvolumeclaims")
    claim = {
        "metadata": {"name": name, "labels": {"stoke.managed": "true", "stoke.scope": lab.scope}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    api.request("POST", path, body=claim)
    yield f"claim:{name}"
    api.close()


def test_a_job_leaves_files_for_the_next_one(lab: Lab, source: str) -> None:
    done = lab.run(WRITES, mounts=[f"{source}:/stoke-test/data:rw"])
    assert done.job.state is JobState.SUCCEEDED, done.stderr
    with History() as history:
        remove(done.job, lab.backend, history)
    done = lab.run(READS, mounts=[f"{source}:/stoke-test/data"])
    assert done.stdout == b"kept\n", done.stderr


def test_a_mount_is_read_only_where_jobs_are_isolated(lab: Lab, source: str) -> None:
    done = lab.run(WRITES, mounts=[f"{source}:/stoke-test/data"])
    if lab.backend.name == "local":
        assert done.job.exit_code == 0  # Nothing on this machine is kept from a job.
    else:
        assert done.job.exit_code == 1 and b"Read-only file system" in done.stderr
    assert b"kept" not in done.stdout


def test_a_target_is_at_its_path_in_a_container(lab: Lab, source: str) -> None:
    code = "import os\nprint(os.path.isdir('/stoke-test/data'))"
    done = lab.run(code, mounts=[f"{source}:/stoke-test/data"])
    assert done.stdout == (b"False\n" if lab.backend.name == "local" else b"True\n")


def test_the_other_kind_of_source_is_refused(lab: Lab, source: str, tmp_path: Path) -> None:
    other = "claim:some" if lab.backend.name != "argo" else str(tmp_path)
    with pytest.raises(RequestError) as caught:
        lab.submit("1", mounts=[f"{other}:/data"])
    assert caught.value.field == "mounts"
    with History() as history:
        assert history.list() == []
