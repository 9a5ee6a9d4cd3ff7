"""What would be submitted, without submitting it: for `stoke render` and for the form."""

from __future__ import annotations

import secrets

from stoke.backend.api import Backend, Delivery
from stoke.backend.capabilities import RendersJobs
from stoke.delivery.network import this_network
from stoke.delivery.payload import runner_source
from stoke.delivery.uv_config import uv_config
from stoke.errors import RequestError
from stoke.history.job import new_job_id
from stoke.jobs.request import Request
from stoke.jobs.submit import check_request
from stoke.request.spec import JobSpec


def render_job(request: Request, backend: Backend, job_id: str | None = None) -> str:
    """What the backend's engine would be told of this job, without `left_out`. Connects to nothing.

    `RequestError` where the backend cannot run it, or shows nothing of what it submits.
    """
    if not isinstance(backend, RendersJobs):
        raise RequestError(
            "backend", f"the {backend.name} backend shows nothing of what it submits"
        )
    check_request(request.spec, backend)
    spec = _without_secrets(request.spec)
    nonce = secrets.token_hex(8)
    delivery = Delivery(
        job_id or new_job_id(request.name),
        spec,
        runner_source(),
        nonce,
        # Proxies stay here: their addresses may hold passwords.
        request.payload(spec, nonce, network=this_network(proxies=False), with_logins=False),
        spec.model_dump_json().encode(),
    )
    return backend.render(delivery).rstrip("\n")


def left_out(spec: JobSpec) -> list[str]:
    """What is read on this machine and stays here: variables, and the index's credentials."""
    names = [name for name, text in spec.secrets.items() if not _is_engines(text)]
    names += ["the index's credentials"] if spec.index.credentials else []
    return names + uv_config(spec, with_secrets=False).wanted


def _without_secrets(spec: JobSpec) -> JobSpec:
    """A secret of the cluster's is only a name."""
    named = {name: text for name, text in spec.secrets.items() if _is_engines(text)}
    index = spec.index.model_copy(update={"credentials": None})
    return spec.model_copy(update={"secrets": named, "index": index})


def _is_engines(reference: str) -> bool:
    return reference.startswith("secret:")
