"""Render what a submission would send to the engine, for `stoke render` and the form."""

from __future__ import annotations

import secrets

from stoke.backend.api import Backend, Delivery
from stoke.backend.capabilities import RendersJobs
from stoke.cache.keys import request_keys
from stoke.delivery.network import this_network
from stoke.delivery.payload import runner_source
from stoke.delivery.uv_config import uv_config
from stoke.errors import RequestError
from stoke.history.job import new_job_id
from stoke.jobs.prepare import check_request
from stoke.jobs.request import Request
from stoke.project.pack import ProjectDelivery
from stoke.request.spec import JobSpec


def render_job(request: Request, backend: Backend, job_id: str | None = None) -> str:
    """Return what the backend would send to its engine, without what `left_out` names.

    Connects to nothing. Raises `RequestError` if the backend cannot run the request, or cannot render
    what it submits.
    """
    if not isinstance(backend, RendersJobs):
        raise RequestError(
            "backend", f"the {backend.name} backend shows nothing of what it submits"
        )
    check_request(request.spec, backend)
    project = None
    if request.spec.project is not None:
        request, project = _with_digest(request, backend)
    spec = _without_secrets(request.spec)
    keys = request_keys(spec)
    nonce = secrets.token_hex(8)
    delivery = Delivery(
        job_id or new_job_id(request.name),
        spec,
        runner_source(spec),
        nonce,
        # Proxies are left out: their addresses may hold passwords.
        request.payload(spec, keys, nonce, network=this_network(proxies=False), with_logins=False),
        spec.model_dump_json().encode(),
        keys.request,
        project=project,
    )
    return backend.render(delivery).rstrip("\n")


def _with_digest(request: Request, backend: Backend) -> tuple[Request, ProjectDelivery | None]:
    """Return the request with its snapshot's digest, and a delivery without the files."""
    project = request.spec.project
    if project is not None and project.digest is None:
        from stoke.jobs.snapshot_delivery import with_snapshot

        request, _ = with_snapshot(request, backend)
        project = request.spec.project
    if project is None or project.digest is None:
        return request, None
    return request, ProjectDelivery(project.digest, None)


def left_out(spec: JobSpec) -> list[str]:
    """Name the secrets of this machine that a rendered job lacks: variables and index credentials."""
    names = [name for name, text in spec.secrets.items() if not _is_engines(text)]
    names += ["the index's credentials"] if spec.index.credentials else []
    return names + uv_config(spec, with_secrets=False).wanted


def _without_secrets(spec: JobSpec) -> JobSpec:
    """Return the spec without secrets; a secret that the cluster stores is only a name and stays."""
    named = {name: text for name, text in spec.secrets.items() if _is_engines(text)}
    index = spec.index.model_copy(update={"credentials": None})
    return spec.model_copy(update={"secrets": named, "index": index})


def _is_engines(reference: str) -> bool:
    return reference.startswith("secret:")
