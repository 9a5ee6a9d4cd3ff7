"""Prepare a request for submission: check it against the backend, hash it, predict the caches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stoke.backend.api import Backend
from stoke.backend.capabilities import KeepsWorkspaces, MountsFiles
from stoke.cache.keys import RequestKeys, request_keys
from stoke.cache.prediction import predict
from stoke.errors import RequestError
from stoke.history.database import History
from stoke.history.job import Prediction
from stoke.jobs.request import Request
from stoke.request.fields import refusals
from stoke.request.spec import JobSpec

if TYPE_CHECKING:
    from stoke.project.snapshot import Snapshot


@dataclass(frozen=True)
class PreparedRequest:
    """A request that its backend can run, with everything that is computed from it once."""

    request: Request
    backend: Backend
    keys: RequestKeys
    prediction: Prediction
    note: str | None = None
    """What the user should know about how the backend runs it."""
    snapshot: Snapshot | None = None
    """The project's files; the request's spec has the snapshot's digest."""
    workspace_note: str | None = None
    """That the job's workspace is a new one."""


def prepare(
    request: Request, backend: Backend, history: History, snapshot: Snapshot | None = None
) -> PreparedRequest:
    """Check and hash a request, take its project's snapshot and predict what the caches do for it.
    Submits nothing.

    `snapshot` is the one that the request names, if the caller has it with all its contents. Raises
    `RequestError` for a request that the backend cannot run.
    """
    note = check_request(request.spec, backend)
    if request.spec.project is not None and snapshot is None:
        from stoke.jobs.snapshot_delivery import with_snapshot

        request, snapshot = with_snapshot(request, backend)
    keys = request_keys(request.spec)
    prediction = predict(request.spec, keys, backend.name, history)
    workspace_note = None
    if request.spec.workspace is not None and isinstance(backend, KeepsWorkspaces):
        from stoke.workspaces.names import note_if_new

        workspace_note = note_if_new(request.spec.workspace, backend)
    return PreparedRequest(request, backend, keys, prediction, note, snapshot, workspace_note)


def check_request(spec: JobSpec, backend: Backend) -> str | None:
    """Raise `RequestError` for the first field that the backend cannot honour; return its note."""
    for error in refusals(spec, backend.name, backend.capabilities):
        raise error
    if spec.workspace is not None:
        if not isinstance(backend, KeepsWorkspaces):
            raise RequestError("workspace", f"the {backend.name} backend has no workspaces")
        backend.check_workspace(spec)
    if not spec.mounts:
        return None
    if not isinstance(backend, MountsFiles):
        raise RequestError("mounts", f"the {backend.name} backend mounts nothing")
    return backend.check_mounts(spec)
