"""A job's log from before its container is there until it has ended, however late somebody begins.

Kubernetes has no log before a container has started, and ends one a second before it says that the
container has. Both are waited for with a watch on the job's pod.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

from backends.argo.cluster import METADATA_ONE, ApiError, Cluster, pods_path, workflows_path
from backends.argo.names import WORKFLOW
from backends.argo.pod_log import PodLog
from backends.argo.state import (
    MAIN,
    gives_up_at,
    has_ended,
    has_started,
    is_over,
    overlooked_at,
)
from backends.argo.watch import Change, Watch
from backends.common.records import take_record
from stoke.backend.api import ENGINE, Frame, LogEndingError
from stoke.errors import EngineError

# Between the end of a log and the container's status: 1.2 to 1.7 s were measured.
END_SECONDS = 10.0
# How often one is asked for that should no longer be waited for, and is.
AGAIN_SECONDS = 10.0


def job_or_argo(time: int, data: bytes) -> Frame:
    """One line of the container's log: Argo writes lines of its own, which are not records."""
    return take_record(time, data) or Frame(ENGINE, time, data)


class Sight:
    """The newest that is known of a job's pod and workflow, kept by two watches on threads."""

    def __init__(
        self, cluster: Cluster, job_id: str, on_pod: Callable[[dict[str, Any] | None], None]
    ) -> None:
        self.pod: dict[str, Any] | None = None
        self.pod_is_gone = False
        self.workflow: dict[str, Any] | None = None
        self.workflow_is_over = False
        self._on_pod = on_pod
        self._news: SimpleQueue[EngineError | None] = SimpleQueue()
        namespace = cluster.namespace
        self._pods = Watch(
            cluster, pods_path(namespace), query={"labelSelector": f"{WORKFLOW}={job_id}"}
        )
        self._workflows = Watch(
            cluster,
            workflows_path(namespace),
            query={"fieldSelector": f"metadata.name={job_id}"},
            metadata=True,
        )
        for watch, take in ((self._pods, self._take_pod), (self._workflows, self._take_workflow)):
            threading.Thread(target=self._read, args=(watch, take), daemon=True).start()

    def wait(self, seconds: float | None = None) -> bool:
        """Until there are news; False when none came in that time. Raises what ended a watch."""
        try:
            trouble = self._news.get(timeout=seconds)
        except Empty:
            return False
        if trouble is not None:
            raise trouble
        return True

    def close(self) -> None:
        self._pods.close()
        self._workflows.close()
        self._news.put(None)

    def _read(self, watch: Watch, take: Callable[[list[Change]], None]) -> None:
        try:
            for changes in watch:
                take(changes)
                self._news.put(None)
        except EngineError as error:
            self._news.put(error)

    def _take_pod(self, changes: list[Change]) -> None:
        for change in changes:
            self.pod = change.object
            self.pod_is_gone = change.kind == "DELETED"
        self._on_pod(self.pod)

    def _take_workflow(self, changes: list[Change]) -> None:
        for change in changes:
            self.workflow = change.object
            self.workflow_is_over = change.kind == "DELETED" or is_over(change.object)


class JobLog:
    """See `stoke.backend.LogStream`. `on_pod` hears of every change of the pod that is seen on the way
    (None: there is none yet), `on_start` once when its container has started. `start_timeout` is for
    how many seconds one that cannot start is waited for: then it is worth asking how the job stands."""

    def __init__(
        self,
        cluster: Cluster,
        job_id: str,
        since: int,
        follow: bool,
        on_pod: Callable[[dict[str, Any] | None], None],
        on_start: Callable[[], None],
        start_timeout: float,
        node_timeout: float | None = None,
        preface: Callable[[dict[str, Any]], str | None] = lambda pod: None,
    ) -> None:
        self._preface = preface
        self._found: dict[str, Any] | None = None
        self._cluster = cluster
        self._job_id = job_id
        self._follow = follow
        self._on_pod = on_pod
        self._on_start = on_start
        self._start_timeout = start_timeout
        self._node_timeout = node_timeout
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._sight: Sight | None = None
        self._log = PodLog(cluster, job_id, MAIN, since, follow, job_or_argo)

    def __iter__(self) -> Iterator[list[Frame]]:
        try:
            if self._follow:
                yield from self._until_started()
            yield from self._batches()
            if self._follow and not self.was_silent:
                self._until_ended()
        finally:
            self.close()

    @property
    def was_silent(self) -> bool:
        """Whether it ended because nothing came for long, while the job may go on."""
        return self._log.was_silent

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            sight = self._sight
        if sight is not None:
            sight.close()
        self._log.close()

    def _batches(self) -> Iterator[list[Frame]]:
        try:
            self._found = None if self._closed.is_set() else self._pod()
            if self.source is not None and self._follow:
                # Whose log it is may be news before a line of it is.
                yield []
            certain = False
            for batch in self._log:
                if not certain:
                    self._make_certain()
                    certain = True
                yield batch
        except ApiError as error:
            # Not there yet, or not any more: how the job stands is asked elsewhere.
            if error.status in (400, 404):
                return
            if error.reason == "Cut" and self._is_deleted():
                raise LogEndingError(error.what, error.hint) from error
            raise

    @property
    def source(self) -> str | None:
        """The uid of the pod whose log it is."""
        return None if self._found is None else str(self._found["metadata"]["uid"])

    @property
    def preface(self) -> str | None:
        return None if self._found is None else self._preface(self._found)

    def _make_certain(self) -> None:
        """A log is asked for by its pod's name, which another may have by now."""
        pod = self._pod()
        if self._found and pod and pod["metadata"]["uid"] != self._found["metadata"]["uid"]:
            raise ApiError(f"the pod {self._job_id} was replaced by another", reason="Cut")

    def _is_deleted(self) -> bool:
        """Whether the pod is being deleted: its node removes the containers, and then their logs."""
        pod = None if self._closed.is_set() else self._pod()
        return pod is not None and "deletionTimestamp" in pod["metadata"]

    def _pod(self) -> dict[str, Any] | None:
        """The metadata of the job's pod."""
        path = pods_path(self._cluster.namespace, self._job_id)
        try:
            pod: dict[str, Any] = self._cluster.request("GET", path, accept=METADATA_ONE)
        except ApiError as error:
            if error.status in (403, 404):
                return None
            raise
        return pod

    def _until_started(self) -> Iterator[list[Frame]]:
        with self._lock:
            if self._closed.is_set():
                return
            self._sight = sight = Sight(self._cluster, self._job_id, self._on_pod)
        try:
            while True:
                sight.wait(self._patience(sight))
                if self._closed.is_set():
                    return
                if sight.pod is not None and (has_started(sight.pod) or has_ended(sight.pod)):
                    self._on_start()
                    yield []
                    return
                yield []
                if sight.workflow_is_over:
                    return
        except ApiError as error:
            if error.status != 403:
                raise
            # Who may not watch has to ask again and again, which the follower does.

    def _patience(self, sight: Sight) -> float | None:
        """Seconds until it is worth asking how the job stands though nothing has changed."""
        at = None
        if sight.pod is not None:
            at = gives_up_at(sight.pod, self._start_timeout, self._node_timeout)
        elif sight.workflow is not None:
            at = overlooked_at(sight.workflow)
        left = None if at is None else at - time.time()
        return left if left is None or left > 0 else AGAIN_SECONDS

    def _until_ended(self) -> None:
        sight = self._sight
        deadline = time.monotonic() + END_SECONDS
        while sight is not None and not self._closed.is_set():
            if sight.pod is None or sight.pod_is_gone or has_ended(sight.pod):
                return
            try:
                if not sight.wait(max(0.0, deadline - time.monotonic())):
                    return
            except EngineError:
                return
