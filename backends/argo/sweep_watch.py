"""The pods and the Workflow of a sweep, kept up to date by two watches while its tasks are followed.

Without it, each look at a sweep of a thousand tasks would be thousands of requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from backends.argo.cluster import Cluster, pods_path, workflows_path
from backends.argo.names import TASK, WORKFLOW, labels_of
from backends.argo.resources import KubernetesResources
from backends.argo.status import is_over, terminated
from backends.argo.task_status import started_tasks
from backends.argo.watch import Watch, WatchEvent
from stoke.errors import EngineError
from stoke.files.debug import Logger

_log = Logger(__name__)

Object = dict[str, Any]
READY_SECONDS = 10.0
STATUS_SECONDS = 5.0
"""Seconds between requests for the status of a sweep that runs, which may have a megabyte."""


class SweepWatch:
    """Safe to use from several threads. `on_pod` gets each change of a task's pod.

    Raises `EngineError` from every method once a watch cannot go on.
    """

    def __init__(
        self,
        cluster: Cluster,
        resources: KubernetesResources,
        sweep_id: str,
        on_pod: Callable[[str, Object], None],
    ) -> None:
        self._resources = resources
        self._sweep_id = sweep_id
        self._on_pod = on_pod
        self._lock = threading.Lock()
        self._error: EngineError | None = None
        self._metadata: Object | None = None
        self._pods: dict[int, Object] = {}
        self._started = 0
        self._status: Object | None = None
        self._asked_at = 0.0
        self._listed = {"pods": threading.Event(), "workflow": threading.Event()}
        namespace = cluster.namespace
        self._watches = {
            "pods": Watch(
                cluster,
                pods_path(namespace),
                query={"labelSelector": f"{WORKFLOW}={sweep_id}"},
                reduce=_reduced,
            ),
            "workflow": Watch(
                cluster,
                workflows_path(namespace),
                query={"fieldSelector": f"metadata.name={sweep_id}"},
                metadata=True,
            ),
        }
        for name, take in (("pods", self._take_pods), ("workflow", self._take_workflow)):
            threading.Thread(target=self._read, args=(name, take), daemon=True).start()

    def metadata(self) -> Object | None:
        """Return the workflow's metadata; None if the cluster does not have it (any more)."""
        self._wait()
        return self._metadata

    def pod(self, number: int) -> Object | None:
        """Return the pod of a task, as it was last seen if it has ended and was deleted."""
        self._wait()
        with self._lock:
            return self._pods.get(number)

    def started(self) -> int:
        """Return how many tasks have been started, including those whose pods are gone."""
        self._wait()
        if self._status is None or (self._metadata and is_over(self._metadata)):
            whole = self.whole()
            if whole is not None:
                self._note_started(started_tasks(whole))
        return self._started

    def whole(self) -> Object | None:
        """Return the workflow with its status, which may be some seconds old while it runs."""
        self._wait()
        known, metadata = self._status, self._metadata
        is_final = known is not None and is_over(known)
        is_new = time.monotonic() - self._asked_at < STATUS_SECONDS
        if known is not None and (is_final or (is_new and not (metadata and is_over(metadata)))):
            return known
        self._asked_at = time.monotonic()
        self._status = self._resources.workflow(self._sweep_id)
        return self._status

    def close(self) -> None:
        for watch in self._watches.values():
            watch.close()

    def _note_started(self, number: int) -> None:
        with self._lock:
            self._started = max(self._started, number)

    def _wait(self) -> None:
        until = time.monotonic() + READY_SECONDS
        for name, listed in self._listed.items():
            if not listed.wait(max(0.0, until - time.monotonic())):
                raise EngineError(f"the cluster does not list the {name} of {self._sweep_id}")
        if self._error is not None:
            raise self._error

    def _read(self, name: str, take: Callable[[list[WatchEvent]], None]) -> None:
        try:
            for changes in self._watches[name]:
                take(changes)
                self._listed[name].set()
        except EngineError as error:
            _log.debug("%s: the watch of its %s ended: %s", self._sweep_id, name, error.what)
            self._error = error
        except Exception as error:
            _log.exception("%s: the watch of its %s failed", self._sweep_id, name)
            self._error = EngineError(f"the watch of {self._sweep_id} failed: {error}")
        self._listed[name].set()

    def _take_workflow(self, changes: list[WatchEvent]) -> None:
        for change in changes:
            self._metadata = None if change.kind == "DELETED" else change.object

    def _take_pods(self, changes: list[WatchEvent]) -> None:
        for change in changes:
            label = labels_of(change.object).get(TASK, "")
            if not label.isdecimal():
                continue
            number = int(label)
            with self._lock:
                if change.kind != "DELETED" or terminated(change.object) is not None:
                    self._pods[number] = change.object
                elif _is_same(self._pods.get(number), change.object):
                    del self._pods[number]
            self._note_started(number)
            self._on_pod(f"{self._sweep_id}-{number}", change.object)


def _is_same(known: Object | None, pod: Object) -> bool:
    return known is not None and known["metadata"]["uid"] == pod["metadata"]["uid"]


def _reduced(pod: Object) -> Object:
    """Return what is ever asked of a pod: a tenth of it, and a sweep has thousands."""
    about = {
        name: value
        for name, value in pod["metadata"].items()
        if name not in ("managedFields", "annotations", "ownerReferences")
    }
    spec = pod.get("spec") or {}
    containers = [
        {"name": one["name"], "resources": one.get("resources") or {}}
        for one in spec.get("containers") or ()
    ]
    reduced = {"nodeName": spec.get("nodeName"), "containers": containers}
    return {"metadata": about, "spec": reduced, "status": pod.get("status") or {}}
