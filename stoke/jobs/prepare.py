"""Prepare a request for submission: check it against the backend, hash it, predict the caches."""

from __future__ import annotations

from dataclasses import dataclass

from stoke.backend.api import Backend
from stoke.cache.keys import RequestKeys, request_keys
from stoke.cache.prediction import predict
from stoke.errors import RequestError
from stoke.history.database import History
from stoke.history.job import Prediction
from stoke.jobs.request import Request
from stoke.request.spec import JobSpec


@dataclass(frozen=True)
class PreparedRequest:
    """A request that its backend can run, with everything that is computed from it once."""

    request: Request
    backend: Backend
    keys: RequestKeys
    prediction: Prediction


def prepare(request: Request, backend: Backend, history: History) -> PreparedRequest:
    """Check and hash a request and predict what the caches do for it. Creates nothing.

    Raises `RequestError` for a request that the backend cannot run.
    """
    check_request(request.spec, backend)
    keys = request_keys(request.spec)
    return PreparedRequest(
        request, backend, keys, predict(request.spec, keys, backend.name, history)
    )


def check_request(spec: JobSpec, backend: Backend) -> None:
    """Raise `RequestError` for the first field that the backend cannot honour."""
    can = backend.capabilities
    if spec.system and not can.system_packages:
        raise RequestError(
            "system",
            f"system packages ({', '.join(spec.system[:5])}) are not available on the "
            f"{backend.name} backend",
            "leave them out, or choose a backend that brings them: -b docker",
        )
    if spec.image and not can.images:
        raise RequestError(
            "image", f"the {backend.name} backend runs no images", "choose one that does: -b docker"
        )
    for name, reference in spec.secrets.items():
        if reference.startswith("secret:") and not can.named_secrets:
            raise RequestError(
                f"secrets.{name}",
                f"the {backend.name} backend keeps no secrets that could be named",
                f"have it read here: --secret {name}=env:{name}",
            )
    for field in ("cpu", "memory", "shm_size"):
        if getattr(spec, field) is not None and not can.limits:
            raise RequestError(
                field,
                f"the {backend.name} backend cannot limit it: {can.isolation}",
                "choose a backend that can: -b docker",
            )
