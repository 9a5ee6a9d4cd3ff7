"""Schedules whose runs Argo begins, while no stoke process runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.argo.cluster import WORKFLOWS, ApiError, Cluster, resource_path, workflows_path
from backends.argo.run_names import CRON_WORKFLOW
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs.control import stop
from stoke.jobs.engine_runs import find_runs
from stoke.results.store import results_folder
from stoke.schedules import engine
from stoke.schedules.changes import (
    add_schedule,
    pause_schedule,
    read_times,
    remove_schedule,
    resume_schedule,
)
from stoke.schedules.store import Schedule
from tests.conftest import TestCluster
from tests.contract.conftest import open_lab
from tests.lab import Lab, until

pytestmark = pytest.mark.cluster

CODE = """
import os, pathlib, time
print('planned by the cluster', open('note.txt').read().strip())
pathlib.Path(os.environ['STOKE_RESULTS'], 'out.txt').write_text('result')
"""


@pytest.fixture
def lab(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, real_cluster: TestCluster
) -> Iterator[Lab]:
    yield from open_lab("argo", request, monkeypatch)


def add(lab: Lab, code: str, cron: str = "0 0 29 2 *", **fields: Any) -> Schedule:
    """Add a schedule; without `cron`, of which no run is due."""
    with History() as history:
        times = read_times(cron, "Europe/Berlin")
        request = lab.request(code, name="nightly", **fields)
        return add_schedule(times, request, lab.backend, history, fresh=False).schedule


def runs_of(api: Cluster, schedule: Schedule) -> list[str]:
    query = {"labelSelector": f"{CRON_WORKFLOW}={schedule.engine_id}"}
    listed = api.request("GET", workflows_path(api.namespace), query=query)
    return [one["metadata"]["name"] for one in listed["items"]]


def jobs() -> list[Job]:
    with History() as history:
        assert find_runs(history, seconds=30) == []
        return history.list()


def is_there(api: Cluster, resource: str, name: str, group: str = "v1") -> bool:
    try:
        api.request("GET", resource_path(group, api.namespace, resource, name))
    except ApiError as error:
        assert error.status == 404
        return False
    return True


def test_argo_begins_runs_with_the_files_as_they_were(
    lab: Lab, api: Cluster, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "note.txt").write_text("recorded\n")
    schedule = add(lab, CODE, "* * * * *", project={"root": str(folder), "directory": "."})
    (folder / "note.txt").unlink()
    until(lambda: bool(runs_of(api, schedule)), "a run", 150)
    pause_schedule("nightly")
    (name, *_) = sorted(runs_of(api, schedule))
    job = jobs()[-1]
    assert job.id == name and job.schedule == job.name == "nightly"
    outcome = lab.finish(job)
    assert outcome.stdout == b"planned by the cluster recorded\n", outcome
    assert outcome.job.state is JobState.SUCCEEDED
    assert {phase.name for phase in outcome.job.phases} >= {"start", "run"}
    (result,) = results_folder(job.id).rglob("out.txt")
    assert result.read_text() == "result"
    remove_schedule("nightly")


def test_runs_have_logs_of_their_own(lab: Lab) -> None:
    schedule = add(lab, "import time; print(time.time_ns())")
    outputs = []
    for _ in range(2):
        run = engine.begin_run(schedule)
        (job,) = [one for one in jobs() if one.id == run.job]
        outputs.append(lab.finish(job).stdout)
    assert len(set(outputs)) == 2 and all(outputs)
    remove_schedule("nightly")


def test_a_run_continues_without_its_schedule(lab: Lab, api: Cluster, tmp_path: Path) -> None:
    (tmp_path / "login").write_text("hidden")
    code = "import os, time; print(os.environ['LOGIN'], flush=True); time.sleep(600)"
    schedule = add(lab, code, secrets={"LOGIN": f"file:{tmp_path / 'login'}"})
    assert schedule.engine_id is not None
    run = engine.begin_run(schedule)
    # Its pod may not have started, and mounts the secret later.
    remove_schedule("nightly")
    assert not is_there(api, "cronworkflows", schedule.engine_id, WORKFLOWS)
    (job,) = jobs()
    assert job.id == run.job
    tracker = lab.track(job)
    lab.until_output(job, b"hidden")
    assert is_there(api, "secrets", schedule.engine_id)
    with History() as history:
        stop(job, lab.backend, history, 0)
    tracker.close()
    assert lab.finish(job).job.state is JobState.STOPPED
    lab.backend.remove(job.id)
    secret = schedule.engine_id
    until(lambda: not is_there(api, "secrets", secret), "the end of the secret", 60)
    assert not job_dir(schedule.engine_id).exists()


def test_argo_begins_none_while_a_run_has_not_ended(lab: Lab, api: Cluster) -> None:
    schedule = add(lab, "import time; time.sleep(600)", "* * * * *")
    until(lambda: bool(runs_of(api, schedule)), "a run", 150)
    assert engine.begin_run(schedule).skipped
    assert len(runs_of(api, schedule)) == 1
    remove_schedule("nightly")
    (job,) = jobs()
    with History() as history:
        stop(job, lab.backend, history, 0)


def test_a_deleted_cron_workflow_is_made_again(lab: Lab, api: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "note.txt").write_text("recorded\n")
    schedule = add(lab, CODE, project={"root": str(folder), "directory": "."})
    assert schedule.engine_id is not None
    path = resource_path(WORKFLOWS, api.namespace, "cronworkflows", schedule.engine_id)
    api.request("DELETE", path, query={"propagationPolicy": "Background"})
    assert engine.state_of(schedule) is None
    (folder / "note.txt").unlink()
    resume_schedule("nightly")
    state = engine.state_of(schedule)
    assert state is not None and not state.paused and state.problem is None
    run = engine.begin_run(schedule)
    (job,) = [one for one in jobs() if one.id == run.job]
    assert lab.finish(job).stdout == b"planned by the cluster recorded\n"
    remove_schedule("nightly")
