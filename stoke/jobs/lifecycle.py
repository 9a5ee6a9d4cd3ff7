"""What can be done with jobs: submit, stop, remove, find again. Screens and commands call these."""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stoke.backend.api import (
    Backend,
    Delivery,
    Interrupts,
    KeepsFinishedJobs,
    PhaseReport,
    SharesNetwork,
    load_backend,
)
from stoke.cache.keys import named_packages, python_hash, request_hash, system_hash
from stoke.cache.prediction import predict
from stoke.config.model import Config
from stoke.delivery.network import NOTHING, Network, this_network
from stoke.delivery.payload import make_payload, runner_source
from stoke.errors import EngineError, RequestError, StokeError
from stoke.files.paths import job_dir, make_private
from stoke.history.database import History
from stoke.history.job import Job, JobState, Phase, new_job_id
from stoke.jobs.budget import keep_budget_later
from stoke.jobs.finalize import finalize_later
from stoke.jobs.tracker import Tracker, is_being_submitted, submit_locks
from stoke.logs.fallback import UnkeptError
from stoke.logs.retention import keep_within
from stoke.logs.spool import cannot_keep
from stoke.request.spec import JobSpec

ASK_SECONDS = 1.0
"""For how long a listing waits for the backends of unfinished jobs."""
CLOSE_SECONDS = 1.0
"""How long a reader that is closed may take to write its checkpoint: a transport unblocks it sooner."""


@dataclass(frozen=True)
class Request:
    """A spec with what is chosen around it: name, backend, and whether a stored lock may answer."""

    spec: JobSpec
    name: str = "job"
    program: str | None = None
    """What the code sees as sys.argv[0]; without one, main.py: a script that has the job's name
    would hide a package of that name from the code."""
    upgrade: bool = False
    lock_ttl: int = 24 * 3600
    """Seconds for which a stored lock answers without asking the index."""
    on_cache_trouble: str = "uncached"
    """Where the cache is full, read-only or gone: "uncached" goes on without it, "fail" does not."""
    compile_bytecode: bool = False
    """Compile every module of the environment, so that the next job's imports do not."""
    lock_only: bool = False
    """Resolve and print the lock; build and run nothing."""

    @property
    def seen_as(self) -> str:
        return self.program or "main.py"

    def payload(
        self,
        spec: JobSpec,
        nonce: str,
        network: Network = NOTHING,
        with_logins: bool = True,
    ) -> bytes:
        """What travels with the job; `spec` is this request's, or that without what stays here."""
        return make_payload(
            spec,
            nonce=nonce,
            program=self.seen_as,
            lock_ttl=self.lock_ttl,
            upgrade=self.upgrade,
            on_cache_trouble=self.on_cache_trouble,
            compile_bytecode=self.compile_bytecode,
            lock_only=self.lock_only,
            with_logins=with_logins,
            network=network,
        )


class Backends:
    """The backends in use, loaded once each, by name. `prepare` is called with each before each use."""

    def __init__(
        self, config: Config, prepare: Callable[[Backend], object] = lambda _: None
    ) -> None:
        self.config = config
        self._prepare = prepare
        self._lock = threading.Lock()
        self._loaded: dict[str, Backend] = {}

    def get(self, name: str) -> Backend:
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load_backend(name, self.config)
            self._prepare(self._loaded[name])
            return self._loaded[name]

    def close(self) -> None:
        with self._lock:
            for backend in self._loaded.values():
                backend.close()
            self._loaded.clear()


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


def stop(job: Job, backend: Backend, history: History, grace: float) -> str | None:
    """Asks the engine to end the job: SIGTERM now, SIGKILL after `grace` seconds (0: at once). Returns
    what its backend has to say of that, if anything."""
    if job.state.finished and not job.provisional:
        return None
    history.update(job.id, stop_requested=True)
    if backend.capabilities.stop_forgets_log:
        Tracker(backend, history, job.id).catch_up()
    return backend.stop(job.id, grace)


def interrupt(job: Job, backend: Backend, history: History, grace: float) -> str | None:
    """Send ctrl+c to the job: SIGINT to its code, which may take its time to end.

    A backend that cannot send SIGINT stops the job instead, as `stop` does with `grace`.
    """
    if not isinstance(backend, Interrupts):
        return stop(job, backend, history, grace)
    if not job.state.finished:
        history.update(job.id, stop_requested=True)
        backend.interrupt(job.id)
    return None


def backend_of(job: Job, backends: Backends) -> Backend | None:
    """The job's backend; None where there is none of that name: its record is damaged, or the backend
    was uninstalled."""
    try:
        return backends.get(job.backend)
    except RequestError:
        return None


def remove(job: Job, backend: Backend | None, history: History) -> None:
    """Takes a finished job away: from the engine, its log, the history. Without a backend, which could
    tell or stop anything, it goes whatever its state."""
    if backend is not None:
        if not job.state.finished:
            raise RequestError(
                job.id,
                f"is {job.state} and cannot be removed",
                f"stop it first: stoke stop {job.id}",
            )
        if job.provisional and backend.inspect(job.id).status == "running":
            raise RequestError(
                job.id,
                f"reported that it {job.state}, but the {backend.name} backend still runs it",
                f"stop it first: stoke stop {job.id}",
            )
        backend.remove(job.id)
    from stoke.remote.housekeeping import remove_tree

    remove_tree(str(job_dir(job.id)))
    history.remove(job.id)


def refresh(
    jobs: Iterable[Job], backends: Backends, history: History, seconds: float = ASK_SECONDS
) -> list[Job]:
    """Asks the backends of unfinished jobs how they stand, for at most `seconds` together.

    What could not be asked comes back with `stale` set: a job that ended while nobody looked never
    reads "running". Each job that is over is brought home on the way: its log into the spool, its
    end into the history, its remains away from the engine.

    Logs that are still being read at the deadline are closed with a checkpoint, from which the next
    call goes on. The end of such a job is provisional until its log is whole, for which a process of
    its own is started.
    """
    asked = list(jobs)
    answered: set[str] = set()
    expired = threading.Event()
    trackers: dict[str, Tracker] = {}

    def watch(tracker: Tracker) -> None:
        trackers[tracker.job_id] = tracker
        if expired.is_set():
            tracker.close()

    def ask(job: Job) -> None:
        try:
            if settle(job, backends.get(job.backend), history, watch=watch):
                answered.add(job.id)
        except (EngineError, RequestError):
            pass

    def ask_all(of_one_backend: list[Job]) -> None:
        for job in of_one_backend:
            if expired.is_set():
                return
            ask(job)

    by_backend: dict[str, list[Job]] = {}
    for job in asked:
        by_backend.setdefault(job.backend, []).append(job)
    threads = [
        threading.Thread(target=ask_all, args=(some,), daemon=True) for some in by_backend.values()
    ]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    expired.set()
    for tracker in list(trackers.values()):
        tracker.close()
    if trackers:
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    fresh = []
    for job in asked:
        now = history.get(job.id)
        if now is None:
            continue
        now.stale = job.id not in answered and not now.state.finished
        if now.provisional and job.id in trackers and job.id not in answered:
            finalize_later(now)
        fresh.append(now)
    return fresh


def settle(
    job: Job,
    backend: Backend,
    history: History,
    on_unkept: Callable[[UnkeptError], None] | None = None,
    watch: Callable[[Tracker], None] = lambda _: None,
) -> bool:
    """Looks at one unfinished job: brings its record and log up to now, and home if it is over.
    Returns whether the record now says what the engine says.

    `on_unkept` is for whoever shows the log (see `Tracker`). `watch` gets the tracker before it
    reads, for a caller that does not wait for the end of a long log: it may close the tracker.
    """
    if is_being_submitted(job.id):
        return True
    engine = backend.inspect(job.id)
    if engine.status == "running":
        # How far it is stands in its log; why it has none yet, the engine says.
        tracker = Tracker(backend, history, job.id, on_unkept=on_unkept)
        tracker.take_state(engine)
        watch(tracker)
        tracker.catch_up()
        return True
    if engine.status == "created":
        if _is_adopted(job):
            return True  # Whoever submits it may be at it, under another history.
        # Made and never started, and the program that made it is gone.
        backend.remove(job.id)
        history.update(
            job.id,
            state=JobState.LOST,
            reason="the program that submitted it ended before the job began",
            finished_at=time.time(),
        )
        return True
    tracker = Tracker(backend, history, job.id, on_unkept=on_unkept)
    tracker.take_state(engine)
    watch(tracker)
    tracker.run()
    clean_up(job.id, backend, history)
    now = history.get(job.id)
    return now is None or (now.state.finished and not now.provisional)


def clean_up(job_id: str, backend: Backend, history: History) -> None:
    """Once a job's log and end are here, the engine need not keep them; and what it
    added to its scope's cache may be more than the scope's budget.

    An adopted job stays there until it is removed by name: it is somebody else's as well, who shares
    the engine and may not have its log yet.
    """
    job = history.get(job_id)
    if job is None or _is_adopted(job):
        return
    if job.state.finished and not job.provisional:
        try:
            if isinstance(backend, KeepsFinishedJobs):
                backend.release(job_id)
            else:
                backend.remove(job_id)
        except EngineError:
            pass  # It stays labelled, and a later listing removes it.
        keep_budget_later(job)
        _keep_logs_within_budget(history)


def _keep_logs_within_budget(history: History) -> None:
    from stoke.config.model import load_config

    try:
        keep_within(load_config().log.spool_max, history)
    except StokeError:
        pass  # The next job's end tries again.


def _is_adopted(job: Job) -> bool:
    """Whether it was found at the engine (`adopt`) and not submitted under this history."""
    return job.request_hash is None


def adopt(backend: Backend, history: History) -> list[Job]:
    """Jobs of ours that this backend holds and this history does not know, now in the history.

    On the way it removes what an engine made so late that its job was lost already.
    """
    adopted = []
    for found in backend.jobs():
        known = history.get(found.job_id)
        if known is not None:
            _remove_late(known, backend)
            continue
        job = Job(
            id=found.job_id,
            name=found.job_id.rpartition("-")[0],
            backend=backend.name,
            scope=found.scope,
            state=JobState.STARTING,
            submitted_at=found.submitted_at,
        )
        spec = found.read_spec()
        history.add(job, spec.decode() if spec else None, found.nonce)
        adopted.append(job)
    return adopted


def _remove_late(job: Job, backend: Backend) -> None:
    """Remove what was made for a lost job after the program that submitted it had been killed. It
    would never start."""
    if job.state is not JobState.LOST or _is_adopted(job):
        return
    try:
        if backend.inspect(job.id).status == "created":
            backend.remove(job.id)
    except EngineError:
        pass  # The next listing tries again.
