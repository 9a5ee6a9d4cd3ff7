"""Find the lockfile of a job on the cache volume, or have it resolved."""

from __future__ import annotations

import fcntl
import os
import time

from stoke.remote.common.seal import unsealed
from stoke.remote.protocol import LOCK_SUFFIX, PythonLayout
from stoke.remote.runner.file_lock import FileLock
from stoke.remote.runner.files import digest, read_fresh
from stoke.remote.runner.lockfile_text import entry_text, header_text, packages_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.event_writer import PhaseReporter
    from stoke.remote.runner.job import RemoteJob


def find_lockfile(job: RemoteJob, phase: PhaseReporter) -> str:
    """Return the text of the lockfile: the user's own, a stored one, or one resolved now."""
    payload = job.payload
    if payload["lock"] is not None:
        # With markers, only the installation shows how many lines apply to this interpreter.
        has_markers = any(";" in text for text, _, _ in payload["lock"])
        phase.facts.update(hit=True, packages=None if has_markers else len(payload["lock"]))
        return header_text(payload["settings"]["header"]) + "".join(
            entry_text(text, hashes, index) for text, hashes, index in payload["lock"]
        )
    key = digest([payload["request"], job.fingerprint])
    os.makedirs(job.path(PythonLayout.LOCKFILES), exist_ok=True)
    stored = job.path(PythonLayout.LOCKFILES, key)
    path = stored + ".txt"
    oldest = time.time() - payload["lock_ttl"]
    text = unsealed(read_fresh(path, oldest))
    if text is None:
        with FileLock(stored + LOCK_SUFFIX) as lock:
            lock.acquire(fcntl.LOCK_EX, lambda: job.note_waiting("resolves"))
            text = unsealed(read_fresh(path, oldest))  # another job may have resolved it meanwhile
            phase.facts["hit"] = text is not None
            if text is None:
                from stoke.remote.runner.resolve import resolve

                text = resolve(job, path)
    else:
        phase.facts["hit"] = True
    phase.facts.update(packages=len(packages_of(text)), key=key)
    try:
        phase.facts["made_at"] = os.stat(path).st_mtime
    except FileNotFoundError:  # housekeeping has just removed it
        pass
    return text
