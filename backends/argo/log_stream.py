"""A job's log from before its container starts until it has ended.

Kubernetes has no log before a container has started, and ends a log one second before it reports
that the container has ended. A watch on the job's pod tells both.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

from backends.argo.cluster import METADATA_ONE, ApiError, Cluster, pods_path, workflows_path
from backends.argo.diagnosis import NO_DIAGNOSIS, gives_up_at, why_silent
from backends.argo.names import WORKFLOW
from backends.argo.pod_log import PodLog
from backends.argo.shapes import IDENTIFIED
from backends.argo.state import unnoticed_at
from backends.argo.status import MAIN, has_ended, has_started, is_over
from backends.argo.task_names import pod_of, workflow_of
from backends.argo.watch import Watch, WatchEvent
from backends.common.stream_markers import decode_line
from stoke.backend.api import ENGINE, Frame, LogEndingError
from stoke.errors import EngineError

# Seconds from the end of a log to the container's final status: 1.2 to 1.7 were measured.
END_SECONDS = 10.0
# Pause between checks of a job whose waiting time is over.
AGAIN_SECONDS = 10.0


def job_or_argo(time: int, data: bytes) -> Frame:
    """Return a frame for one line of the container's log: the job's, or one of Argo's own lines."""
    return decode_line(time, data) or Frame(ENGINE, time, data)


class JobWatch:
    """The newest state of a job's pod and workflow, kept up to date by two watches on threads."""

    def __init__(
        self, cluster: Cluster, job_id: str, on_pod: Callable[[dict[str, Any] | None], None]
    ) -> None:
        self.pod: dict[str, Any] | None = None
        self.pod_is_gone = False
        self.workflow: dict[str, Any] | None = None
        self.workflow_is_over = False
        self._on_pod = on_pod
        self._news: SimpleQueue[Exception | None] = SimpleQueue()
        namespace = cluster.namespace
        workflow, pod = workflow_of(job_id), pod_of(job_id)
        of_job = {"labelSelector": f"{WORKFLOW}={workflow}"}
        if pod != workflow:  # A sweep has a pod for each task.
            of_job = {"fieldSelector": f"metadata.name={pod}"}
        self._pods = Watch(cluster, pods_path(namespace), query=of_job)
        self._workflows = Watch(
            cluster,
            workflows_path(namespace),
            query={"fieldSelector": f"metadata.name={workflow}"},
            metadata=True,
        )
        for watch, take in ((self._pods, self._take_pod), (self._workflows, self._take_workflow)):
            threading.Thread(target=self._read, args=(watch, take), daemon=True).start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for a change. Return False if none came in `seconds`. Raises the error that ended a
        watch."""
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

    def _read(self, watch: Watch, take: Callable[[list[WatchEvent]], None]) -> None:
        try:
            for changes in watch:
                take(changes)
                self._news.put(None)
        except Exception as error:  # Without it, the reader would wait for this thread for ever.
            self._news.put(error)

    def _take_pod(self, changes: list[WatchEvent]) -> None:
        for change in changes:
            self.pod = change.object
            self.pod_is_gone = change.kind == "DELETED"
        self._on_pod(self.pod)

    def _take_workflow(self, changes: list[WatchEvent]) -> None:
        for change in changes:
            self.workflow = change.object
            self.workflow_is_over = change.kind == "DELETED" or is_over(change.object)


class JobLog:
    """The log stream of a job; see `stoke.backend.api.LogStream`.

    `on_pod` is called with each observed change of the pod (None: there is no pod yet), and
    `on_start` once when its container has started. After `start_timeout` seconds in which a pod
    could not start, the stream gives an empty batch, so that its reader asks for the job's state.
    For the same reason it ends when the cluster loses contact with the job's node or regains it.
    """

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
        self._pod_name = pod_of(job_id)
        self._job_id = job_id
        self._follow = follow
        self._on_pod = on_pod
        self._node_is_lost: bool | None = None
        self._node_changed = False
        self._on_start = on_start
        self._start_timeout = start_timeout
        self._node_timeout = node_timeout
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._job_watch: JobWatch | None = None
        self._log = PodLog(cluster, self._pod_name, MAIN, since, follow, job_or_argo)

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
        """Whether the stream ended after a long silence or with its node's state, although the job may
        still run."""
        return self._log.was_silent or self._node_changed

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            # Each refers to the other, and would keep its connections.
            job_watch, self._job_watch = self._job_watch, None
        if job_watch is not None:
            job_watch.close()
        self._log.close()

    def _take_pod(self, pod: dict[str, Any] | None) -> None:
        self._on_pod(pod)
        is_lost = pod is not None and why_silent(pod) is not NO_DIAGNOSIS
        if self._node_is_lost not in (None, is_lost):
            self._node_changed = True
            self._log.close()
        self._node_is_lost = is_lost

    def _batches(self) -> Iterator[list[Frame]]:
        try:
            self._found = None if self._closed.is_set() else self._pod()
            if self.source is not None and self._follow:
                # Report the pod's identity (`source`) before its first line.
                yield []
            certain = False
            for batch in self._log:
                if not certain:
                    self._check_same_pod()
                    certain = True
                yield batch
        except ApiError as error:
            # The log does not exist yet, or not any more. Its reader asks for the job's state.
            if error.status in (400, 404):
                return
            if error.reason == "Cut" and self._is_deleted():
                raise LogEndingError(error.what, error.hint) from error
            raise

    @property
    def source(self) -> str | None:
        """The UID of the pod that the log belongs to."""
        return None if self._found is None else str(self._found["metadata"]["uid"])

    @property
    def preface(self) -> str | None:
        return None if self._found is None else self._preface(self._found)

    def _check_same_pod(self) -> None:
        """Raise unless the log belongs to the expected pod: it is requested by name, which a new pod
        may have."""
        pod = self._pod()
        if self._found and pod and pod["metadata"]["uid"] != self._found["metadata"]["uid"]:
            raise ApiError(f"the pod {self._pod_name} was replaced by another", reason="Cut")

    def _is_deleted(self) -> bool:
        """Whether the pod is being deleted. Its node removes the containers first and then their
        logs."""
        pod = None if self._closed.is_set() else self._pod()
        return pod is not None and "deletionTimestamp" in pod["metadata"]

    def _pod(self) -> dict[str, Any] | None:
        """Return the metadata of the job's pod."""
        path = pods_path(self._cluster.namespace, self._pod_name)
        try:
            pod: dict[str, Any] = self._cluster.request(
                "GET", path, accept=METADATA_ONE, shape=IDENTIFIED
            )
        except ApiError as error:
            if error.status in (403, 404):
                return None
            raise
        return pod

    def _until_started(self) -> Iterator[list[Frame]]:
        with self._lock:
            if self._closed.is_set():
                return
            self._job_watch = job_watch = JobWatch(self._cluster, self._job_id, self._take_pod)
        try:
            while True:
                job_watch.wait(self._patience(job_watch))
                if self._closed.is_set():
                    return
                if job_watch.pod is not None and (
                    has_started(job_watch.pod) or has_ended(job_watch.pod)
                ):
                    self._on_start()
                    yield []
                    return
                yield []
                if job_watch.workflow_is_over:
                    return
        except ApiError as error:
            if error.status != 403:
                raise
            # Without the right to watch, the follower has to poll, which it does.

    def _patience(self, job_watch: JobWatch) -> float | None:
        """Return the seconds until the state is worth asking for although nothing has changed."""
        at = None
        if job_watch.pod is not None:
            at = gives_up_at(job_watch.pod, self._start_timeout, self._node_timeout)
        elif job_watch.workflow is not None:
            at = unnoticed_at(job_watch.workflow)
        left = None if at is None else at - time.time()
        return left if left is None or left > 0 else AGAIN_SECONDS

    def _until_ended(self) -> None:
        job_watch = self._job_watch
        deadline = time.monotonic() + END_SECONDS
        while job_watch is not None and not self._closed.is_set():
            if job_watch.pod is None or job_watch.pod_is_gone or has_ended(job_watch.pod):
                return
            try:
                if not job_watch.wait(max(0.0, deadline - time.monotonic())):
                    return
            except EngineError:
                return
