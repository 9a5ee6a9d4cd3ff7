"""Prune a scope's caches to its budget, in a process of its own, so that no command waits for it.

    python -P -m stoke.jobs.budget BACKEND SCOPE

At most one process per scope prunes and one waits for it. A process that starts while another one
waits ends at once: the waiting one prunes what the new job added, too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from stoke.errors import StokeError
from stoke.files.file_lock import take_lock
from stoke.files.paths import make_private, state_dir
from stoke.history.job import Job, Phase
from stoke.jobs import background

NOTICED_BYTES = 1024**2
"""Files of a project that a job brought, from which its scope is pruned; a changed file has fewer."""


def enforce_budget_later(job: Job) -> None:
    """Start pruning after a finished job, if the job added to its caches and its scope has a budget."""
    if not any(map(_added, job.phases)):
        return
    from stoke.cache.scopes import is_ephemeral

    if is_ephemeral(job.scope):
        return  # The whole scope is deleted soon, and must not be in use then.
    from stoke.config.loader import load_config

    try:
        if load_config().budget(job.scope) is None:
            return
        log = _folder() / f"{job.backend}-{job.scope}.log"
        background.start("stoke.jobs.budget", job.backend, job.scope, output=log)
    except (StokeError, OSError):
        return  # The end of the next job tries again.


def _added(phase: Phase) -> bool:
    """Return whether a phase added more than a few bytes to a cache."""
    if phase.name == "project":
        return (phase.bytes or 0) >= NOTICED_BYTES
    return phase.name in ("python", "system") and phase.hit is False


def enforce_budget(backend_name: str, scope: str) -> None:
    """Prune a scope's caches to its budget, after the process that already does so."""
    from stoke.backend.pool import Backends
    from stoke.cache.volumes import Housekeeper, group_by_budget
    from stoke.config.loader import load_config
    from stoke.history.database import History

    config = load_config()
    size = config.budget(scope)
    waiting = take_lock(_folder() / f"{backend_name}-{scope}.waiting", wait=False)
    if size is None or waiting is None:
        return
    take_lock(_folder() / f"{backend_name}-{scope}.working", wait=True)  # Until this process ends.
    os.close(waiting)
    with History() as history:
        backend = Backends(config).get(backend_name)
        housekeeper = Housekeeper(history, config.lock_ttl)
        volumes = [volume for volume in backend.volumes() if volume.scope == scope]
        for together in group_by_budget(volumes):
            pruned = housekeeper.prune_together(backend, together, lambda _: None, max_bytes=size)
            print(pruned, flush=True)  # noqa: T201


def _folder() -> Path:
    return make_private(state_dir() / "budgets")


if __name__ == "__main__":
    # As in stoke.cli.main: PYTHONPATH may hold another package called `backends`.
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from stoke.files.background_log import background_log

    with background_log("budget of scope %s on %s", sys.argv[2], sys.argv[1]):
        enforce_budget(*sys.argv[1:])
