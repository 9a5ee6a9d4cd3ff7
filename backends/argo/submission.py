"""Create the workflow of a job or a sweep and what it needs, so that it is whole or not there."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from backends.argo.ca_bundle import share_ca_bundle
from backends.argo.cluster import ApiError
from backends.argo.mounts import used_caches
from backends.argo.names import AWAITS_BUNDLE, labels_of, request_label
from backends.argo.pack_chunks import upload
from backends.argo.patches import DELIVERED, owner_of
from backends.argo.refusals import refused_object, refused_submission
from backends.argo.resources import PLURALS
from backends.argo.start_timeline import StartTimeline
from backends.argo.workflow import JobManifests, make_job
from backends.argo.workspace_volumes import check_workspace
from stoke.backend.api import Delivery, PhaseReport, UnsettledSubmitError
from stoke.errors import EngineError
from stoke.files.debug import Logger

if TYPE_CHECKING:
    from backends.argo.job_locations import JobLocation, JobLocations
    from backends.argo.volumes import ArgoVolumes
    from backends.argo.workspaces import ArgoWorkspaces
    from stoke.backend.capabilities import SweepPlan
    from stoke.config.model import Config
    from stoke.request.spec import JobSpec

_log = Logger(__name__)

Object = dict[str, Any]
# What makes the code begin, among what was sent of a job.
BEGINS = "all"


class ArgoSubmission:
    """The part of the backend that submits; the attributes and the abstract methods are those of the
    backend."""

    _config: Config
    _locations: JobLocations
    _lock: threading.Lock
    _timelines: dict[str, StartTimeline]

    def remove(self, job_id: str) -> None:
        raise NotImplementedError

    def _metadata(self, job_id: str) -> Object | None:
        raise NotImplementedError

    def _workspaces(self, location: JobLocation | None = None) -> ArgoWorkspaces:
        raise NotImplementedError

    def submit(self, delivery: Delivery, report: PhaseReport) -> None:
        began = time.time()
        self._hand_over(delivery.job_id, self._manifests(delivery))
        with self._lock:
            self._timelines[delivery.job_id] = StartTimeline(began)
        report("queue", began, None)

    def _manifests(self, delivery: Delivery, sweep: SweepPlan | None = None) -> JobManifests:
        """Return the manifests of a job or a sweep, for which the volumes are made."""
        spec = delivery.spec
        self._locations.remember(delivery.job_id)
        volumes = self._locations.current.volumes
        nodes = prepare_volumes(volumes, spec, delivery.request_hash)
        # Users of /nix write to Nix's database, so jobs with system packages never mount it
        # read-only.
        # A pack is stored on the cache.
        brings = delivery.project is not None and delivery.project.pack is not None
        may_read = spec.use_cache and not spec.system and not delivery.renews and not brings
        request = request_label(delivery.request_hash)
        reads = may_read and volumes.only_reads(spec.scope, request, self._config.lock_ttl)
        node = None
        if spec.workspace is not None:
            check_workspace(spec, self._config.argo)
            node = self._workspaces().ensure(spec.workspace, spec.scope)
        resources = self._locations.current.resources
        delivery, ca_bundle = share_ca_bundle(delivery, self._config.argo, resources)
        return make_job(delivery, self._config, nodes, reads, node, ca_bundle, sweep)

    def _hand_over(self, job_id: str, manifests: JobManifests) -> None:
        """Create all that the manifests name, or nothing."""
        sent: set[str] = set()
        try:
            self._create(job_id, manifests, sent)
        except BaseException as error:
            # Also after ctrl+c. A job that has started stays a job, whatever happened to the
            # response.
            runs = self._undo_submit(job_id)
            if runs is None and sent:
                raise UnsettledSubmitError(job_id, error, may_have_begun=BEGINS in sent) from error
            if not runs:
                raise

    def _create(self, job_id: str, manifests: JobManifests, sent: set[str]) -> None:
        """Create the job's objects. Add to `sent` what the cluster may have got: "workflow", and
        `BEGINS` with the last object that the code waits for."""
        resources = self._locations.current.resources
        waits = AWAITS_BUNDLE in labels_of(manifests.workflow)
        sent |= {"workflow"} if waits else {"workflow", BEGINS}
        try:
            posted = resources.create("workflows", manifests.workflow)
        except ApiError as error:
            if error.is_unsent or (error.status // 100 == 4 and error.status != 409):
                sent.clear()
            # The workflow exists if this is a repeated submit, or if only the response was lost.
            there = self._metadata(job_id) if error.status in (0, 409) else None
            if there is None:
                raise refused_submission(error, self._locations.current.cluster, job_id) from error
            posted = there
        if AWAITS_BUNDLE not in labels_of(posted):
            return
        owner = owner_of({**posted, "apiVersion": manifests.workflow["apiVersion"]})
        kind = "ConfigMap"
        try:
            if manifests.chunks:
                began = time.monotonic()
                created = upload(resources, manifests.chunks, owner)
                _log.debug(
                    "%s: created %d of %d chunks of its files in %.3f s",
                    job_id, created, len(manifests.chunks), time.monotonic() - began,
                )  # fmt: skip
            if manifests.bundle_object is not None:
                kind = manifests.bundle_object["kind"]
                about = {**manifests.bundle_object["metadata"], "ownerReferences": [owner]}
                sent.add(BEGINS)
                resources.create(PLURALS[kind], {**manifests.bundle_object, "metadata": about})
        except ApiError as error:
            if error.status == 403:
                raise refused_object(error, kind, "the job", "workflow") from error
            if error.status != 409:
                raise
        resources.patch_workflow(job_id, DELIVERED)

    def _undo_submit(self, job_id: str) -> bool | None:
        """Remove what a failed submit created.

        Return True if the job is complete and may be running, and None if the cluster does not
        answer.
        """
        try:
            workflow = self._metadata(job_id)
            if workflow is None:
                return False
            if AWAITS_BUNDLE not in labels_of(workflow):
                return True
            self.remove(job_id)
        except EngineError:
            return None
        return False


def prepare_volumes(volumes: ArgoVolumes, spec: JobSpec, request_hash: str) -> tuple[str, ...]:
    """Make the volumes of a job that it mounts; return the nodes that have its environment."""
    # Results are on the Python cache, also without caches.
    for kind in {"python", *used_caches(spec.use_cache, bool(spec.system))}:
        volumes.ensure(spec.scope, kind)
    if not (spec.use_cache and spec.has_packages):
        return ()
    return volumes.warm_nodes(spec.scope, request_label(request_hash))
