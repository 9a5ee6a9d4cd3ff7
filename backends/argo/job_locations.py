"""Which cluster and namespace a job is in: the configured one when it was submitted.

It is noted beside the job's log, because contexts change, with kubectl or with an option, and a job
that was looked for elsewhere would seem lost.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from backends.argo import credential_plugins
from backends.argo.cluster import Cluster
from backends.argo.resources import Records
from backends.argo.volumes import Volumes
from stoke.config.model import ArgoConfig
from stoke.files.paths import job_dir, make_private
from stoke.files.untrusted import read_json

NOTE = "cluster.json"
DEFAULT_FILE = Path("~/.kube/config")


class Place:
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
        self.records = Records(self.cluster)
        self.volumes = Volumes(self.cluster, argo)
        self.asked = (context, namespace)
        self._context = context
        self._kubeconfig = kubeconfig

    def is_configured(self) -> bool:
        """Whether anything says that there is a cluster; who has none need not hear of it."""
        named = self._kubeconfig or os.environ.get("KUBECONFIG")
        in_a_pod = "KUBERNETES_SERVICE_HOST" in os.environ
        return bool(named or self._context) or in_a_pod or DEFAULT_FILE.expanduser().exists()

    def note(self) -> tuple[str | None, str, str | None]:
        """What finds it again, whatever the kubeconfig's current context is then."""
        from backends.argo.kubeconfig import IN_CLUSTER  # Loads kubernetes.

        name = self.cluster.context_name
        context = None if name == IN_CLUSTER else name
        return context, self.cluster.namespace, self._kubeconfig


class Places:
    """The configured place, and those of jobs that were submitted elsewhere. Connects to none."""

    def __init__(self, argo: ArgoConfig) -> None:
        self._argo = argo
        self._lock = threading.Lock()
        self._left: list[Place] = []
        self._by_note: dict[tuple[str | None, str | None, str | None], Place] = {}
        self._of_jobs: dict[str, Place] = {}
        self.here = Place(argo.context, argo.namespace, argo.kubeconfig, argo)

    def move(self, context: str | None, namespace: str | None) -> None:
        """Makes another place the configured one, from now on; None: as the configuration has it. Jobs
        stay where they are, and what is under way there goes on."""
        wanted = (context or self._argo.context, namespace or self._argo.namespace)
        with self._lock:
            if wanted != self.here.asked:
                self._left.append(self.here)
                self.here = Place(*wanted, self._argo.kubeconfig, self._argo)

    def of(self, job_id: str) -> Place:
        with self._lock:
            if job_id not in self._of_jobs:
                self._of_jobs[job_id] = self._read(job_id)
            return self._of_jobs[job_id]

    def remember(self, job_id: str) -> None:
        """That a job is in the configured place."""
        note = self.here.note()
        (make_private(job_dir(job_id)) / NOTE).write_text(json.dumps(note))
        with self._lock:
            self._of_jobs[job_id] = self.here

    def found(self, job_id: str) -> None:
        """That a job was found in the configured place, whoever submitted it."""
        if not (job_dir(job_id) / NOTE).exists():
            self.remember(job_id)

    def forget(self, job_id: str) -> None:
        with self._lock:
            self._of_jobs.pop(job_id, None)

    def close(self) -> None:
        for place in (self.here, *self._left, *self._by_note.values()):
            place.cluster.close()

    def _read(self, job_id: str) -> Place:
        try:
            context, namespace, kubeconfig = read_json(job_dir(job_id) / NOTE)
        except (OSError, ValueError, TypeError):
            return self.here
        note = (context, namespace, kubeconfig)
        if not all(isinstance(one, str | None) for one in note):
            return self.here
        if note == self.here.note():
            return self.here
        if note not in self._by_note:
            self._by_note[note] = Place(*note, self._argo)
        return self._by_note[note]
