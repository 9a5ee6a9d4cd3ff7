"""Finalize a finished job in a process of its own: read the rest of its log and record its end.

    python -P -m stoke.jobs.finalize JOB_ID

A listing waits a second at most. An engine that is asked for the rest of a long log may take longer
than that to find where the rest begins, so no number of listings would come to its end.
"""

from __future__ import annotations

import subprocess
import sys
import threading

from stoke.errors import StokeError
from stoke.files.file_lock import is_locked
from stoke.files.paths import job_dir
from stoke.history.job import Job


def finalize_later(job: Job) -> None:
    """Start it for a job whose end is provisional, unless another program reads its log already."""
    if is_locked(job_dir(job.id) / "follow.lock"):
        return
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stoke.jobs.finalize", job.id],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return  # The next listing tries again.
    # Reaped, should this program live longer.
    threading.Thread(target=process.wait, daemon=True).start()


def finalize(job_id: str) -> None:
    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config
    from stoke.history.database import History
    from stoke.jobs.refresh import settle

    with History() as history:
        job = history.get(job_id)
        if job is not None and (job.provisional or not job.state.finished):
            settle(job, Backends(load_config()).get(job.backend), history)


if __name__ == "__main__":
    try:
        finalize(sys.argv[1])
    except StokeError as error:
        sys.exit(error.what)
