"""The cluster and namespace of each job: those that were configured when it was submitted.

The location is stored beside the job's log. The current context may change later, by kubectl or by
an option, and a job that is looked up in another cluster would seem lost.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from backends.argo import credential_plugins
from backends.argo.cluster import Cluster
from backends.argo.resources import KubernetesResources
from backends.argo.task_names import workflow_of
from backends.argo.volumes import ArgoVolumes
from stoke.config.model import ArgoConfig
from stoke.files.paths import job_dir, make_private
from stoke.files.untrusted import read_json

NOTE = "cluster.json"
DEFAULT_FILE = Path("~/.kube/config")


class JobLocation:
    """One namespace of one cluster."""

    def __init__(
        self, context: str | None, namespace: str | None, kubeconfig: str | None, argo: ArgoConfig
    ) -> None:
        self.cluster = Cluster(
            context=context,
            namespace=namespace,
            kubeconfig=kubeconfig,
            approve=credential_plugins.refuse_unknown,
        )
        self.resources = KubernetesResources(self.cluster)
        self.volumes = ArgoVolumes(self.cluster, argo)
        self.requested = (context, namespace)
        self._context = context
        self._kubeconfig = kubeconfig

    def is_configured(self) -> bool:
        """Whether a cluster is configured at all. Without one, listings do not mention Argo."""
        named = self._kubeconfig or os.environ.get("KUBECONFIG")
        in_a_pod = "KUBERNETES_SERVICE_HOST" in os.environ
        return bool(named or self._context) or in_a_pod or os.path.exists(DEFAULT_FILE.expanduser())

    def note(self) -> tuple[str | None, str, str | None]:
        """Return what finds this location again after the current context has changed."""
        from backends.argo.kubeconfig import IN_CLUSTER  # Loads kubernetes.

        name = self.cluster.context_name
        context = None if name == IN_CLUSTER else name
        return context, self.cluster.namespace, self._kubeconfig


class JobLocations:
    """The configured location, and those of jobs submitted elsewhere. Connects to none of them."""

    def __init__(self, argo: ArgoConfig) -> None:
        self._argo = argo
        self._lock = threading.Lock()
        self._previous: list[JobLocation] = []
        self._by_note: dict[tuple[str | None, str | None, str | None], JobLocation] = {}
        self._by_job: dict[str, JobLocation] = {}
        self.current = JobLocation(argo.context, argo.namespace, argo.kubeconfig, argo)

    def move(self, context: str | None, namespace: str | None) -> None:
        """Change the configured location; None means the value from the configuration.

        Jobs stay where they are, and operations in progress continue.
        """
        wanted = (context or self._argo.context, namespace or self._argo.namespace)
        with self._lock:
            if wanted != self.current.requested:
                self._previous.append(self.current)
                self.current = JobLocation(*wanted, self._argo.kubeconfig, self._argo)

    def of(self, job_id: str) -> JobLocation:
        job_id = workflow_of(job_id)  # A task is where its sweep is.
        with self._lock:
            if job_id not in self._by_job:
                self._by_job[job_id] = self._read(job_id)
            return self._by_job[job_id]

    def remember(self, job_id: str, location: JobLocation | None = None) -> None:
        """Store that a job is in a location, by default the configured one."""
        location = location or self.current
        (make_private(job_dir(job_id)) / NOTE).write_text(json.dumps(location.note()))
        with self._lock:
            self._by_job[job_id] = location

    def remember_found(self, job_id: str, location: JobLocation | None = None) -> None:
        """Store that a job was found in a location (the configured one), unless its location is
        known."""
        if not (job_dir(job_id) / NOTE).exists():
            self.remember(job_id, location)

    def forget(self, job_id: str) -> None:
        with self._lock:
            self._by_job.pop(job_id, None)

    def close(self) -> None:
        for location in (self.current, *self._previous, *self._by_note.values()):
            location.cluster.close()

    def _read(self, job_id: str) -> JobLocation:
        try:
            context, namespace, kubeconfig = read_json(job_dir(job_id) / NOTE)
        except (OSError, ValueError, TypeError):
            return self.current
        note = (context, namespace, kubeconfig)
        if not all(isinstance(one, str | None) for one in note):
            return self.current
        if note == self.current.note():
            return self.current
        if note not in self._by_note:
            self._by_note[note] = JobLocation(*note, self._argo)
        return self._by_note[note]
