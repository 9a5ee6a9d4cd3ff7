"""The Argo backend: a job is one Workflow of one pod, both named by the job's id."""

from __future__ import annotations

import math
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from backends.argo.bundle import unpack_spec
from backends.argo.check import look
from backends.argo.cluster import ApiError
from backends.argo.credential_plugins import allow, is_allowed
from backends.argo.housekeeping import housekeep
from backends.argo.job_locations import Place, Places
from backends.argo.log_stream import JobLog
from backends.argo.manifest import as_yaml
from backends.argo.names import (
    CACHES,
    CARRIES,
    JOB,
    JOBS,
    MANAGED,
    NONCE,
    ONCE,
    READS,
    REQUEST,
    SCOPE,
    WAITS,
    has_labels,
    labels_of,
    request_label,
)
from backends.argo.pods import JobPods
from backends.argo.resources import Records
from backends.argo.setup import preparations
from backends.argo.state import (
    KEPT_FROM_RUNNING_TWICE,
    OVERLOOKED,
    RAN_TWICE,
    Moments,
    epoch,
    explained,
    gives_up_at,
    has_started,
    is_over,
    overlooked_at,
    state_of,
    terminated,
    why_waiting,
)
from backends.argo.templates import spec_of
from backends.argo.volumes import SHARED
from backends.argo.workflow import (
    DELIVERED,
    PUBLIC_IMAGE,
    RELEASE,
    RELEASE_WITH_SECRET,
    SHUTDOWN,
    Made,
    given_up,
    make_job,
    owner_of,
    used_caches,
    whole,
)
from stoke.backend.api import (
    Capabilities,
    CheckResult,
    Delivery,
    EngineState,
    FoundJob,
    LogStream,
    PhaseReport,
    Volume,
)
from stoke.backend.capabilities import ClusterContext, Preparation
from stoke.config.model import Config
from stoke.errors import EXIT_ENGINE, EngineError
from stoke.text.units import human_seconds

if TYPE_CHECKING:
    from backends.argo.kubeconfig import Context

Object = dict[str, Any]
# What a pod gets for a hard stop: with 0 the cluster forgets it at once, and its log with it.
HARD_SECONDS = 1
RESOURCES = {"ConfigMap": "configmaps", "Secret": "secrets"}


class ArgoBackend:
    """Jobs on a cluster. Making one connects to nothing and imports neither kubernetes nor hera."""

    name = "argo"

    def __init__(self, config: Config) -> None:
        self._config = config
        argo = config.argo
        self._places = Places(argo)
        self._lock = threading.Lock()
        self._moments: dict[str, Moments] = {}
        # As they were seen last: a pod that was deleted has an end that nobody else remembers.
        self._pods: dict[str, Object] = {}
        self._job_pods: dict[str, JobPods] = {}
        self.capabilities = Capabilities(
            images=True,
            limits=True,
            system_packages=not argo.restricted,
            counts_bytes=True,
            isolation="jobs run in pods of their own, "
            + ("without root" if argo.restricted else "as root without capabilities")
            + "; jobs of one scope can change each other's packages",
            named_secrets=True,
            stop_forgets_log=True,
        )

    # ------------------------------------------------------------------ jobs

    def submit(self, delivery: Delivery, report: PhaseReport) -> None:
        spec = delivery.spec
        began = time.time()
        nodes: tuple[str, ...] = ()
        self._places.remember(delivery.job_id)
        volumes = self._places.here.volumes
        for kind in used_caches(spec.use_cache, bool(spec.system)):
            volumes.ensure(spec.scope, kind)
        if spec.use_cache and spec.has_packages:
            nodes = volumes.warm_nodes(spec.scope, request_label(delivery.request_hash))
        # What is in /nix is used through Nix's database, which every user of it writes to.
        may_read = spec.use_cache and not spec.system and not delivery.renews
        request = request_label(delivery.request_hash)
        reads = may_read and volumes.only_reads(spec.scope, request, self._config.lock_ttl)
        made = make_job(delivery, self._config, nodes, reads)
        try:
            self._create(delivery.job_id, made)
        except BaseException:
            # Also ctrl+c. What has begun is a job, whatever became of the cluster's answer.
            if not self._take_back(delivery.job_id):
                raise
        with self._lock:
            self._moments[delivery.job_id] = Moments(began)
        report("queue", began, None)

    def _create(self, job_id: str, made: Made) -> None:
        records = self._places.here.records
        try:
            posted = records.create("workflows", made.workflow)
        except ApiError as error:
            # Sent before, or it came and its answer did not: then it is there.
            there = self._metadata(job_id) if error.status in (0, 409) else None
            if there is None:
                raise self._refused(error, job_id) from error
            posted = there
        if made.carried is None or WAITS not in labels_of(posted):
            return
        kind = made.carried["kind"]
        owner = owner_of({**posted, "apiVersion": made.workflow["apiVersion"]})
        about = {**made.carried["metadata"], "ownerReferences": [owner]}
        try:
            records.create(RESOURCES[kind], {**made.carried, "metadata": about})
        except ApiError as error:
            if error.status == 403:
                raise EngineError(
                    f"the job needs a {kind} beside its workflow, and you may not make one: "
                    f"{error.message}",
                    "refer to a secret of the cluster, --secret NAME=secret:NAME/KEY; or have the "
                    "right given: stoke setup argo --apply"
                    if kind == "Secret"
                    else "have the right given: stoke setup argo --apply",
                ) from error
            if error.status != 409:
                raise
        records.patch_workflow(job_id, DELIVERED)

    def _refused(self, error: ApiError, job_id: str) -> EngineError:
        cluster = self._places.here.cluster
        namespace = cluster.namespace
        if error.status == 409:
            return EngineError(
                f"a workflow called {job_id} is there and is not this job",
                f"look at it: {cluster.kubectl} get workflow {job_id} -n {namespace}",
            )
        if error.status == 404 and "namespace" in error.message:
            return EngineError(
                f"the cluster has no namespace {namespace}",
                "choose another: --namespace NAMESPACE; or make it: stoke setup argo --apply",
            )
        if error.status == 404:
            return EngineError(
                f"the cluster of the context {cluster.context_name} has no Argo Workflows",
                "choose another: --context CONTEXT; see what is there: stoke doctor",
            )
        if error.hint is None and error.message:
            return EngineError(error.what, explained(error.message).hint)
        return error

    def _take_back(self, job_id: str) -> bool:
        """After a failed submit: False when nothing of it runs, and what was made is gone again."""
        try:
            workflow = self._metadata(job_id)
            if workflow is None:
                return False
            if WAITS not in labels_of(workflow):
                return True
            self.remove(job_id)
        except EngineError:
            pass  # Out of reach; it stays labelled, and whoever lists jobs next removes it.
        return False

    def inspect(self, job_id: str) -> EngineState:
        workflow = self._metadata(job_id)
        if workflow is None:
            return EngineState("absent", reason=self._why_absent())
        place = self._places.of(job_id)
        pod = place.records.pod(job_id)
        with self._lock:
            last = self._pods.get(job_id)
            if pod is None and last is not None and terminated(last) is not None:
                pod = last
            moments = self._moments.setdefault(job_id, Moments())
            moments.see(pod, time.time())
            phases = moments.phases(epoch(workflow["metadata"].get("creationTimestamp")))
        ended = terminated(pod) if pod is not None else None
        if pod is not None and self._should_give_up(pod):
            workflow = self._give_up(place.records, workflow, pod)
        elif pod is not None and ended is not None:
            if ended["exitCode"] != EXIT_ENGINE:
                _note(place, labels_of(workflow), pod)
        elif pod is None or is_over(workflow):
            # What Argo noted of it stands in its status, which metadata lacks.
            workflow = place.records.workflow(job_id) or workflow
        state = replace(state_of(workflow, pod, phases), notes=self._notes(job_id, workflow, pod))
        at = overlooked_at(workflow)
        if state.status == "running" and pod is None and at is not None and time.time() >= at:
            return replace(state, reason=OVERLOOKED.text, hint=OVERLOOKED.hint)
        return state

    def logs(self, job_id: str, since: int, follow: bool) -> LogStream:
        return JobLog(
            self._places.of(job_id).cluster,
            job_id,
            since,
            follow,
            partial(self._see, job_id),
            partial(self._look_for_pull, job_id),
            self._config.argo.start_timeout,
            preface=partial(self._preface, job_id),
        )

    def stop(self, job_id: str, grace: float) -> str | None:
        workflow = self._metadata(job_id)
        if workflow is None or is_over(workflow):
            return None
        records = self._places.of(job_id).records
        records.patch_workflow(job_id, SHUTDOWN)
        pod = records.pod(job_id)
        if pod is None or terminated(pod) is not None:
            return None
        seconds = max(HARD_SECONDS, math.ceil(grace)) if has_started(pod) else 0
        try:
            records.delete_pod(job_id, seconds)
        except ApiError as error:
            if error.status != 403:
                raise
            # Argo does it by itself, 5 to 8 seconds later.
            return "you may not delete its pod, so Argo ends it, which may take 10 seconds"
        return None

    def _should_give_up(self, pod: Object) -> bool:
        at = gives_up_at(pod, self._config.argo.start_timeout)
        return at is not None and time.time() >= at

    def _give_up(self, records: Records, workflow: Object, pod: Object) -> Object:
        """Ends a job that cannot start, with the reason where every client finds it; the workflow as
        it is then. Without the right to do so it goes on waiting."""
        name, waits = pod["metadata"]["name"], why_waiting(pod)
        text = f"given up, because {waits.text}\n{waits.hint or ''}"
        try:
            records.patch_workflow(name, given_up(text))
            records.delete_pod(name, 0)
        except ApiError as error:
            if error.status != 403:
                raise
        return records.metadata(name) or workflow

    def remove(self, job_id: str) -> None:
        if self._metadata(job_id) is not None:
            self._places.of(job_id).records.delete_workflow(job_id)
        self._forget(job_id)

    def release(self, job_id: str) -> None:
        """Leave the workflow to its TTL, so that Argo sees, shows, archives and counts it; not so the
        secret that it carries."""
        if self._config.argo.delete_finished:
            self.remove(job_id)
            return
        workflow = self._metadata(job_id)
        if workflow is not None:
            records = self._places.of(job_id).records
            changes = RELEASE
            if labels_of(workflow).get(CARRIES) == "secret":
                try:
                    records.delete_secret(job_id)
                except ApiError as error:
                    if error.status != 403:
                        raise
                    changes = RELEASE_WITH_SECRET
            records.patch_workflow(job_id, changes)
        self._forget(job_id)

    def _forget(self, job_id: str) -> None:
        with self._lock:
            self._moments.pop(job_id, None)
            self._pods.pop(job_id, None)
            self._job_pods.pop(job_id, None)
        self._places.forget(job_id)

    def jobs(self) -> list[FoundJob]:
        found: list[FoundJob] = []
        if not self._places.here.is_configured():
            return found
        for workflow in self._places.here.records.listed(JOBS):
            labels = labels_of(workflow)
            name, scope = workflow["metadata"]["name"], labels.get(SCOPE)
            if not scope or labels.get(JOB) != name:
                continue  # Somebody copied our labels.
            submitted = epoch(workflow["metadata"]["creationTimestamp"]) or 0.0
            self._places.found(name)
            read_spec = partial(self._public_spec, name)
            found.append(FoundJob(name, scope, submitted, labels.get(NONCE), read_spec))
        return found

    def _why_absent(self) -> str:
        keep = human_seconds(self._config.argo.keep)
        return (
            "the cluster no longer has its workflow: somebody deleted it, "
            f"or it ended more than {keep} ago (argo.keep)"
        )

    def _metadata(self, job_id: str) -> Object | None:
        """A job of ours; a workflow that only has its name is none."""
        workflow = self._places.of(job_id).records.metadata(job_id)
        if workflow is None or not has_labels(workflow, {MANAGED: "true", JOB: job_id}):
            return None
        return workflow

    def _public_spec(self, job_id: str) -> bytes | None:
        """As it stands in the workflow, unless it was too long for that."""
        try:
            packed = spec_of(self._places.of(job_id).records.workflow(job_id) or {})
        except (EngineError, LookupError, TypeError, ValueError):
            return None
        return unpack_spec(packed)

    # ------------------------------------------------------------------ what is seen on the way

    def _see(self, job_id: str, pod: Object | None) -> None:
        """A change of a job's pod, while its log is followed."""
        with self._lock:
            if pod is not None:
                self._pods[job_id] = pod
            self._moments.setdefault(job_id, Moments()).see(pod, time.time())
        if pod is not None:
            self._pods_of(job_id).see_pod(pod)

    def _pods_of(self, job_id: str) -> JobPods:
        with self._lock:
            if job_id not in self._job_pods:
                self._job_pods[job_id] = JobPods(job_id)
            return self._job_pods[job_id]

    def _notes(
        self, job_id: str, workflow: Object, pod: Object | None
    ) -> tuple[tuple[str, str | None], ...]:
        """That the code has started in more than one pod."""
        if pod is None:
            return ()
        pods = self._pods_of(job_id)
        pods.see_pod(pod)
        if ONCE in labels_of(workflow) or not has_started(pod):
            return ()  # The second start refuses, and says so.
        records = self._places.of(job_id).records
        if not pods.ran_before(pod["metadata"], workflow, records):
            return ()
        return ((RAN_TWICE.text or "", RAN_TWICE.hint),)

    def _preface(self, job_id: str, pod: Object) -> str | None:
        """What belongs above the log of a pod (its metadata), if that is not the job's first."""
        pods = self._pods_of(job_id)
        workflow = self._metadata(job_id)
        if workflow is None:
            return None
        records = self._places.of(job_id).records
        if not pods.ran_before(pod["metadata"], workflow, records):
            return None
        return (KEPT_FROM_RUNNING_TWICE if ONCE in labels_of(workflow) else RAN_TWICE).text

    def _look_for_pull(self, job_id: str) -> None:
        """Once its container has started: how long it took to get the image."""
        try:
            events = self._places.of(job_id).records.events(job_id)
        except EngineError:
            return  # Without the right to read them it is a part of the start.
        with self._lock:
            self._moments.setdefault(job_id, Moments()).see_events(events)

    # ------------------------------------------------------------------ caches and the rest

    def volumes(self) -> list[Volume]:
        if not self._places.here.is_configured():
            return []
        return self._places.here.volumes.found()

    def housekeep(
        self, volume: Volume, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        self._places.here.volumes.check_is_ours(volume)
        last = operation.get("image")
        image = self._config.argo.image or (last if isinstance(last, str) else PUBLIC_IMAGE)
        result = housekeep(
            self._places.here.cluster, self._config, image, volume, operation, progress
        )
        if operation["do"] != "usage" and not operation.get("dry_run"):
            self._places.here.volumes.forget(volume.scope, volume.node or SHARED)
        return result

    def check(self) -> list[CheckResult]:
        return look(self._places.here.cluster, self._config)

    def render(self, delivery: Delivery) -> str:
        """As YAML that `kubectl create -f -` and, where it is one object, `argo submit -` take."""
        made = make_job(delivery, self._config)
        return as_yaml(*whole(made))

    def preparations(
        self,
        scopes: Sequence[str],
        users: Sequence[str],
        groups: Sequence[str],
        prune: tuple[str, float] | None,
    ) -> list[Preparation]:
        here = self._places.here
        volumes = here.volumes.found() if prune else ()
        return preparations(here.cluster, self._config, volumes, scopes, users, groups, prune)

    def contexts(self) -> list[ClusterContext]:
        from backends.argo import kubeconfig  # Loads kubernetes.

        current, found = kubeconfig.listed(self._config.argo.kubeconfig)
        current = self._config.argo.context or current
        return [_described(name, context, name == current) for name, context in found.items()]

    def choose(self, context: str | None, namespace: str | None) -> None:
        self._places.move(context, namespace)

    def allow_plugin(self) -> str | None:
        plugin = self._places.here.cluster.plugin
        if plugin is None:
            return None
        allow(plugin)
        return shlex.join(plugin.command)

    def close(self) -> None:
        self._places.close()


def _described(name: str, context: Context | str, current: bool) -> ClusterContext:
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


def _note(place: Place, labels: Mapping[str, str], pod: Object) -> None:
    """That the node has the caches that the job used."""
    kinds = tuple(filter(None, labels.get(CACHES, "").split(".")))
    node = pod["spec"].get("nodeName")
    if node and labels.get(SCOPE) and labels.get(REQUEST) and READS not in labels:
        place.volumes.note(labels[SCOPE], node, kinds, labels[REQUEST])
