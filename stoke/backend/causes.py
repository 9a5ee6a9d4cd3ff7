"""The causes of ends in sentences for people."""

from __future__ import annotations

from stoke.backend.api import Cause

CAUSE_TEXTS = {
    Cause.NODE_LOST: "its node was lost",
    Cause.EVICTED: "its node evicted it",
    Cause.PREEMPTED: "a pod of higher priority took its place",
    Cause.POD_DELETED: "its pod was deleted",
    Cause.IMAGE_PULL: "its image could not be pulled",
    Cause.ENGINE_RESTART: "its engine was restarted",
    Cause.SUPERVISOR_LOST: "its supervisor process was killed",
    Cause.MACHINE_RESTART: "its machine was restarted",
}
