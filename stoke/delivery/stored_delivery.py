"""The delivery of a job that waits in the queue, in a file of the job's folder.

It holds the values of the job's secrets and, for a job on this machine, the user's environment, so only
its owner can read it, and it is deleted once the job has started. A job with retries has another such
file until it is decided whether there is a further attempt (`stoke.jobs.attempts`).
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from stoke.backend.api import Delivery
from stoke.delivery.stored_runner import drop_runner, load_runner, store_runner
from stoke.errors import EngineError
from stoke.files.atomic import write_atomically
from stoke.files.paths import job_dir, make_private
from stoke.files.untrusted import read_json
from stoke.project.pack import ProjectDelivery
from stoke.request.stored import read_stored_spec

MAX_DELIVERY = 256 * 1024**2
_BYTES = ("payload", "public_spec")
_TEXTS = ("job_id", "nonce", "request_hash")


_QUEUED = "delivery.json"
FOR_RETRY = "retry.json"


def delivery_file(job_id: str, file: str = _QUEUED) -> Path:
    return job_dir(job_id) / file


def store_delivery(delivery: Delivery, file: str = _QUEUED) -> None:
    """Write the file, and beside it the runner. Raises `OSError`."""
    stored: dict[str, Any] = {name: getattr(delivery, name) for name in _TEXTS}
    for name in _BYTES:
        stored[name] = base64.b64encode(getattr(delivery, name)).decode()
    stored["renews"] = delivery.renews
    stored["environment"] = None if delivery.environment is None else dict(delivery.environment)
    project = delivery.project
    stored["project"] = project and [project.digest, project.pack and str(project.pack)]
    folder = job_dir(delivery.job_id)
    if not folder.is_dir():  # The submit lock of the job is usually in it.
        make_private(folder)
    stored["runner"] = store_runner(delivery.runner, delivery.job_id)
    write_atomically(delivery_file(delivery.job_id, file), json.dumps(stored))


def load_delivery(job_id: str, file: str = _QUEUED) -> Delivery:
    """Read the file. Raises `EngineError` if it is gone or damaged."""
    path = delivery_file(job_id, file)
    try:
        stored = read_json(path, MAX_DELIVERY)
        fields: dict[str, Any] = {name: str(stored[name]) for name in _TEXTS}
        fields |= {name: base64.b64decode(stored[name]) for name in _BYTES}
        fields["runner"] = load_runner(str(stored["runner"]), job_id)
        project = stored["project"]
        return Delivery(
            **fields,
            spec=read_stored_spec(fields["public_spec"].decode()),
            renews=stored["renews"] is True,
            environment=stored["environment"],
            project=project and ProjectDelivery(project[0], project[1] and Path(project[1])),
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise EngineError(f"what was stored for {job_id} cannot be read: {error}") from error


def drop_delivery(job_id: str, file: str = _QUEUED) -> None:
    delivery_file(job_id, file).unlink(missing_ok=True)
    if not any(delivery_file(job_id, other).exists() for other in (_QUEUED, FOR_RETRY)):
        drop_runner(job_id)
