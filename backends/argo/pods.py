"""The pods that a job has had.

If a pod is deleted before Argo's controller has seen it run, Argo creates another under the same
name, and the code starts a second time. The pods that this machine has seen are stored beside the
job's log. The others are in the cluster's events, for as long as the cluster keeps them (an hour by
default) and if the user may list them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.argo.cluster import ApiError
from backends.argo.resources import KubernetesResources
from backends.argo.status import epoch, has_started
from stoke.errors import EngineError
from stoke.files.paths import job_dir
from stoke.files.untrusted import read_json

NOTE = "pods.json"
# A pod created later than this after its workflow may be the second one, given times in whole
# seconds: no code starts and is lost more quickly. Checking costs one request.
FIRST_SECONDS = 1.0
MOST = 20
Object = Mapping[str, Any]


class JobPods:
    """The pods of one job. Safe to use from several threads."""

    def __init__(self, job_id: str) -> None:
        self._job_id = job_id
        self._lock = threading.Lock()
        # UID of each pod -> whether its main container has started.
        self._seen: dict[str, bool] = self._read()
        self._requested: set[str] = set()

    def record(self, uid: str, started: bool) -> None:
        with self._lock:
            if self._seen.get(uid, False) >= started and uid in self._seen:
                return
            if len(self._seen) >= MOST and uid not in self._seen:
                return
            self._seen[uid] = started
            try:
                self._file.write_text(json.dumps(self._seen))
            except OSError:
                # The disk is full: this process remembers the pod, and others ask the cluster.
                pass

    def record_pod(self, pod: Object) -> None:
        uid = pod["metadata"].get("uid")
        if uid is not None:
            self.record(uid, has_started(pod))

    def ran_before(
        self, metadata: Object, workflow: Object, resources: KubernetesResources
    ) -> bool:
        """Whether the code has started in a pod other than this one. `metadata` is the pod's."""
        uid = metadata.get("uid", "")
        made, submitted = (
            epoch(one.get("creationTimestamp")) for one in (metadata, workflow["metadata"])
        )
        late = made is not None and submitted is not None and made - submitted > FIRST_SECONDS
        if late and uid not in self._requested:
            try:
                self._take_events(resources.events(self._job_id))
                self._requested.add(uid)
            except ApiError as error:
                if error.status == 403:
                    self._requested.add(uid)
            except EngineError:
                pass  # The next call asks again.
        with self._lock:
            return any(started for other, started in self._seen.items() if other != uid)

    def _take_events(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            about = event.get("involvedObject") or {}
            if event.get("reason") == "Started" and "{main}" in about.get("fieldPath", ""):
                self.record(str(about.get("uid")), started=True)

    @property
    def _file(self) -> Path:
        return job_dir(self._job_id) / NOTE

    def _read(self) -> dict[str, bool]:
        try:
            read = read_json(self._file)
            return {str(uid): bool(started) for uid, started in [*read.items()][:MOST]}
        except (OSError, ValueError, AttributeError):
            return {}
