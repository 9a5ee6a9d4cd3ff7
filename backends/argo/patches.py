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


def owner_of(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """Return an owner reference, so that an object is deleted together with the workflow."""
    try:
        about = checked(workflow, IDENTIFIED)["metadata"]
    except ShapeError as error:
        raise EngineError(f"the cluster created a workflow without an identity: {error}") from error
    return {
        "apiVersion": workflow["apiVersion"],
        "kind": "Workflow",
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
