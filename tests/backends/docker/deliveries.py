"""Jobs as they are handed to the backend, without the history around them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from stoke.backend.api import Backend, Delivery, EngineState
from stoke.cache.keys import request_hash, request_keys
from stoke.delivery.payload import make_payload, runner_source
from stoke.history.job import new_job_id
from stoke.request.sources import request_from_options

NONCE = "0123456789abcdef"


def delivery(
    code: str, *, name: str = "job", runner: bytes | None = None, **fields: Any
) -> Delivery:
    """`fields` are the spec's."""
    spec = request_from_options(code=code, **fields)
    payload = make_payload(
        spec, request_keys(spec), nonce=NONCE, program="main.py", lock_ttl=3600, upgrade=False
    )
    public_spec = spec.model_dump_json().encode()
    return Delivery(
        new_job_id(name),
        spec,
        runner or runner_source(spec),
        NONCE,
        payload,
        public_spec,
        request_hash(spec),
    )


def unreported(name: str, start: float, seconds: float | None) -> None:
    """Discard a phase report."""


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)


def ended(backend: Backend, job_id: str) -> EngineState:
    """The engine's word once the job is over."""
    until(lambda: backend.inspect(job_id).status == "exited", f"the end of {job_id}")
    return backend.inspect(job_id)


def output(backend: Backend, job_id: str, stream: int = 1) -> bytes:
    """What the engine has of one stream of a job that is over."""
    batches = backend.logs(job_id, 0, follow=False)
    return b"".join(frame.data for batch in batches for frame in batch if frame.stream == stream)
