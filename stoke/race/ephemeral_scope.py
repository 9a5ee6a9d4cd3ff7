"""A scope that is used once and taken away again, whatever becomes of the program that uses it.

    python -P -m stoke.race.ephemeral_scope SCOPE

A note names the scope before anything is made in it. Whoever uses the scope holds the note's lock, for
which a process of its own waits: should the user be killed or hung up on, that process ends the
scope's jobs and removes its caches. Should the machine go down, the next user does (`sweep`).
"""

from __future__ import annotations

import fcntl
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
from stoke.files.paths import make_private, state_dir

if TYPE_CHECKING:
    from stoke.backend.api import Backend
    from stoke.backend.pool import Backends
    from stoke.history.database import History

PATIENCE_SECONDS = 5.0
"""For how long an engine may say that a container which has just gone still uses a volume."""

END_SECONDS = 60.0
"""For how long a job that was killed is waited for: clusters take their time."""


class EphemeralScope:
    """A scope's name, for as long as the `with` lasts. Nothing is made before a job is submitted to it.

    Leaving ends its jobs, removes its caches and forgets both; `EngineError` where that cannot be now:
    it is tried again then.
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
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.write(self._lock, json.dumps({"backend": self._backend.name}).encode())
            self._keeper = subprocess.Popen(
                command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
            )
        except OSError as error:
            if self._lock is not None:
                self._note.unlink(missing_ok=True)
                os.close(self._lock)
            raise EngineError(
                f"cannot prepare a scope of its own in {self._note.parent}: {error.strerror}",
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
            take_away(self._backend, self.name, self._history)
            self._note.unlink()
        except EngineError:
            # What went wrong first is what has to be said.
            if error is None:
                raise
        finally:
            os.close(self._lock)
            threading.Thread(target=self._keeper.wait, daemon=True).start()


def take_away(backend: Backend, scope: str, history: History) -> None:
    """Ends the scope's jobs, removes them and its caches, and forgets both."""
    from stoke.backend.capabilities import ForgetsScopes
    from stoke.history.volume_index import VolumeIndex
    from stoke.jobs import control, refresh
    from stoke.jobs.tracker import Tracker

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
                f"{job.id} was killed and does not end; its caches stay until it does"
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


def sweep(backends: Backends, history: History) -> None:
    """Takes away what a machine that went down has left. What cannot be now is left to the next."""
    for note in _folder().iterdir():
        if is_ephemeral(note.name):
            _take_over(note, backends, history, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _take_over(note: Path, backends: Backends, history: History, wait: int) -> None:
    """Once nobody uses the scope any more: takes away what is left of it."""
    try:
        lock = os.open(note, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, wait)
        if note.exists():
            written = os.read(lock, 4096)
            if written:  # Else whoever made it came no further.
                take_away(backends.get(json.loads(written)["backend"]), note.name, history)
            note.unlink(missing_ok=True)
    except (BlockingIOError, ValueError, StokeError):
        pass
    finally:
        os.close(lock)


def _folder() -> Path:
    return make_private(state_dir() / "ephemeral")


def _keep(scope: str) -> None:
    """Waits for whoever uses the scope; loads nothing else before, so as not to be in the way."""
    note = _folder() / scope
    try:
        lock = os.open(note, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.close(lock)
    if not note.exists():
        return
    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config
    from stoke.history.database import History

    with History() as history:
        _take_over(note, Backends(load_config()), history, fcntl.LOCK_EX)


if __name__ == "__main__":
    # As in stoke.cli.main: somebody's PYTHONPATH may hold another package called `backends`.
    sys.path.insert(0, str(Path(__file__).parents[2]))
    _keep(sys.argv[1])
