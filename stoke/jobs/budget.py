"""A scope's budget, kept after jobs by a process of its own, so that no command waits for it.

    python -P -m stoke.jobs.budget BACKEND SCOPE

Only a job that built an environment or made system packages can have made its caches grow by much,
so only then one starts.
At most one a scope is at work and one waits for it: who comes later is covered by the one that waits.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

from stoke.cache.scopes import is_ephemeral
from stoke.errors import StokeError
from stoke.files.paths import make_private, state_dir
from stoke.history.job import Job


def keep_budget_later(job: Job) -> None:
    """Starts it for a job that is over, if its scope has a budget; returns at once."""
    if not any(phase.name in ("python", "system") and phase.hit is False for phase in job.phases):
        return
    if is_ephemeral(job.scope):
        return  # It goes as a whole, and must not be in use then.
    from stoke.config.loader import load_config

    try:
        if load_config().budget(job.scope) is None:
            return
        log = _folder() / f"{job.backend}-{job.scope}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "stoke.jobs.budget", job.backend, job.scope],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
    except (StokeError, OSError):
        return  # The next job tries again; this one has its result.
    # Reaped, should this program live longer.
    threading.Thread(target=process.wait, daemon=True).start()


def keep_budget(backend_name: str, scope: str) -> None:
    """Prunes a scope's caches to its budget, after whoever does so already."""
    from stoke.backend.pool import Backends
    from stoke.cache.volumes import Housekeeper, by_place
    from stoke.config.loader import load_config
    from stoke.history.database import History

    config = load_config()
    size = config.budget(scope)
    waiting = _lock(f"{backend_name}-{scope}.waiting", fcntl.LOCK_EX | fcntl.LOCK_NB)
    if size is None or waiting is None:
        return
    _lock(f"{backend_name}-{scope}.working", fcntl.LOCK_EX)
    os.close(waiting)
    with History() as history:
        backend = Backends(config).get(backend_name)
        housekeeper = Housekeeper(history, config.lock_ttl)
        volumes = [volume for volume in backend.volumes() if volume.scope == scope]
        for together in by_place(volumes):
            pruned = housekeeper.prune_together(backend, together, lambda _: None, max_bytes=size)
            print(pruned, flush=True)  # noqa: T201


def _folder() -> Path:
    return make_private(state_dir() / "budgets")


def _lock(name: str, kind: int) -> int | None:
    """A lock that ends with this process, or None where somebody holds it."""
    lock = os.open(_folder() / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, kind)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


if __name__ == "__main__":
    # As in stoke.cli.main: somebody's PYTHONPATH may hold another package called `backends`.
    sys.path.insert(0, str(Path(__file__).parents[2]))
    keep_budget(*sys.argv[1:])
