"""How the runs of a CronWorkflow are called.

Argo names the Workflow of a run by its CronWorkflow and the time for which it was planned, in epoch
seconds (`getChildWorkflowName` in workflow/cron/operator.go of version 4.1). That name is the job's id,
and the rest of this package treats such a job as any other. Only its labels are those of all runs: the
label with a job's id has that of the CronWorkflow.
"""

from __future__ import annotations

import re

from backends.argo.task_names import workflow_of

CRON_WORKFLOW = "workflows.argoproj.io/cron-workflow"
"""On the Workflow of a run: its CronWorkflow."""
SCHEDULED_TIME = "workflows.argoproj.io/scheduled-time"
"""The annotation of a run with the time for which it was planned."""
LONGEST = 52
"""Characters of a CronWorkflow's name (workflow/validate/validate.go)."""

# A schedule's id ends as a job's does (`new_job_id`). The number of a sweep's task is shorter.
_RUN = re.compile(r"(.+-[a-z2-7]{6})-([1-9][0-9]{8,11})")


def run_id(schedule_id: str, at: int) -> str:
    """Return the id of the run that is planned for a time in epoch seconds."""
    return f"{schedule_id}-{at}"


def schedule_of(job_id: str) -> str | None:
    """Return the schedule that a job is a run of; None for any other job."""
    found = _RUN.fullmatch(job_id)
    return found[1] if found else None


def labelled_id(job_id: str) -> str:
    """Return the id that the label of a job's workflow has."""
    return schedule_of(job_id) or workflow_of(job_id)
