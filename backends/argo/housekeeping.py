"""Measure, prune or clear a cache: a short workflow mounts it and runs `stoke.remote.housekeeping`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

from backends.argo.cluster import ApiError, Cluster
from backends.argo.diagnosis import gives_up_at
from backends.argo.log_stream import JobLog
from backends.argo.resources import KubernetesResources
from backends.argo.state import state_of
from backends.argo.workflow import make_housekeeping
from stoke.backend.api import EngineState, EngineStatus, Volume
from stoke.cache.volumes import read_outcome
from stoke.config.model import Config
from stoke.errors import EngineError
from stoke.files.debug import Logger

# Seconds to wait for the one node that has the cache. A pod without requests that this node rejects
# is not accepted later. A claim can be used on any node, and a new node may be on its way.
NODE_SECONDS = 30.0

MOST_CUTS = 5

_log = Logger(__name__)

Timeouts = tuple[float, float | None]
"""Seconds to wait for a pod that cannot start, and for a pod without a node (see `gives_up_at`)."""


def housekeep(
    cluster: Cluster,
    config: Config,
    image: str,
    volume: Volume,
    operation: Mapping[str, object],
    progress: Callable[[str], None],
) -> dict[str, Any]:
    name = f"stoke-housekeeping-{secrets.token_hex(4)}"
    workflow = make_housekeeping(name, volume, operation, config, image)
    return run_workflow(cluster, config, workflow, volume.node, progress)


def run_workflow(
    cluster: Cluster,
    config: Config,
    workflow: dict[str, Any],
    node: str | None,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Run a workflow of `stoke.remote.housekeeping`, which may need one node; return its result."""
    name = workflow["metadata"]["name"]
    resources = KubernetesResources(cluster)
    resources.create("workflows", workflow)
    lines = lines_of_workflow(cluster, config, name, node, progress)
    try:
        return read_outcome(lines, progress)
    finally:
        # If this program is killed, Argo deletes the workflow a minute after its end.
        lines.close()
        resources.delete_workflow(name)


def lines_of_workflow(
    cluster: Cluster,
    config: Config,
    name: str,
    node: str | None,
    progress: Callable[[str], None],
) -> Generator[bytes]:
    """Give the lines that housekeeping prints, without Argo's. Raises `EngineError` if it fails.

    A connection that is cut before the first line is made anew: a long log would be sent twice.
    """
    resources = KubernetesResources(cluster)
    timeouts = (config.argo.start_timeout, NODE_SECONDS if node else None)
    given = cuts = 0
    silent = True
    while silent:
        log = JobLog(cluster, name, 0, True, lambda _: None, lambda: None, *timeouts)
        # After a silence the whole log is read again, because it is short.
        again = given
        try:
            for batch in log:
                if not batch:
                    progress(_check_progress(resources, name, timeouts))
                for frame in batch:
                    # Our lines are JSON objects; Argo's begin with a word.
                    if not frame.data.startswith(b'{"'):
                        continue
                    if again:
                        again -= 1
                        continue
                    given += 1
                    yield frame.data
            silent = log.was_silent
        except ApiError as error:
            cuts += 1
            if error.reason != "Cut" or given or cuts > MOST_CUTS:
                raise
            _log.debug("%s: cut before its first line: %s", name, error.what)
        finally:
            log.close()


def _check_progress(resources: KubernetesResources, name: str, timeouts: Timeouts) -> str:
    """Return what the workflow waits for. Raises `EngineError` if it failed or cannot start."""
    workflow, pod = resources.workflow(name), resources.pod(name)
    state = state_of(workflow, pod) if workflow else EngineState(EngineStatus.ABSENT)
    at = None if pod is None else gives_up_at(pod, *timeouts)
    is_given_up = at is not None and time.time() >= at
    over = state.status in (EngineStatus.EXITED, EngineStatus.ABSENT) and state.exit_code != 0
    if over or is_given_up:
        why = state.reason or "its workflow was deleted"
        raise EngineError(f"housekeeping failed: {why}", state.hint)
    return f"waiting for the pod: {state.reason}" if state.reason else "waiting for the pod"
