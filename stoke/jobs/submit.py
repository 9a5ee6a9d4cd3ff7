"""Hand a request to its backend."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from stoke.backend.api import Backend, Delivery, PhaseReport
from stoke.backend.capabilities import SharesNetwork
from stoke.cache.keys import named_packages, python_hash, request_hash, system_hash
from stoke.cache.prediction import predict
from stoke.delivery.network import NOTHING, Network, this_network
from stoke.delivery.payload import runner_source
from stoke.errors import EngineError, RequestError, StokeError
from stoke.files.paths import make_private
from stoke.history.database import History
from stoke.history.job import Job, JobState, Phase, new_job_id
from stoke.jobs.request import Request
from stoke.jobs.tracker import submit_locks
from stoke.logs.spool import cannot_keep
from stoke.request.spec import JobSpec


def check_request(spec: JobSpec, backend: Backend) -> None:
    """Refuses what this backend cannot do, before anything is made."""
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


def submit(
    request: Request,
    backend: Backend,
    history: History,
    report: PhaseReport = lambda name, start, seconds: None,
) -> Job:
    """Hands a job to its backend and returns its record; the job goes on without this program.

    The row is in the history before the engine hears of the job, and the submit lock is held until
    the engine has it, so a program that dies in between leaves nothing that a later one cannot
    place.
    """
    spec = request.spec
    check_request(spec, backend)
    nonce = secrets.token_hex(8)
    payload = request.payload(spec, nonce, network_for(spec, backend))
    job = Job(
        id=new_job_id(request.name),
        name=request.name,
        backend=backend.name,
        scope=spec.scope,
        state=JobState.QUEUED,
        submitted_at=time.time(),
        image=spec.image,
        request_hash=request_hash(spec),
        python_hash=python_hash(spec),
        system_hash=system_hash(spec),
        predicted=predict(spec, backend.name, history),
    )
    public_spec = spec.model_dump_json()
    lock_file, lock = _submit_lock(job.id)
    try:
        history.add(job, public_spec, nonce)
        for kind, names in named_packages(spec).items():
            history.add_asked(request_hash(spec), kind, names)

        def reported(name: str, start: float, seconds: float | None) -> None:
            # A full disk under the history must not pass for a job that was not submitted.
            with suppress(EngineError):
                history.set_phase(job.id, Phase(name, start, seconds))
            report(name, start, seconds)

        delivery = Delivery(
            job.id,
            spec,
            runner_source(),
            nonce,
            payload,
            public_spec.encode(),
            renews=request.upgrade or request.compile_bytecode,
        )
        try:
            backend.submit(delivery, reported)
        except StokeError as error:
            _never_started(history, job.id, error.what)
            error.job_id = job.id
            raise
        except BaseException:
            # ctrl+c in the middle: whatever the engine holds of it goes away again.
            _never_started(history, job.id, "interrupted while it was submitted")
            backend.remove(job.id)
            raise
        with suppress(EngineError):  # The job runs, whether or not that can be written down now.
            history.update(job.id, state=JobState.STARTING)
    finally:
        try:
            lock_file.unlink()
        except OSError:
            pass  # Nobody holds it, and that is what counts.
        os.close(lock)
    submitted = history.get(job.id)
    assert submitted is not None
    return submitted


def network_for(spec: JobSpec, backend: Backend) -> Network:
    """What a job takes along of this machine's network settings. Proxies, which may hold passwords, go
    no further than this machine."""
    if not (spec.has_packages or spec.system or spec.python):
        return NOTHING  # It downloads nothing.
    near = isinstance(backend, SharesNetwork) and backend.shares_network()
    return this_network(proxies=near)


def _submit_lock(job_id: str) -> tuple[Path, int]:
    """Held from now on until its descriptor is closed."""
    usual, spare = submit_locks(job_id)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        make_private(usual.parent)
        path, lock = usual, os.open(usual, flags, 0o600)
    except (OSError, EngineError):
        try:
            path, lock = spare, os.open(spare, flags, 0o600)
        except OSError as error:
            raise cannot_keep(usual.parent, error) from error
    fcntl.flock(lock, fcntl.LOCK_EX)
    return path, lock


def _never_started(history: History, job_id: str, reason: str) -> None:
    with suppress(EngineError):  # The caller is about to raise the first error, which says more.
        history.update(
            job_id, state=JobState.FAILED, exit_code=125, reason=reason, finished_at=time.time()
        )
