"""Collect the results of ended jobs from their engines, once.

The engine keeps a job until its results are on this machine. A process that is killed in between leaves
no list of results, and the next one begins anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from stoke.backend.capabilities import KeepsResults
from stoke.errors import EngineError, StokeError
from stoke.files.debug import Logger
from stoke.files.file_lock import is_locked
from stoke.files.paths import job_dir
from stoke.history.database import Note
from stoke.jobs import background

# A job without results, which most are, loads nothing that collects some.
if TYPE_CHECKING:
    from stoke.backend.api import Backend
    from stoke.backend.capabilities import ResultEntry
    from stoke.history.database import History
    from stoke.history.job import Job
    from stoke.results.collect import Collected

_log = Logger(__name__)

PROGRESS_SECONDS = 0.2
RESULTS_PHASE = "results"
LOST = "its results are lost: the engine no longer has them"
LOST_HINT = "on a cluster, results need a storage for caches: see argo.cache in docs/results.md"
MOST_NOTED = 10
"""Refused results that a note names."""
Progress = Callable[[str], None]


def is_collected(job: Job) -> bool:
    """Return whether nothing more of a job's results is at its engine."""
    return job.results_at is not None


def has_results(job: Job, backend: Backend) -> bool:
    """Return quickly whether an ended job may have results at its engine."""
    if not isinstance(backend, KeepsResults) or not _is_worth_reading(job, backend):
        return False
    return backend.has_results(job.id)


def _is_worth_reading(job: Job, backend: Backend) -> bool:
    if _reported_some(job):
        return True
    if job.cpu_seconds is not None and not job.log_gaps:
        # The runner has looked. While the job was held, a shell can have written more.
        return job.held_until is not None
    # Killed, or its log is incomplete: the runner could not report any.
    return job.started_at is not None or not backend.capabilities.results_by_pod


def _reported_some(job: Job) -> bool:
    return any(phase.name == RESULTS_PHASE for phase in job.phases)


def collect_results(
    job_id: str,
    backend: Backend,
    history: History,
    progress: Progress = lambda text: None,
    *,
    wait: bool = True,
) -> bool:
    """Collect the results of a finished job; return whether they are on this machine now.

    Another process that does so is waited for, or without `wait` left to it. A failure is recorded and
    raised: `EngineError`, or `TooLargeError` for results beyond `results.max_size`.
    """
    from stoke.results.collect import Collected
    from stoke.results.store import take_results_lock

    job = history.get(job_id)
    if job is None or is_collected(job):
        return job is not None
    if not isinstance(backend, KeepsResults):
        history.set_results(job_id, at=time.time())
        return True
    try:
        lock = take_results_lock(job_id, wait=wait)
    except OSError as error:
        raise _cannot_save(job_id, error) from error
    if lock is None:
        return False
    try:
        job = history.get(job_id)
        if job is None or is_collected(job):
            return job is not None
        began = time.monotonic()
        has_some = _is_worth_reading(job, backend)
        entries = backend.results(job_id, progress) if has_some else None
        collected = Collected(())
        if entries is not None:
            with closing(entries):
                collected = _store(job_id, entries, history, progress)
        if _reported_some(job) and not collected.files and not collected.refused:
            history.add_note(job_id, Note("note", LOST, LOST_HINT))
        history.set_results(
            job_id, files=len(collected.files), size=collected.bytes, at=time.time()
        )
        _note_refused(job_id, collected, history)
        if entries is not None:
            backend.forget_results(job_id)
        if collected.files:
            _log.debug(
                "%s: collected %d files, %d bytes in %.3f s; refused %d",
                job_id, len(collected.files), collected.bytes, time.monotonic() - began,
                collected.refused_count,
            )  # fmt: skip
    finally:
        os.close(lock)
    if collected.files:
        enforce_budget(history)
    return True


def _store(
    job_id: str, entries: Iterable[ResultEntry], history: History, progress: Progress
) -> Collected:
    from stoke.config.loader import load_config
    from stoke.results.collect import TooLargeError
    from stoke.results.store import store_results
    from stoke.text.units import human_bytes

    limit = load_config().results.max_size
    told = 0.0

    def tell(files: int, size: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= PROGRESS_SECONDS:
            told = now
            progress(f"collecting results: {files:,} files, {human_bytes(size)}")

    try:
        return store_results(job_id, entries, limit, tell)
    except TooLargeError as error:
        hint = (
            f"raise the limit (STOKE_RESULTS__MAX_SIZE=50g) and run: stoke results {job_id}; or "
            f"give them up: stoke rm {job_id}"
        )
        _record(job_id, history, error.what, hint)
        raise TooLargeError(error.what, hint) from None
    except OSError as error:
        failure = _cannot_save(job_id, error)
        _record(job_id, history, failure.what, failure.hint)
        raise failure from error


def _record(job_id: str, history: History, what: str, hint: str | None) -> None:
    with suppress(EngineError):  # The caller raises the first error, which says more.
        history.set_results(job_id, problem=what)
        history.add_note(job_id, Note("note", f"results not collected: {what}", hint))


def _cannot_save(job_id: str, error: OSError) -> EngineError:
    return EngineError(
        f"cannot save the results of {job_id} in {job_dir(job_id)}: {error.strerror}",
        f"make room there and run: stoke results {job_id}",
    )


def _note_refused(job_id: str, collected: Collected, history: History) -> None:
    if not collected.refused:
        return
    named = "; ".join(f"{path!r}: {why}" for path, why in collected.refused[:MOST_NOTED])
    more = collected.refused_count - min(len(collected.refused), MOST_NOTED)
    text = f"not among the results: {named}" + (f"; and {more:,} more" if more else "")
    history.add_note(job_id, Note("note", text))


def collect_later(job: Job) -> None:
    """Collect in a process of its own, which then removes the job from its engine."""
    from stoke.results.store import LOCK

    if is_locked(job_dir(job.id) / LOCK):
        return
    with suppress(OSError):  # The next listing tries again.
        background.start("stoke.jobs.finalize", job.id)


def enforce_budget(history: History) -> None:
    from stoke.config.loader import load_config
    from stoke.results.retention import enforce_results_budget

    with suppress(StokeError):  # The next collection tries again.
        config = load_config().results
        enforce_results_budget(config.keep_max, config.keep, history)
