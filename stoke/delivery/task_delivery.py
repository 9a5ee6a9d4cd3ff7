"""The delivery of a task: that of its sweep, with the arguments and variables of the task."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stoke.backend.api import Delivery
from stoke.delivery.checkpoints import checkpoint_folder
from stoke.request.sweep_values import task_request, task_variables


class SweepDelivery:
    """The delivery of a sweep, from which those of its tasks are made."""

    def __init__(self, delivery: Delivery, names: Sequence[str]) -> None:
        self._delivery = delivery
        self._names = names
        self._payload = json.loads(gzip.decompress(delivery.payload))
        self._request = json.loads(delivery.public_spec)

    def of_task(
        self, job_id: str, nonce: str, checkpoint: str | None, values: Sequence[str], number: int
    ) -> Delivery:
        spec = task_request(self._request, self._names, values, number)
        payload = task_request(self._payload, self._names, values, number)
        payload |= _identity(nonce, checkpoint)
        # Level 1: a thousand tasks compress the same few KiB each.
        packed = gzip.compress(json.dumps(payload).encode(), 1, mtime=0)
        changed = {"args": tuple(spec["args"]), "env": spec["env"]}
        return replace(
            self._delivery,
            job_id=job_id,
            nonce=nonce,
            payload=packed,
            is_task=True,
            public_spec=json.dumps(spec).encode(),
            spec=self._delivery.spec.model_copy(update=changed),
        )

    def differences(
        self, nonce: str, checkpoint: str | None, values: Sequence[str], number: int
    ) -> dict[str, Any]:
        """Return the fields in which a task's payload differs from that of the sweep; `env` has only
        the task's own variables."""
        task = task_request(self._payload, self._names, values, number)
        variables = task_variables(self._names, values, number)
        return {"args": task["args"], "env": variables, **_identity(nonce, checkpoint)}


def _identity(nonce: str, checkpoint: str | None) -> dict[str, str | None]:
    folder = None if checkpoint is None else checkpoint_folder(checkpoint)
    return {"nonce": nonce, "checkpoint": folder}
