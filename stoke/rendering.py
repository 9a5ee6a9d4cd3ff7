"""What an engine would be told of a request, as text for people and for the engine's own tools."""

from __future__ import annotations

import secrets

from stoke.backend import Backend, Delivery, RendersJobs
from stoke.errors import RequestError
from stoke.job import new_job_id
from stoke.lifecycle import Request, check_request
from stoke.payload import make_payload, runner_source
from stoke.spec import JobSpec


def render(request: Request, backend: Backend) -> tuple[str, list[str]]:
    """(what the engine would be told, what was left out of it). Connects to nothing.

    What is read on this machine stays here, and is left out; a secret of the cluster's is only a name.
    `RequestError` where the backend shows nothing of what it submits, or cannot do what is asked.
    """
    if not isinstance(backend, RendersJobs):
        raise RequestError(
            "backend", f"the {backend.name} backend shows nothing of what it submits"
        )
    check_request(request.spec, backend)
    spec, left_out = _without_secrets(request.spec)
    nonce = secrets.token_hex(8)
    payload = make_payload(
        spec,
        nonce=nonce,
        program=request.seen_as,
        lock_ttl=request.lock_ttl,
        upgrade=request.upgrade,
        on_cache_trouble=request.on_cache_trouble,
    )
    delivery = Delivery(
        new_job_id(request.name),
        spec,
        runner_source(),
        nonce,
        payload,
        spec.model_dump_json().encode(),
    )
    return backend.render(delivery).rstrip("\n"), left_out


def _without_secrets(spec: JobSpec) -> tuple[JobSpec, list[str]]:
    named = {name: text for name, text in spec.secrets.items() if text.startswith("secret:")}
    left_out = [name for name in spec.secrets if name not in named]
    if spec.index.credentials:
        left_out.append("the index's credentials")
    index = spec.index.model_copy(update={"credentials": None})
    return spec.model_copy(update={"secrets": named, "index": index}), left_out
