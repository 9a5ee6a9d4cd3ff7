"""A session in the pod of a job."""

from __future__ import annotations

from backends.argo.bundle import FOLDER
from backends.argo.cluster import ApiError, Cluster
from backends.argo.exec_socket import ExecSocket
from backends.argo.job_locations import JobLocation
from backends.argo.status import has_started, terminated
from backends.argo.task_names import pod_of
from stoke.backend.capabilities import NotStartedError
from stoke.errors import EngineError
from stoke.remote.bundle import session_source
from stoke.remote.command import session_command
from stoke.remote.protocol import JobFolder


def enter_pod(location: JobLocation, job_id: str, is_over: bool) -> PodChannel:
    """Start a session in the pod of a job; `is_over` is whether its workflow has ended."""
    pod = location.resources.pod(job_id)
    if is_over or (pod is not None and terminated(pod) is not None):
        raise EngineError(f"cannot enter {job_id}: its pod has ended")
    if pod is None or not has_started(pod):
        raise NotStartedError(f"{job_id} has not started yet")
    entry = f"{FOLDER}/{JobFolder.WORK}/{JobFolder.ENTRY}"
    try:
        return PodChannel(location.cluster, pod_of(job_id), entry)
    except ApiError as error:
        if error.status != 403:
            raise
        raise EngineError(
            f"cannot enter {job_id}: you may not create and get pods/exec in "
            f"{location.cluster.namespace}",
            "have an administrator grant the right: stoke setup argo --apply",
        ) from error


class PodChannel(ExecSocket):
    """The streams of `stoke.remote.session`; see `stoke.backend.capabilities.Channel`."""

    def __init__(self, cluster: Cluster, pod: str, entry: str) -> None:
        source = session_source()
        command = session_command("python3", len(source), entry)
        super().__init__(cluster, pod, command, f"enter {pod}")
        self.queue(source)
