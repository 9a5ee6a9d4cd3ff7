"""Finalize one job in a process of its own: read the rest of its log, record its end, collect its
results, and remove it from its engine.

    python -P -m stoke.jobs.finalize JOB_ID

A listing waits one second at most. An engine can take longer than that to find the place where the
unread rest of a long log begins, so no number of listings would ever reach its end.
"""

from __future__ import annotations

import sys
from contextlib import closing

from stoke.backend.pool import Backends
from stoke.config.loader import load_config
from stoke.errors import StokeError
from stoke.files.background_log import background_log
from stoke.history.database import History
from stoke.jobs.refresh import clean_up, reconcile


def finalize(job_id: str) -> None:
    with History() as history:
        job = history.get(job_id)
        if job is None:
            return
        with closing(Backends(load_config())) as backends:
            if job.provisional or not job.state.finished:
                reconcile(job, backends.get(job.backend), history, collects=True)
            else:
                clean_up(job.id, backends.get(job.backend), history)


if __name__ == "__main__":
    try:
        with background_log("finalize %s", sys.argv[1]):
            finalize(sys.argv[1])
    except StokeError as error:
        sys.exit(error.what)
