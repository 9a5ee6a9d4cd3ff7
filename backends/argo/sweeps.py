"""Sweeps on a cluster: one Workflow whose steps are the tasks, each a pod of its own."""

from __future__ import annotations

import json
import math
import threading
import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backends.argo.bundle import MAX_CARRIED
from backends.argo.cluster import ApiError
from backends.argo.diagnosis import NOT_NOTICED
from backends.argo.mounts import mutex_of, used_caches
from backends.argo.patches import SHUTDOWN
from backends.argo.refusals import why_no_pod
from backends.argo.state import unnoticed_at
from backends.argo.status import has_started, is_over, terminated, was_stopped
from backends.argo.sweep_watch import SweepWatch
from backends.argo.task_names import are_distinct, number_of, workflow_of
from backends.argo.task_status import as_job
from stoke.backend.capabilities import NotStartedError, SweepPlan, SweepProgress
from stoke.errors import EngineError, RequestError

if TYPE_CHECKING:
    from backends.argo.job_locations import JobLocations
    from backends.argo.resources import KubernetesResources
    from backends.argo.workflow import JobManifests
    from stoke.backend.api import Delivery
    from stoke.config.model import Config
    from stoke.request.spec import JobSpec

Object = dict[str, Any]
# The grace period of a hard stop. With 0 the API server deletes the pod at once, and its log with
# it.
HARD_SECONDS = 1
MOST_TASKS = 5000
"""Argo keeps the state of all tasks in the Workflow, which may have 1 MiB. Packed, as Argo does if
it has to, a task takes 110 bytes, and more with a message."""
_MARKS = 24
"""Bytes that a task needs besides its values: its nonce, and the name of its checkpoint."""
_HERE = "or run it here: -b docker"


def check_size(rows: Sequence[Sequence[str]]) -> None:
    """Raise `RequestError` for a sweep that does not fit into the objects of a cluster."""
    if len(rows) > MOST_TASKS:
        raise RequestError(
            "each",
            f"the sweep would have {len(rows):,} tasks, and a Workflow holds the state of at most "
            f"{MOST_TASKS:,}",
            f"split it into several sweeps, {_HERE}",
        )
    size = len(zlib.compress(json.dumps(rows).encode(), 9)) + _MARKS * len(rows)
    if size > MAX_CARRIED:
        raise RequestError(
            "each",
            f"the values of its tasks have {size // 1024:,} KiB compressed, and a cluster accepts at "
            f"most {MAX_CARRIED // 1024:,} KiB with a job",
            f"pass the names of files that the tasks fetch, split it into several sweeps, {_HERE}",
        )


class ArgoSweeps:
    """The part of the backend that runs sweeps; the attributes and the abstract methods are those of
    the backend."""

    _config: Config
    _locations: JobLocations
    _lock: threading.Lock
    _watches: dict[str, SweepWatch]

    def _metadata(self, job_id: str) -> Object | None:
        raise NotImplementedError

    def _why_absent(self) -> str:
        raise NotImplementedError

    def _manifests(self, delivery: Delivery, sweep: SweepPlan | None = None) -> JobManifests:
        raise NotImplementedError

    def _hand_over(self, job_id: str, manifests: JobManifests) -> None:
        raise NotImplementedError

    def _record_pod(self, job_id: str, pod: Object | None) -> None:
        raise NotImplementedError

    def check_sweep(
        self, spec: JobSpec, rows: Sequence[Sequence[str]], max_fails: int | None
    ) -> None:
        argo = self._config.argo.with_profile(spec.profile)
        if argo.by_template:
            raise RequestError(
                "each",
                "jobs refer to a template here (argo.by_template), which has no sweeps",
                "run the sweep on this machine or in containers: -b local, -b docker",
            )
        if max_fails:
            raise RequestError(
                "max_fails",
                "Argo ends a sweep at its first failure or not at all, and counts no failures",
                "use --fail-fast, or leave it out",
            )
        check_size(rows)

    def submit_sweep(self, delivery: Delivery, plan: SweepPlan) -> None:
        sweep_id, spec = delivery.job_id, delivery.spec
        if not are_distinct(sweep_id, range(1, len(plan.tasks) + 1)):
            raise EngineError(
                f"Argo would give two tasks of {sweep_id} the same name", "submit the sweep again"
            )
        manifests = self._manifests(delivery, plan)
        argo = self._config.argo.with_profile(spec.profile)
        mutex = mutex_of(spec.scope, used_caches(spec.use_cache, bool(spec.system)), argo)
        held = (manifests.workflow["spec"].get("synchronization") or {}).get("mutexes") or ()
        if any(one["name"] == mutex for one in held):
            raise EngineError(
                "its tasks would write to one claim at the same time (argo.cache = shared-claim)",
                "build their environment first: stoke cache warm; or run them without it: --no-cache",
            )
        self._hand_over(sweep_id, manifests)

    def sweep_progress(self, sweep_id: str) -> SweepProgress:
        watch = self._watch(sweep_id)
        try:
            workflow = watch.metadata()
            # The first list may be older than a sweep that has just been submitted.
            workflow = workflow or self._metadata(sweep_id)
            if workflow is None:
                return SweepProgress(True, watch.started(), self._why_absent())
            started = watch.started()
            reason = None
            if not started or is_over(workflow):
                reason = why_no_pod(watch.whole() or workflow).text
            at = unnoticed_at(workflow)
            if not started and at is not None and time.time() >= at:
                reason = NOT_NOTICED.text
            return SweepProgress(is_over(workflow), started, reason)
        except EngineError:
            self._end_watch(sweep_id)  # The next call begins anew.
            raise

    def _watch(self, sweep_id: str) -> SweepWatch:
        with self._lock:
            if sweep_id not in self._watches:
                location = self._locations.of(sweep_id)
                self._watches[sweep_id] = SweepWatch(
                    location.cluster, location.resources, sweep_id, self._record_pod
                )
            return self._watches[sweep_id]

    def _end_watch(self, sweep_id: str) -> None:
        with self._lock:
            watch = self._watches.pop(sweep_id, None)
        if watch is not None:
            watch.close()

    def _observed(self, job_id: str) -> tuple[Object | None, Object | None]:
        """Return the metadata of a job's workflow and the job's pod, without requests for a task whose
        pod is watched."""
        with self._lock:
            watch = self._watches.get(workflow_of(job_id))
        number = number_of(job_id)
        workflow = pod = None
        if watch is not None and number is not None:
            workflow, pod = watch.metadata(), watch.pod(number)
        # The first lists may be older than the workflow, and one watch may be behind the other.
        workflow = workflow or self._metadata(job_id)
        if workflow is None:
            return None, None
        return workflow, pod or self._locations.of(job_id).resources.pod(job_id)

    def _whole(self, job_id: str, workflow: Object) -> Object:
        """Return a job's workflow with its status; of a task, as if it were a workflow of its own."""
        with self._lock:
            watch = self._watches.get(workflow_of(job_id))
        if number_of(job_id) is None:
            return self._locations.of(job_id).resources.workflow(job_id) or workflow
        if watch is not None:
            whole = watch.whole()
        else:
            whole = self._locations.of(job_id).resources.workflow(job_id)
        return as_job(whole or workflow, job_id)

    def _stop_sweep(self, sweep_id: str, workflow: Object, grace: float) -> str | None:
        """Have Argo start no more tasks, and delete the pods of those that run."""
        resources = self._locations.of(sweep_id).resources
        if not was_stopped(workflow):
            resources.patch_workflow(sweep_id, SHUTDOWN)
        told = None
        for pod in resources.pods_of(sweep_id):
            about = pod["metadata"]
            if terminated(pod) is not None or ("deletionTimestamp" in about and grace > 0):
                continue
            told = end_pod(resources, about["name"], grace, has_started(pod)) or told
        return told

    def _stop_task(self, job_id: str, pod: Object | None, grace: float) -> str | None:
        if pod is None or not has_started(pod):
            raise NotStartedError(
                f"{job_id} cannot be stopped before it runs, because Argo would start it again",
                f"stop the whole sweep: stoke stop {workflow_of(job_id)}",
            )
        if terminated(pod) is not None:
            return None
        return end_pod(self._locations.of(job_id).resources, job_id, grace, True)


def end_pod(resources: KubernetesResources, job_id: str, grace: float, started: bool) -> str | None:
    """Delete the pod of a job; return what its user has to know if that is not permitted."""
    seconds = max(HARD_SECONDS, math.ceil(grace)) if started else 0
    try:
        resources.delete_pod(job_id, seconds)
    except ApiError as error:
        if error.status != 403:
            raise
        # Argo deletes the pod on its own, 5 to 8 seconds later.
        return "you may not delete its pod, so Argo stops it, which may take 10 seconds"
    return None
