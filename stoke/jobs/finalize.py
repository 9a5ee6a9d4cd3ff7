"""Finalize one job in a process of its own: read the rest of its log and record its end.

    python -P -m stoke.jobs.finalize JOB_ID

A listing waits one second at most. An engine can take longer than that to find the place where the
unread rest of a long log begins, so no number of listings would ever reach its end.
"""

from __future__ import annotations

import sys

from stoke.backend.pool import Backends
from stoke.config.loader import load_config
from stoke.errors import StokeError
from stoke.files.background_log import background_log
from stoke.history.database import History
from stoke.jobs.refresh import reconcile


def finalize(job_id: str) -> None:
    with History() as history:
        job = history.get(job_id)
        if job is not None and (job.provisional or not job.state.finished):
            reconcile(job, Backends(load_config()).get(job.backend), history, collects=True)


if __name__ == "__main__":
    try:
        with background_log("finalize %s", sys.argv[1]):
            finalize(sys.argv[1])
    except StokeError as error:
        sys.exit(error.what)
