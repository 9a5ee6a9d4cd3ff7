"""Looking after a cache: a short workflow that mounts it and runs `stoke/housekeeping.py`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from backends.argo.cluster import Cluster
from backends.argo.following import JobLog
from backends.argo.records import Records
from backends.argo.state import state_of
from backends.argo.workflow import make_housekeeping
from stoke.backend import EngineState, Frame, Volume
from stoke.caches import read_outcome
from stoke.config import Config
from stoke.errors import EngineError


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
    log = JobLog(cluster, name, 0, True, lambda _: None, lambda: None)
    try:
        return read_outcome(_lines(log, records, name, progress), progress)
    finally:
        # Argo removes it by itself a minute after its end, should this program not come to it.
        log.close()
        records.delete_workflow(name)


def _lines(
    log: Iterable[list[Frame]], records: Records, name: str, progress: Callable[[str], None]
) -> Iterator[bytes]:
    """What housekeeping printed, without Argo's lines; an error when it came to nothing."""
    for batch in log:
        if not batch:
            progress("waiting for the pod")
            workflow = records.workflow(name)
            state = state_of(workflow, records.pod(name)) if workflow else EngineState("absent")
            if state.status in ("exited", "absent") and state.exit_code != 0:
                why = state.reason or "its workflow has gone"
                raise EngineError(f"housekeeping came to nothing: {why}", state.mend)
        # JSON objects, a line each; Argo's lines begin with a word.
        yield from (frame.data for frame in batch if frame.data.startswith(b'{"'))
