"""A job whose pod is deleted before Argo has seen it run, as when a node is lost: it is made again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backends.argo.cluster import ApiError, Cluster, pods_path, workflows_path
from backends.argo.diagnosis import RAN_TWICE, SECOND_RUN_PREVENTED
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from tests.lab import Lab, until
from tests.spools import lines_in

pytestmark = pytest.mark.cluster

CODE = "import time; print('begun', flush=True); time.sleep(3); print('done')"


def pod_of(api: Cluster, job: Job) -> Any:
    try:
        return api.request("GET", pods_path(api.namespace, job.id))
    except ApiError as error:
        assert error.status == 404
        return None


def runs(pod: Any) -> bool:
    statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or ()
    return any(one["name"] == "main" and one["state"].keys() - {"waiting"} for one in statuses)


def submit_and_lose(api: Cluster, lab: Lab, tracked: bool) -> tuple[Job, str]:
    """A job whose pod vanished while its code ran and before Argo had seen that, and the pod's uid."""
    for _ in range(5):
        job = lab.submit(CODE)
        if tracked:
            lab.track(job)
            lab.until_output(job, b"begun\n")
        until(lambda job=job: runs(pod_of(api, job)), "the pod's start")  # type: ignore[misc]
        uid: str = pod_of(api, job)["metadata"]["uid"]
        workflow = api.request("GET", workflows_path(api.namespace, job.id))
        if workflow["status"]["nodes"][job.id]["phase"] == "Pending":
            query = {"gracePeriodSeconds": "0"}
            api.request("DELETE", pods_path(api.namespace, job.id), query=query)
            return job, uid
    raise AssertionError("each pod took so long to start that Argo saw it run")


def ended(job: Job) -> Job:
    """The job's record once its end is confirmed; a tracker must be running."""
    with History() as history:

        def found() -> Job:
            one = history.get(job.id)
            assert one is not None
            return one

        until(lambda: found().state.finished and not found().provisional, "the end", 120)
        return found()


def notes(job: Job) -> list[tuple[str, str | None]]:
    with History() as history:
        return [(note.text, note.hint) for note in history.notes(job.id)]


def log(job: Job) -> list[bytes]:
    return [line.text.rstrip() for line in lines_in(job_dir(job.id))]


def test_a_second_run_of_the_code_is_reported_in_notes_and_log(
    api: Cluster, make_lab: Callable[..., Lab]
) -> None:
    lab = make_lab()
    job, _ = submit_and_lose(api, lab, tracked=True)
    done = ended(job)
    assert (done.state, done.exit_code, done.log_gaps) == (JobState.SUCCEEDED, 0, 0)
    assert notes(job) == [(RAN_TWICE.text, RAN_TWICE.hint)]
    assert log(job) == [b"begun", (RAN_TWICE.text or "").encode(), b"begun", b"done"]


def test_a_second_run_is_reported_from_the_clusters_events(
    api: Cluster, make_lab: Callable[..., Lab]
) -> None:
    lab = make_lab()
    job, first = submit_and_lose(api, lab, tracked=False)

    def second_runs() -> bool:
        pod = pod_of(api, job)
        return runs(pod) and pod["metadata"]["uid"] != first

    until(second_runs, "the second pod", 120)
    done = lab.finish(job)
    assert (done.job.state, done.job.exit_code) == (JobState.SUCCEEDED, 0)
    assert notes(job) == [(RAN_TWICE.text, RAN_TWICE.hint)]
    assert log(job) == [(RAN_TWICE.text or "").encode(), b"begun", b"done"]


def test_at_most_once_keeps_the_code_from_a_second_start(
    api: Cluster, make_lab: Callable[..., Lab]
) -> None:
    lab = make_lab(at_most_once=True)
    job, _ = submit_and_lose(api, lab, tracked=True)
    done = ended(job)
    # The first pod was sent SIGTERM, which it may have had no time to report.
    assert (done.state, done.exit_code) in [(JobState.STOPPED, 143), (JobState.FAILED, None)]
    assert done.reason == SECOND_RUN_PREVENTED.text
    assert log(job).count(b"begun") == 1 and b"done" not in log(job)


def test_at_most_once_runs_a_job(make_lab: Callable[..., Lab]) -> None:
    code = "import os; print(*sorted(name for name in os.environ if 'STOKE' in name))"
    done = make_lab(at_most_once=True).run(code)
    assert (done.job.state, done.job.exit_code) == (JobState.SUCCEEDED, 0)
    # Those for the code only, and none of what the pod was started with.
    assert done.stdout == b"STOKE_CHECKPOINT STOKE_RESULTS\n"
    assert notes(done.job) == []


def test_at_most_once_without_the_right_to_create_task_results_starts_nothing(
    make_lab: Callable[..., Lab],
) -> None:
    done = make_lab(at_most_once=True, service_account=None).run("print('ran')")
    assert (done.job.state, done.stdout) == (JobState.FAILED, b"")
    assert done.job.reason is not None and "workflowtaskresults" in done.job.reason
    ((_, hint),) = notes(done.job)
    assert hint is not None and "stoke setup argo --apply" in hint
