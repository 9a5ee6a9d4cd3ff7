"""The Argo backend: a job is one Workflow of one pod, both named by the job's id."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from backends.argo.bundle import unpack_spec
from backends.argo.check import check_cluster
from backends.argo.cluster import ApiError
from backends.argo.credential_plugins import allow, is_allowed
from backends.argo.diagnosis import (
    NOT_NOTICED,
    RAN_TWICE,
    SECOND_RUN_PREVENTED,
    Diagnosis,
    gives_up_at,
    why_waiting,
)
from backends.argo.housekeeping import housekeep
from backends.argo.job_locations import JobLocation, JobLocations
from backends.argo.log_stream import JobLog
from backends.argo.manifest import as_yaml
from backends.argo.mounts import claim_volumes
from backends.argo.names import (
    AT_MOST_ONCE,
    BUNDLE_KIND,
    CACHES,
    JOBS,
    READS_CACHE_ONLY,
    REQUEST,
    SWEEP_KIND,
    claim_name,
    has_labels,
    labels_of,
)
from backends.argo.patches import (
    RELEASE,
    RELEASE_WITH_SECRET,
    SHUTDOWN,
    give_up_patch,
)
from backends.argo.pod_security import enforced_level, needed_settings
from backends.argo.pod_workflow import HOSTNAME
from backends.argo.pods import JobPods
from backends.argo.refusals import why_never
from backends.argo.resources import KubernetesResources
from backends.argo.results import ArgoResults
from backends.argo.run_names import labelled_id, schedule_of
from backends.argo.schedules import ArgoSchedules
from backends.argo.setup import preparations
from backends.argo.start_timeline import StartTimeline
from backends.argo.state import state_of, unnoticed_at
from backends.argo.status import epoch, has_started, is_over, terminated
from backends.argo.submission import ArgoSubmission
from backends.argo.sweep_watch import SweepWatch
from backends.argo.sweeps import ArgoSweeps, end_pod
from backends.argo.task_names import number_of
from backends.argo.task_status import as_job
from backends.argo.templates import spec_of
from backends.argo.volumes import SHARED
from backends.argo.warm_nodes import ColdStarts
from backends.argo.workflow import make_job, standalone_objects
from backends.argo.workspace_volumes import check_workspace
from backends.common.names import JOB, KIND, MANAGED, NONCE, PUBLIC_IMAGE, SCOPE, WORKSPACE_NAME
from backends.common.workspaces import WorkspaceMethods
from stoke.backend.api import (
    Capabilities,
    CheckResult,
    Delivery,
    EngineState,
    EngineStatus,
    FoundJob,
    LogStream,
    Volume,
)
from stoke.backend.capabilities import Channel, ClusterContext, Preparation
from stoke.config.model import Config
from stoke.errors import EXIT_ENGINE, EngineError
from stoke.files.debug import Logger
from stoke.request.spec import JobSpec
from stoke.text.units import human_seconds

if TYPE_CHECKING:
    from backends.argo.kubeconfig import KubeContext
    from backends.argo.workspaces import ArgoWorkspaces
    from stoke.backend.capabilities import Workspace

_log = Logger(__name__)

Object = dict[str, Any]


class ArgoBackend(ArgoSubmission, ArgoSweeps, ArgoSchedules, ArgoResults, WorkspaceMethods):
    """Run jobs on a cluster. Creating an instance connects to nothing and imports neither kubernetes
    nor hera."""

    name = "argo"

    def __init__(self, config: Config) -> None:
        self._config = config
        argo = config.argo
        self._locations = JobLocations(argo)
        self._lock = threading.Lock()
        self._timelines: dict[str, StartTimeline] = {}
        # The last state seen of each pod. Only this remembers how a deleted pod ended.
        self._pods: dict[str, Object] = {}
        self._job_pods: dict[str, JobPods] = {}
        self._cold_starts = ColdStarts()
        self._watches: dict[str, SweepWatch] = {}
        self.capabilities = Capabilities(
            images=True,
            limits=True,
            system_packages=not argo.restricted,
            counts_bytes=True,
            isolation="jobs run in pods of their own, "
            + ("without root" if argo.restricted else "as root without capabilities")
            + "; jobs of one scope can change each other's packages",
            named_secrets=True,
            labels=True,
            pods=True,
            workspaces=True,
            stop_forgets_log=True,
            results_by_pod=True,
        )

    # ------------------------------------------------------------------ jobs

    def inspect(self, job_id: str) -> EngineState:
        workflow, pod = self._observed(job_id)
        if workflow is None:
            return EngineState(EngineStatus.ABSENT, reason=self._why_absent())
        location = self._locations.of(job_id)
        with self._lock:
            last = self._pods.get(job_id)
            if pod is None and last is not None and terminated(last) is not None:
                pod = last
            if number_of(job_id) is not None:
                workflow = as_job(workflow, job_id, pod)
            timeline = self._timelines.setdefault(job_id, StartTimeline())
            timeline.record(pod, time.time())
            phases = timeline.phases(epoch(workflow["metadata"].get("creationTimestamp")))
        ended = terminated(pod) if pod is not None else None
        if pod is not None and self._should_give_up(pod):
            workflow = self._give_up(location.resources, workflow, why_waiting(pod))
        elif pod is not None and ended is not None:
            if ended["exitCode"] != EXIT_ENGINE:
                _note_used_caches(location, labels_of(workflow), pod)
            self._note_workspace(location, labels_of(workflow), pod)
        elif pod is None or is_over(workflow):
            # Argo's messages are in the status, which metadata requests leave out.
            workflow = self._whole(job_id, workflow)
            never = why_never(workflow) if pod is None and not is_over(workflow) else None
            if never is not None:
                workflow = self._give_up(location.resources, workflow, never)
        state = replace(state_of(workflow, pod, phases), notes=self._notes(job_id, workflow, pod))
        at = unnoticed_at(workflow)
        if (
            state.status == EngineStatus.RUNNING
            and pod is None
            and at is not None
            and time.time() >= at
        ):
            return replace(state, reason=NOT_NOTICED.text, hint=NOT_NOTICED.hint)
        return state

    def logs(self, job_id: str, since: int, follow: bool) -> LogStream:
        return JobLog(
            self._locations.of(job_id).cluster,
            job_id,
            since,
            follow and not self._is_known_to_have_ended(job_id),
            partial(self._record_pod, job_id),
            partial(self._record_pull_time, job_id),
            self._config.argo.start_timeout,
            preface=partial(self._preface, job_id),
        )

    def enter(self, job_id: str) -> Channel:
        from backends.argo.channel import enter_pod

        workflow = self._metadata(job_id)
        if workflow is None:
            raise EngineError(f"cannot enter {job_id}: {self._why_absent()}")
        return enter_pod(self._locations.of(job_id), job_id, is_over(workflow))

    def stop(self, job_id: str, grace: float) -> str | None:
        workflow = self._metadata(job_id)
        if workflow is None or is_over(workflow):
            return None
        resources = self._locations.of(job_id).resources
        if number_of(job_id) is not None:
            return self._stop_task(job_id, resources.pod(job_id), grace)
        if labels_of(workflow).get(KIND) == SWEEP_KIND:
            return self._stop_sweep(job_id, workflow, grace)
        resources.patch_workflow(job_id, SHUTDOWN)
        pod = resources.pod(job_id)
        if pod is None or terminated(pod) is not None:
            return None
        return end_pod(resources, job_id, grace, has_started(pod))

    def _should_give_up(self, pod: Object) -> bool:
        at = gives_up_at(pod, self._config.argo.start_timeout)
        return at is not None and time.time() >= at

    def _give_up(self, resources: KubernetesResources, workflow: Object, why: Diagnosis) -> Object:
        """Stop a job that cannot start and annotate its workflow with the reason, for every client.
        Return the workflow's new metadata. Without the right to do so, the job keeps waiting."""
        name = workflow["metadata"]["name"]
        text = f"given up, because {why.text}\n{why.hint or ''}"
        try:
            resources.patch_workflow(name, give_up_patch(text))
            resources.delete_pod(name, 0)
        except ApiError as error:
            if error.status != 403:
                raise
        return resources.metadata(name) or workflow

    def remove(self, job_id: str) -> None:
        if number_of(job_id) is not None:
            self._forget(job_id)  # It is removed with its sweep.
            return
        self._end_watch(job_id)
        if self._metadata(job_id) is not None:
            self._locations.of(job_id).resources.delete_workflow(job_id)
        self._forget(job_id)

    def release(self, job_id: str) -> None:
        """Leave the workflow to its TTL, so that Argo shows, archives and counts it, but delete its
        secret."""
        if self._config.argo.delete_finished or number_of(job_id) is not None:
            self.remove(job_id)
            return
        workflow = self._metadata(job_id)
        if workflow is not None:
            resources = self._locations.of(job_id).resources
            changes = RELEASE
            if labels_of(workflow).get(BUNDLE_KIND) == "secret":
                try:
                    resources.delete_secret(job_id)
                except ApiError as error:
                    if error.status != 403:
                        raise
                    changes = RELEASE_WITH_SECRET
            resources.patch_workflow(job_id, changes)
        self._end_watch(job_id)
        self._forget(job_id)

    def project_store(self, scope: str) -> str | None:
        argo = self._config.argo
        if argo.cache == "none" or (
            argo.cache == "hostpath" and HOSTNAME not in argo.node_selector
        ):
            return None  # The next job may run on another node.
        try:
            cluster = self._locations.current.cluster
        except EngineError:
            return None  # Submitting reports the reason.
        where = argo.node_selector.get(HOSTNAME, ""), argo.cache_path
        if argo.cache != "hostpath":
            where = argo.cache, claim_name(scope, "python")
        return " ".join((cluster.server, cluster.namespace, scope, *where))

    def _forget(self, job_id: str) -> None:
        with self._lock:
            self._timelines.pop(job_id, None)
            self._pods.pop(job_id, None)
            self._job_pods.pop(job_id, None)
        self._cold_starts.forget(job_id)
        self._locations.forget(job_id)

    def jobs(self) -> list[FoundJob]:
        found: list[FoundJob] = []
        if not self._locations.current.is_configured():
            return found
        for workflow in self._locations.current.resources.list_workflows(JOBS):
            labels = labels_of(workflow)
            name, scope = workflow["metadata"]["name"], labels.get(SCOPE)
            if not scope or labels.get(JOB) != labelled_id(name):
                continue  # A copy of our labels on another workflow.
            submitted = epoch(workflow["metadata"].get("creationTimestamp")) or 0.0
            self._locations.remember_found(name)
            read_spec = partial(self._public_spec, name)
            nonce, schedule_id = labels.get(NONCE), schedule_of(name)
            found.append(FoundJob(name, scope, submitted, nonce, read_spec, schedule_id))
        return found

    def _why_absent(self) -> str:
        keep = human_seconds(self._config.argo.keep)
        return (
            "the cluster no longer has its workflow: it was deleted, "
            f"or it ended more than {keep} ago (argo.keep)"
        )

    def _metadata(self, job_id: str) -> Object | None:
        """Return the metadata of a job's workflow; None for a workflow that only has the job's name."""
        workflow = self._locations.of(job_id).resources.metadata(job_id)
        ours = {MANAGED: "true", JOB: labelled_id(job_id)}
        if workflow is None or not has_labels(workflow, ours):
            return None
        return workflow

    def _public_spec(self, job_id: str) -> bytes | None:
        """Return the spec stored in the workflow, or None if it was too long to be stored there."""
        try:
            packed = spec_of(self._locations.of(job_id).resources.workflow(job_id) or {})
        except (EngineError, LookupError, TypeError, ValueError):
            return None
        return unpack_spec(packed)

    # ------------------------------------------------------------------ observed pods

    def _record_pod(self, job_id: str, pod: Object | None) -> None:
        """Record a change of a job's pod while its log is followed."""
        with self._lock:
            if pod is not None:
                self._pods[job_id] = pod
            self._timelines.setdefault(job_id, StartTimeline()).record(pod, time.time())
        if pod is not None:
            self._pods_of(job_id).record_pod(pod)

    def _is_known_to_have_ended(self, job_id: str) -> bool:
        """Whether the pod of a task has ended, so that there is nothing to wait for."""
        with self._lock:
            pod = self._pods.get(job_id)
        return number_of(job_id) is not None and pod is not None and terminated(pod) is not None

    def _pods_of(self, job_id: str) -> JobPods:
        with self._lock:
            if job_id not in self._job_pods:
                self._job_pods[job_id] = JobPods(job_id)
            return self._job_pods[job_id]

    def _notes(
        self, job_id: str, workflow: Object, pod: Object | None
    ) -> tuple[tuple[str, str | None], ...]:
        """Return notes if the code has started in more than one pod, or on a node with a cold cache."""
        if pod is None:
            return ()
        pods, location = self._pods_of(job_id), self._locations.of(job_id)
        pods.record_pod(pod)
        # The tasks of a sweep spread over nodes.
        is_task = number_of(job_id) is not None
        notes = () if is_task else self._cold_starts.notes(job_id, workflow, pod, location)
        if AT_MOST_ONCE in labels_of(workflow) or not has_started(pod):
            return notes  # single_start.py refuses the second start and reports it.
        if not pods.ran_before(pod["metadata"], workflow, location.resources):
            return notes
        return (*notes, (RAN_TWICE.text or "", RAN_TWICE.hint))

    def _preface(self, job_id: str, pod: Object) -> str | None:
        """Return a line to print above the log of a pod (given its metadata) that is not the job's
        first."""
        pods = self._pods_of(job_id)
        workflow = self._metadata(job_id)
        if workflow is None:
            return None
        resources = self._locations.of(job_id).resources
        if not pods.ran_before(pod["metadata"], workflow, resources):
            return None
        return (SECOND_RUN_PREVENTED if AT_MOST_ONCE in labels_of(workflow) else RAN_TWICE).text

    def _record_pull_time(self, job_id: str) -> None:
        """Record how long pulling the image took, once the job's container has started."""
        try:
            events = self._locations.of(job_id).resources.events(job_id)
        except EngineError:
            return  # Without the right to list events, the pull counts as part of the start.
        with self._lock:
            self._timelines.setdefault(job_id, StartTimeline()).record_events(events)

    # ------------------------------------------------------------------ caches

    def volumes(self) -> list[Volume]:
        if not self._locations.current.is_configured():
            return []
        return self._locations.current.volumes.found()

    def housekeep(
        self, volume: Volume, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        self._locations.current.volumes.check_is_ours(volume)
        last = operation.get("image")
        image = self._config.argo.image or (last if isinstance(last, str) else PUBLIC_IMAGE)
        result = housekeep(
            self._locations.current.cluster, self._config, image, volume, operation, progress
        )
        if operation["do"] != "usage" and not operation.get("dry_run"):
            self._locations.current.volumes.forget(volume.scope, volume.node or SHARED)
        return result

    # ------------------------------------------------------------------ workspaces

    def _workspaces(self, location: JobLocation | None = None) -> ArgoWorkspaces:
        from backends.argo.workspaces import ArgoWorkspaces

        cluster = (location or self._locations.current).cluster
        return ArgoWorkspaces(cluster, self._config, self._config.argo.image or PUBLIC_IMAGE)

    def _note_workspace(
        self, location: JobLocation, labels: Mapping[str, str], pod: Object
    ) -> None:
        """Record the node of a workspace. Without that right, the node of its pods is asked for."""
        name, node = labels.get(WORKSPACE_NAME), pod.get("spec", {}).get("nodeName")
        if name and node:
            with suppress(EngineError):
                self._workspaces(location).note_node(name, node)

    def workspaces(self) -> list[Workspace]:
        if not self._locations.current.is_configured() or self._config.argo.cache == "none":
            return []
        return super().workspaces()

    def check_workspace(self, spec: JobSpec) -> None:
        check_workspace(spec, self._config.argo)

    # ------------------------------------------------------------------ the rest

    def check(self) -> list[CheckResult]:
        return check_cluster(self._locations.current.cluster, self._config)

    def check_mounts(self, spec: JobSpec) -> None:
        claim_volumes(spec, self._config.argo)

    def render(self, delivery: Delivery) -> str:
        """Return YAML for `kubectl create -f -` and, if it is a single object, for `argo submit -`."""
        manifests = make_job(delivery, self._config)
        return as_yaml(*standalone_objects(manifests))

    def preparations(
        self,
        scopes: Sequence[str],
        users: Sequence[str],
        groups: Sequence[str],
        prune: tuple[str, float] | None,
    ) -> tuple[list[Preparation], dict[str, Any]]:
        here = self._locations.current
        needed: dict[str, Any] = {}
        with suppress(EngineError):  # The manifests can also be printed without a cluster.
            needed = needed_settings(enforced_level(here.cluster), self._config.argo)
        argo = self._config.argo.model_copy(update=needed)
        config = self._config.model_copy(update={"argo": argo})
        volumes = here.volumes.found() if prune else ()
        return preparations(here.cluster, config, volumes, scopes, users, groups, prune), needed

    def contexts(self) -> list[ClusterContext]:
        from backends.argo import kubeconfig  # Loads kubernetes.

        current, found = kubeconfig.list_contexts(self._config.argo.kubeconfig)
        current = self._config.argo.context or current
        return [_described(name, context, name == current) for name, context in found.items()]

    def choose(self, context: str | None, namespace: str | None) -> None:
        self._locations.move(context, namespace)

    def allow_plugin(self) -> str | None:
        plugin = self._locations.current.cluster.plugin
        if plugin is None:
            return None
        allow(plugin)
        return shlex.join(plugin.command)

    def close(self) -> None:
        for sweep_id in list(self._watches):
            self._end_watch(sweep_id)
        self._locations.close()


def _described(name: str, context: KubeContext | str, current: bool) -> ClusterContext:
    if isinstance(context, str):
        return ClusterContext(name, current=current, trouble=context)
    plugin = context.plugin
    return ClusterContext(
        name,
        context.server,
        context.namespace,
        current,
        plugin=None if plugin is None else f"{plugin.source}: {shlex.join(plugin.command)}",
        allowed=plugin is None or is_allowed(plugin),
    )


def _note_used_caches(location: JobLocation, labels: Mapping[str, str], pod: Object) -> None:
    """Record that the pod's node has the caches that the job used."""
    kinds = tuple(filter(None, labels.get(CACHES, "").split(".")))
    node = pod.get("spec", {}).get("nodeName")
    if node and labels.get(SCOPE) and labels.get(REQUEST) and READS_CACHE_ONLY not in labels:
        location.volumes.note(labels[SCOPE], node, kinds, labels[REQUEST])
