"""A scope that is used once and then deleted, even if the process that uses it is killed.

    python -P -m stoke.race.ephemeral_scope SCOPE

A note file names the scope before anything is created in it. The process that uses the scope holds a
lock on the note. A second process waits for that lock: if the first one is killed or loses its
terminal, the second stops the scope's jobs and deletes its caches. After a crash of the machine, the
next race does so (`sweep`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from stoke.cache.scopes import is_ephemeral, new_ephemeral_scope
from stoke.errors import EngineError, StokeError
from stoke.files.file_lock import lock_descriptor, take_lock
from stoke.files.paths import make_private, state_dir

if TYPE_CHECKING:
    from stoke.backend.api import Backend
    from stoke.backend.pool import Backends
    from stoke.history.database import History

PATIENCE_SECONDS = 5.0
"""Seconds for which an engine may report a volume as used by a container that was just removed."""

END_SECONDS = 60.0
"""Seconds to wait for the end of a killed job; clusters can be slow."""


class EphemeralScope:
    """A context manager that yields the name of a new scope. Creates nothing at the backend.

    On exit it stops the scope's jobs and deletes jobs, caches and records. If that fails now it raises
    `EngineError`, and the waiting process tries again.
    """

    def __init__(self, backend: Backend, history: History) -> None:
        self.name = new_ephemeral_scope()
        self._backend = backend
        self._history = history
        self._note = _folder() / self.name
        self._lock: int | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> str:
        command = [sys.executable, "-P", "-m", "stoke.race.ephemeral_scope", self.name]
        nothing = subprocess.DEVNULL
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._lock = os.open(self._note, flags, 0o600)
            lock_descriptor(self._lock, wait=True)
            os.write(self._lock, json.dumps({"backend": self._backend.name}).encode())
            self._keeper = subprocess.Popen(
                command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
            )
        except OSError as error:
            if self._lock is not None:
                self._note.unlink(missing_ok=True)
                os.close(self._lock)
            raise EngineError(
                f"cannot prepare an ephemeral scope in {self._note.parent}: {error.strerror}",
                "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
            ) from error
        return self.name

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        assert self._lock is not None and self._keeper is not None
        try:
            delete_scope(self._backend, self.name, self._history)
            self._note.unlink()
        except EngineError:
            # The first error is the one to report.
            if error is None:
                raise
        finally:
            os.close(self._lock)
            threading.Thread(target=self._keeper.wait, daemon=True).start()


def delete_scope(backend: Backend, scope: str, history: History) -> None:
    """Stop the scope's jobs, and delete its jobs, caches and records."""
    from stoke.backend.capabilities import ForgetsScopes
    from stoke.history.volume_index import VolumeIndex
    from stoke.jobs import control, refresh
    from stoke.jobs.tracker import Tracker
    from stoke.project.stored_contents import forget_stored

    for job in history.in_scope(backend.name, scope):
        control.stop(job, backend, history, 0)
        refresh.reconcile(job, backend, history)
        tracker = Tracker(backend, history, job.id)
        timer = threading.Timer(END_SECONDS, tracker.close)
        timer.daemon = True
        timer.start()
        tracker.run()
        timer.cancel()
        ended = history.get(job.id)
        if ended is not None and not ended.state.finished:
            raise EngineError(
                f"{job.id} was killed but has not ended; its caches stay until it ends"
            )
        if ended is not None:
            control.remove(ended, backend, history)
    if isinstance(backend, ForgetsScopes):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                backend.forget_scope(scope)
                break
            except EngineError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
    VolumeIndex(history).forget_scope(backend.name, scope)
    forget_stored(backend.name, scope)


def sweep(backends: Backends, history: History) -> None:
    """Delete the scopes that a crash of the machine has left. The next race retries failures."""
    for note in _folder().iterdir():
        if is_ephemeral(note.name):
            _take_over(note, backends, history, wait=False)


def _take_over(note: Path, backends: Backends, history: History, *, wait: bool) -> None:
    """Take the note's lock, and delete what is left of its scope."""
    try:
        lock = take_lock(note, wait=wait, create=False)
    except FileNotFoundError:
        return
    if lock is None:
        return
    try:
        if note.exists():
            written = os.read(lock, 4096)
            if written:  # An empty note: its process died before it used the scope.
                from stoke.files.untrusted import parse_json

                delete_scope(backends.get(parse_json(written)["backend"]), note.name, history)
            note.unlink(missing_ok=True)
    except (ValueError, LookupError, TypeError, StokeError):
        pass
    finally:
        os.close(lock)


def _folder() -> Path:
    return make_private(state_dir() / "ephemeral")


def _keep(scope: str) -> None:
    """Wait until the process that uses the scope releases it, then delete what is left.

    Imports nothing else before that, so as not to compete with the race for the processor.
    """
    note = _folder() / scope
    try:
        lock = take_lock(note, wait=True, create=False)
    except FileNotFoundError:
        return
    assert lock is not None
    os.close(lock)
    if not note.exists():
        return
    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config
    from stoke.history.database import History

    with History() as history:
        _take_over(note, Backends(load_config()), history, wait=True)


if __name__ == "__main__":
    # As in stoke.cli.main: PYTHONPATH may hold another package called `backends`.
    sys.path.insert(0, str(Path(__file__).parents[2]))
    _keep(sys.argv[1])
