"""Schedules on a cluster: a CronWorkflow each, whose runs Argo begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from backends.argo.cluster import ApiError
from backends.argo.cron_workflow import KIND_OF_CRON, cron_manifest, problem_of, run_manifest
from backends.argo.mounts import mounted_objects
from backends.argo.names import AWAITS_BUNDLE, JOBS, has_labels, labels_of
from backends.argo.pack_chunks import upload
from backends.argo.patches import begin_schedule_patch, owner_of, suspend_patch, without_owner
from backends.argo.refusals import GRANT, refused_object, refused_submission
from backends.argo.resources import PLURALS
from backends.argo.run_names import CRON_WORKFLOW, schedule_of
from backends.argo.status import epoch, is_over
from backends.argo.submission import prepare_volumes
from backends.argo.workflow import JobManifests, make_job
from backends.argo.workspace_volumes import check_workspace
from backends.common.names import MANAGED, NONCE, SCOPE
from stoke.backend.api import Delivery, FoundJob
from stoke.backend.capabilities import EngineSchedule, SchedulePlan
from stoke.errors import EngineError, RequestError

if TYPE_CHECKING:
    from backends.argo.job_locations import JobLocation, JobLocations
    from backends.argo.resources import KubernetesResources
    from backends.argo.workspaces import ArgoWorkspaces
    from stoke.config.model import Config
    from stoke.request.spec import JobSpec

Object = dict[str, Any]


class ArgoSchedules:
    """The part of the backend that runs schedules; the attributes and the abstract methods are those of
    the backend."""

    _config: Config
    _locations: JobLocations

    def _public_spec(self, job_id: str) -> bytes | None:
        raise NotImplementedError

    def _forget(self, job_id: str) -> None:
        raise NotImplementedError

    def _workspaces(self, location: JobLocation | None = None) -> ArgoWorkspaces:
        raise NotImplementedError

    def check_schedule(self, spec: JobSpec) -> None:
        if self._config.argo.with_profile(spec.profile).by_template:
            raise RequestError(
                "backend",
                "jobs refer to a template here (argo.by_template), which has no schedules",
                "run the schedule on this machine or in containers: -b local, -b docker",
            )

    def create_schedule(self, delivery: Delivery, plan: SchedulePlan) -> None:
        schedule_id = delivery.job_id
        self._locations.remember_found(schedule_id)
        location = self._locations.of(schedule_id)
        manifests = self._schedule_manifests(location, delivery)
        waits = manifests.bundle_object is not None or bool(manifests.chunks)
        argo = self._config.argo.with_profile(delivery.spec.profile)
        cron = cron_manifest(manifests.workflow, plan, argo.keep, waits)
        try:
            made = _create(location, cron)
            if waits:
                owner = owner_of({**cron, "metadata": made["metadata"]}, KIND_OF_CRON)
                _create_beside(location.resources, manifests, owner)
                location.resources.patch_cron_workflow(schedule_id, begin_schedule_patch())
        except BaseException:
            with suppress(EngineError):  # It stays suspended.
                location.resources.delete_cron_workflow(schedule_id)
            raise

    def _schedule_manifests(self, location: JobLocation, delivery: Delivery) -> JobManifests:
        """Return the manifests of all runs, for which the volumes are made. A run may write to its
        cache: whether it has to is not known before."""
        spec = delivery.spec
        nodes = prepare_volumes(location.volumes, spec, delivery.request_hash)
        node = None
        if spec.workspace is not None:
            check_workspace(spec, self._config.argo)
            node = self._workspaces(location).ensure(spec.workspace, spec.scope)
        return make_job(delivery, self._config, nodes, node=node, recurs=True)

    def schedule(self, schedule_id: str) -> EngineSchedule | None:
        cron = self._cron(schedule_id)
        if cron is None:
            return None
        return EngineSchedule(bool(cron["spec"].get("suspend")), problem_of(cron))

    def pause_schedule(self, schedule_id: str, paused: bool) -> bool:
        resources = self._locations.of(schedule_id).resources
        try:
            return resources.patch_cron_workflow(schedule_id, suspend_patch(paused))
        except ApiError as error:
            raise _denied(error) from error

    def begin_run(self, schedule_id: str) -> FoundJob:
        location = self._locations.of(schedule_id)
        cron = self._cron(schedule_id)
        if cron is None:
            raise EngineError(f"the cluster no longer has the CronWorkflow {schedule_id}")
        workflow = run_manifest(cron, int(time.time()))
        job_id = workflow["metadata"]["name"]
        try:
            made = location.resources.create("workflows", workflow)
        except ApiError as error:
            raise refused_submission(error, location.cluster, job_id) from error
        return self._found_run(location, {**workflow, "metadata": made["metadata"]})

    def schedule_runs(self, schedule_ids: Sequence[str]) -> list[FoundJob]:
        by_location: dict[int, tuple[JobLocation, list[str]]] = {}
        for schedule_id in schedule_ids:
            location = self._locations.of(schedule_id)
            by_location.setdefault(id(location), (location, []))[1].append(schedule_id)
        found = []
        for location, ids in by_location.values():
            selector = f"{JOBS},{CRON_WORKFLOW} in ({','.join(ids)})"
            for workflow in location.resources.list_workflows(selector):
                if schedule_of(workflow["metadata"]["name"]) in ids and SCOPE in labels_of(
                    workflow
                ):
                    found.append(self._found_run(location, workflow))
        return found

    def _found_run(self, location: JobLocation, workflow: Object) -> FoundJob:
        job_id = workflow["metadata"]["name"]
        self._locations.remember_found(job_id, location)
        labels = labels_of(workflow)
        return FoundJob(
            job_id,
            labels[SCOPE],
            epoch(workflow["metadata"].get("creationTimestamp")) or time.time(),
            labels.get(NONCE),
            partial(self._public_spec, job_id),
            schedule_of(job_id),
        )

    def remove_schedule(self, schedule_id: str) -> None:
        resources = self._locations.of(schedule_id).resources
        cron = resources.cron_workflow(schedule_id)
        if cron is None or labels_of(cron).get(MANAGED) != "true":
            return
        was_suspended = bool(cron["spec"].get("suspend"))
        try:
            resources.patch_cron_workflow(schedule_id, suspend_patch(True))
            try:
                # Kubernetes deletes with the CronWorkflow all that only it owns: the bundle, no runs.
                for run in resources.list_workflows(f"{CRON_WORKFLOW}={schedule_id}", cached=False):
                    if not is_over(run):
                        _hand_to_run(resources, cron, run)
                    resources.patch_workflow(run["metadata"]["name"], without_owner(run, cron))
                resources.delete_cron_workflow(schedule_id)
            except EngineError:
                resources.patch_cron_workflow(schedule_id, suspend_patch(was_suspended))
                raise
        except ApiError as error:
            raise _denied(error) from error
        self._forget(schedule_id)

    def _cron(self, schedule_id: str) -> Object | None:
        """Return a CronWorkflow of ours with all that its runs need."""
        cron = self._locations.of(schedule_id).resources.cron_workflow(schedule_id)
        if cron is None or not has_labels(cron, {MANAGED: "true"}):
            return None
        return None if AWAITS_BUNDLE in labels_of(cron) else cron


def _create(location: JobLocation, cron: Object) -> Object:
    """Create a CronWorkflow and return its metadata."""
    name = cron["metadata"]["name"]
    try:
        try:
            return location.resources.create("cronworkflows", cron)
        except ApiError as error:
            if error.status != 409:
                raise
            # A process was killed before it was whole.
            location.resources.delete_cron_workflow(name)
            return location.resources.create("cronworkflows", cron)
    except ApiError as error:
        raise _refused(error, location, name) from error


def _create_beside(
    resources: KubernetesResources, manifests: JobManifests, owner: dict[str, Any]
) -> None:
    """Create what the runs mount. The CronWorkflow owns it."""
    kind = "ConfigMap"
    try:
        upload(resources, manifests.chunks, owner)
        one = manifests.bundle_object
        if one is None:
            return
        kind = one["kind"]
        body = {**one, "metadata": {**one["metadata"], "ownerReferences": [owner]}}
        try:
            resources.create(PLURALS[kind], body)
        except ApiError as error:
            if error.status != 409:
                raise
            # That of a deleted CronWorkflow, with which Kubernetes will delete it.
            resources.delete(PLURALS[kind], one["metadata"]["name"])
            resources.create(PLURALS[kind], body)
    except ApiError as error:
        if error.status != 403:
            raise
        raise refused_object(error, kind, "the schedule", "CronWorkflow") from error


def _hand_to_run(resources: KubernetesResources, cron: Object, run: Object) -> None:
    """Keep what a run mounts for as long as the run, whose pod may not have started."""
    name = run["metadata"]["name"]
    owner = owner_of({**cron, "metadata": run["metadata"]})
    for resource, mounted in mounted_objects(cron["spec"]["workflowSpec"]):
        try:
            resources.add_owner(mounted, owner, resource)
        except ApiError as error:
            if error.status != 403:
                raise
            raise EngineError(
                f"{name} runs and needs one of the schedule's {resource}, which you may not change",
                f"try again once it has ended, or stop it: stoke stop {name}",
            ) from error


def _refused(error: ApiError, location: JobLocation, schedule_id: str) -> EngineError:
    """Return the error for the user of a CronWorkflow that the API server did not create."""
    if error.status == 403 and "cronworkflows" in error.message:
        return _denied(error)
    return refused_submission(error, location.cluster, schedule_id)


def _denied(error: ApiError) -> EngineError:
    """Return the error with what grants a missing right on CronWorkflows."""
    if error.status != 403:
        return error
    return EngineError(f"a schedule on Argo is a CronWorkflow: {error.what}", GRANT)
