"""How the options of a command put its job into the queue."""

from __future__ import annotations

from stoke.cli.job_lookup import find_job, open_history
from stoke.history.queue import Dependency, Placement


def placement(
    detach: bool, after: tuple[str, ...], after_any: tuple[str, ...], priority: int | None
) -> Placement | None:
    """Return the job's place in the queue; None for a job that starts at once, because the user waits
    for it and did not ask for the queue."""
    if not (detach or after or after_any or priority is not None):
        return None
    found: dict[str, Dependency] = {}
    if after or after_any:
        with open_history() as history:
            for names, any_end in ((after_any, True), (after, False)):
                for name in names:
                    job_id = find_job(history, name).id
                    found[job_id] = Dependency(job_id, any_end)
    return Placement(priority or 0, tuple(found.values()))
