"""Looking after a cache: a short workflow that mounts it and runs `stoke.remote.housekeeping`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

from backends.argo.cluster import Cluster
from backends.argo.log_stream import JobLog
from backends.argo.resources import Records
from backends.argo.state import gives_up_at, state_of
from backends.argo.workflow import make_housekeeping
from stoke.backend.api import EngineState, Volume
from stoke.cache.volumes import read_outcome
from stoke.config.model import Config
from stoke.errors import EngineError

# What keeps a pod that asks for nothing from the one node it has to go to does not pass by itself. A
# claim may be used anywhere: a node may be on its way.
NODE_SECONDS = 30.0

Timeouts = tuple[float, float | None]
"""Seconds to wait for one that cannot start, and for one that no node takes (see `gives_up_at`)."""


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
    records = Records(cluster)
    records.create("workflows", workflow)
    timeouts = (config.argo.start_timeout, NODE_SECONDS if volume.node else None)
    lines = _lines(cluster, records, name, progress, timeouts)
    try:
        return read_outcome(lines, progress)
    finally:
        # Argo removes it by itself a minute after its end, should this program not come to it.
        lines.close()
        records.delete_workflow(name)


def _lines(
    cluster: Cluster,
    records: Records,
    name: str,
    progress: Callable[[str], None],
    timeouts: Timeouts,
) -> Generator[bytes]:
    """What housekeeping printed, without Argo's lines; an error when it came to nothing."""
    given = 0
    silent = True
    while silent:
        log = JobLog(cluster, name, 0, True, lambda _: None, lambda: None, *timeouts)
        # After a silence all comes again; it is little.
        again = given
        try:
            for batch in log:
                if not batch:
                    progress(_look_for_trouble(records, name, timeouts))
                for frame in batch:
                    # JSON objects, a line each; Argo's lines begin with a word.
                    if not frame.data.startswith(b'{"'):
                        continue
                    if again:
                        again -= 1
                        continue
                    given += 1
                    yield frame.data
            silent = log.was_silent
        finally:
            log.close()


def _look_for_trouble(records: Records, name: str, timeouts: Timeouts) -> str:
    """What it waits for; an error when that will not come."""
    workflow, pod = records.workflow(name), records.pod(name)
    state = state_of(workflow, pod) if workflow else EngineState("absent")
    at = None if pod is None else gives_up_at(pod, *timeouts)
    given_up = at is not None and time.time() >= at
    over = state.status in ("exited", "absent") and state.exit_code != 0
    if over or given_up:
        why = state.reason or "its workflow has gone"
        raise EngineError(f"housekeeping came to nothing: {why}", state.hint)
    return f"waiting for the pod: {state.reason}" if state.reason else "waiting for the pod"
