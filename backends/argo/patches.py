"""What stoke changes in a workflow that exists: merge patches, and the owner of its bundle object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.argo.names import (
    AWAITS_BUNDLE,
    GAVE_UP,
    RELEASED,
    STOPPED,
)
from backends.argo.shapes import IDENTIFIED
from stoke.errors import EngineError
from stoke.files.shapes import ShapeError, checked


def owner_of(workflow: Mapping[str, Any], kind: str = "Workflow") -> dict[str, Any]:
    """Return an owner reference, so that an object is deleted together with the workflow, or with the
    CronWorkflow."""
    try:
        about = checked(workflow, IDENTIFIED)["metadata"]
    except ShapeError as error:
        raise EngineError(f"the cluster created a {kind} without an identity: {error}") from error
    return {
        "apiVersion": workflow["apiVersion"],
        "kind": kind,
        "name": about["name"],
        "uid": about["uid"],
    }


DELIVERED: dict[str, Any] = {"metadata": {"labels": {AWAITS_BUNDLE: None}}}
"""The merge patch for a workflow whose bundle object now exists."""
RELEASE: dict[str, Any] = {"metadata": {"labels": {RELEASED: "true"}}}
"""The merge patch for a job whose log and result are saved on the submitting machine."""
# Seconds that a workflow stays if its secret can only be deleted with it: enough for Argo to see
# and archive its end.
SECRET_SECONDS = 60
RELEASE_WITH_SECRET: dict[str, Any] = {
    **RELEASE,
    "spec": {"ttlStrategy": {"secondsAfterCompletion": SECRET_SECONDS}},
}
SHUTDOWN: dict[str, Any] = {
    "metadata": {"labels": {STOPPED: "true"}},
    "spec": {"shutdown": "Terminate"},
}


def give_up_patch(why: str) -> dict[str, Any]:
    """Return the merge patch that stops a workflow whose pod cannot start."""
    return {"metadata": {"annotations": {GAVE_UP: why}}, "spec": {"shutdown": "Terminate"}}


def begin_schedule_patch() -> dict[str, Any]:
    """Return the merge patch for a CronWorkflow whose bundle object now exists."""
    return {**DELIVERED, **suspend_patch(False)}


def suspend_patch(suspend: bool) -> dict[str, Any]:
    """Return the merge patch that has a CronWorkflow begin no runs, or begin them again."""
    return {"spec": {"suspend": suspend}}


def without_owner(run: Mapping[str, Any], cron: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch for a run that outlives its CronWorkflow."""
    owners = run["metadata"].get("ownerReferences") or ()
    others = [one for one in owners if one.get("uid") != cron["metadata"]["uid"]]
    return {"metadata": {"ownerReferences": others or None}}
