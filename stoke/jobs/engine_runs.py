"""Runs of schedules that their engine began (`stoke.backend.capabilities.RunsSchedules`).

A run becomes a job of the history when a command looks for it. From then on it is tracked and finalized
as a job that was submitted here.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from stoke.backend.capabilities import RunsSchedules
from stoke.errors import StokeError
from stoke.files.debug import Logger
from stoke.files.paths import job_dir, make_private
from stoke.history.engine_schedules import EngineSchedules

if TYPE_CHECKING:
    from stoke.backend.api import FoundJob
    from stoke.backend.pool import Backends
    from stoke.history.database import History
    from stoke.history.job import Job

_log = Logger(__name__)

LOOK_SECONDS = 5.0
"""How long a command waits for the engines of schedules."""


def find_runs(
    history: History, backends: Backends | None = None, seconds: float = LOOK_SECONDS
) -> list[str]:
    """Add the runs that engines have begun to the history; return what went wrong, a sentence for each
    engine. Imports and asks no backend if no engine has a schedule."""
    schedules = EngineSchedules(history).by_backend()
    if not schedules:
        return []
    if backends is None:
        from stoke.backend.pool import Backends
        from stoke.config.loader import load_config

        with closing(Backends(load_config())) as backends:
            return _find(schedules, history, backends, seconds)
    return _find(schedules, history, backends, seconds)


def _find(
    schedules: dict[str, list[str]], history: History, backends: Backends, seconds: float
) -> list[str]:
    problems = {name: f"{name} did not tell its runs of schedules in time" for name in schedules}

    def look(name: str, ids: Sequence[str]) -> None:
        try:
            backend = backends.get(name)
            found = backend.schedule_runs(ids) if isinstance(backend, RunsSchedules) else []
            for one in found:
                take_run(one, history)
            problems.pop(name, None)
        except StokeError as error:
            _log.debug("the runs of schedules on %s are unknown: %s", name, error)
            problems[name] = f"the runs of schedules on {name} are unknown: {error.what}"

    threads = [
        threading.Thread(target=look, args=one, daemon=True) for one in list(schedules.items())
    ]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return list(problems.values())


def take_run(found: FoundJob, history: History) -> Job | None:
    """Add a run to the history unless it is there; return it. None if its schedule is not ours."""
    schedules = EngineSchedules(history)
    record = None if found.schedule_id is None else schedules.get(found.schedule_id)
    if record is None:
        return None
    known = history.get(found.job_id)
    if known is not None:
        return known
    with history.transaction():
        schedules.add_run(record, found.job_id, found.submitted_at)
        if json.loads(record.spec).get("notify"):
            from stoke.history.notifications import Notifications

            Notifications(history).add(found.job_id)
    if json.loads(record.spec).get("project"):
        from stoke.project.manifest_store import share_manifest

        make_private(job_dir(found.job_id))
        share_manifest(record.id, found.job_id)
    _log.debug("%s: a run of the schedule %s", found.job_id, record.schedule)
    return history.get(found.job_id)
