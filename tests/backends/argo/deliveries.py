"""Jobs as they are handed to the backend, without the history around them."""

from __future__ import annotations

from typing import Any

from stoke.backend.api import Delivery
from stoke.cache.keys import request_hash, request_keys
from stoke.delivery.payload import make_payload, runner_source
from stoke.history.job import new_job_id
from stoke.request.sources import request_from_options

NONCE = "0123456789abcdef"


def delivery(code: str, *, name: str = "job", **fields: Any) -> Delivery:
    """`fields` are the spec's."""
    spec = request_from_options(code=code, **fields)
    payload = make_payload(
        spec, request_keys(spec), nonce=NONCE, program="main.py", lock_ttl=3600, upgrade=False
    )
    public_spec = spec.model_dump_json().encode()
    return Delivery(
        new_job_id(name), spec, runner_source(spec), NONCE, payload, public_spec, request_hash(spec)
    )
