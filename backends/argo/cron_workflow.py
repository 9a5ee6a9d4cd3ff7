"""A schedule as Argo sees it: a CronWorkflow around the Workflow of a job. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from backends.argo.cluster import WORKFLOWS
from backends.argo.names import AWAITS_BUNDLE, labels_of
from backends.argo.patches import owner_of
from backends.argo.pod_workflow import INSTANCE
from backends.argo.run_names import CRON_WORKFLOW, SCHEDULED_TIME, run_id
from backends.common.names import KIND
from stoke.backend.capabilities import SchedulePlan

Object = dict[str, Any]
KIND_OF_CRON = "CronWorkflow"
SCHEDULE_KIND = "schedule"
"""The value of `KIND` on a CronWorkflow."""
LATE_SECONDS = 120
"""How late a run may begin, for example after a restart of Argo's controller."""
PROBLEMS = ("SpecError", "SubmissionError")
"""The conditions of a CronWorkflow that can begin no run."""


def cron_manifest(
    workflow: Mapping[str, Any], plan: SchedulePlan, keep: float, waits: bool
) -> Object:
    """Return the CronWorkflow that begins this workflow at the times of a plan.

    With `waits`, it is suspended until the objects that its runs mount exist.
    """
    from hera.workflows import models

    about = workflow["metadata"]
    labels = {**about["labels"], KIND: SCHEDULE_KIND}
    # Argo's own limits would delete a run before its time to live (argo.keep). A cron expression has at
    # most one run a minute, so this many are never there.
    limit = math.ceil(keep / 60) + 1
    cron = models.CronWorkflow(
        api_version=WORKFLOWS,
        kind=KIND_OF_CRON,
        metadata=models.ObjectMeta(
            name=about["name"],
            labels=labels | ({AWAITS_BUNDLE: "true"} if waits else {}),
            annotations=about.get("annotations"),
        ),
        spec=models.CronWorkflowSpec(
            schedules=[plan.cron],
            timezone=plan.timezone,
            suspend=waits or None,
            concurrency_policy="Forbid",
            starting_deadline_seconds=LATE_SECONDS,
            successful_jobs_history_limit=limit,
            failed_jobs_history_limit=limit,
            workflow_metadata=models.ObjectMeta(
                labels=about["labels"], annotations=about.get("annotations")
            ),
            workflow_spec=models.WorkflowSpec(),
        ),
    )
    manifest: Object = cron.model_dump(by_alias=True, exclude_none=True)
    manifest["spec"]["workflowSpec"] = workflow["spec"]
    return manifest


def run_manifest(cron: Mapping[str, Any], at: int) -> Object:
    """Return the Workflow of a run that begins now, as Argo makes it (workflow/common/convert.go), so
    that Argo counts it among the runs."""
    name = cron["metadata"]["name"]
    about = cron["spec"].get("workflowMetadata") or {}
    instance = {one: text for one, text in labels_of(cron).items() if one == INSTANCE}
    planned = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return {
        "apiVersion": WORKFLOWS,
        "kind": "Workflow",
        "metadata": {
            "name": run_id(name, at),
            "labels": {**instance, CRON_WORKFLOW: name, **(about.get("labels") or {})},
            "annotations": {
                SCHEDULED_TIME: planned.replace("+00:00", "Z"),
                **(about.get("annotations") or {}),
            },
            "ownerReferences": [{**owner_of(cron, KIND_OF_CRON), "controller": True}],
        },
        "spec": cron["spec"]["workflowSpec"],
    }


def problem_of(cron: Mapping[str, Any]) -> str | None:
    """Return why Argo can begin no run of a CronWorkflow, as Argo says it."""
    for one in (cron.get("status") or {}).get("conditions") or ():
        if one.get("type") in PROBLEMS and one.get("status") == "True":
            return " ".join(str(one.get("message") or one["type"]).split())[:500]
    return None
