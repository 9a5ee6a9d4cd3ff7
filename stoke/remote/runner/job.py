"""One job: its state, and its phases in order.

The phases lock, system, python and run follow one another. Each reports its results in one event.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys

from stoke.remote.common.files import DISK_FULL
from stoke.remote.protocol import (
    EXIT_ENVIRONMENT,
    EXIT_TIMEOUT,
    LOCK_SUFFIX,
    HintCode,
    Option,
    PythonLayout,
)
from stoke.remote.runner.errors import CacheError, NetworkError, PhaseError, StoppedError
from stoke.remote.runner.event_writer import EventWriter, PhaseReporter
from stoke.remote.runner.file_lock import FileLock
from stoke.remote.runner.files import cache_trouble
from stoke.remote.runner.interpreter import choose_python
from stoke.remote.runner.streams import Tagged, write_all
from stoke.remote.runner.termination import Termination
from stoke.remote.runner.user_code import run_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from stoke.remote.protocol import Hint
    from stoke.remote.runner.network import ConnectionSettings
    from stoke.remote.runner.user_code import Result
    from stoke.remote.runner.uv import Uv
    from stoke.remote.schema import Payload

MAX_BUILDS = 20  # of one environment by one job; other jobs may remove it before it is used


class RemoteJob:
    """What the phases share. Modules that few jobs need are imported by those jobs only."""

    def __init__(self, payload: Payload, options: dict[str, str]) -> None:
        self.payload = payload
        self.work = options[Option.WORK]
        self.container = Option.CONTAINER in options
        self.own_files = Option.OWN_FILES in options
        self.nix = Option.NIX in options
        self.given_uv = options.get(Option.UV)
        self.private_cache = os.path.join(self.work, ".cache")
        shared_cache = options.get(Option.CACHE) if payload["use_cache"] else None
        self.cache = shared_cache or self.private_cache
        self.tagged = Tagged() if Option.TAGGED in options else None
        self.write = self.tagged.write if self.tagged else write_all
        secrets = payload["index"]["secrets"]
        self.events = EventWriter(payload["nonce"], secrets, self.container, self.write)
        self.termination = Termination()
        self.python = sys.executable
        self.fingerprint: list[str] = []
        self.lockfile: str | None = None
        self.environment: str | None = None  # the folder of the environment in use
        self.programs: list[str] = []  # the bin folders of the system packages
        self._phase = "lock"
        self._uv: Uv | None = None
        self._network: ConnectionSettings | None = None
        self._locks: list[FileLock] = []  # held until the job's end

    @property
    def uv(self) -> Uv:
        if self._uv is None:
            from stoke.remote.runner.uv import Uv

            self._uv = Uv(self)
        return self._uv

    @property
    def network(self) -> ConnectionSettings:
        if self._network is None:
            from stoke.remote.runner.network import ConnectionSettings

            self._network = ConnectionSettings(self)
        return self._network

    def path(self, *names: str) -> str:
        """Return a path on the cache volume, or in the job's private cache."""
        return os.path.join(self.cache, *names)

    def note_waiting(self, activity: str) -> None:
        self.events.note("another job %s the same environment; waiting for it" % activity)

    def full_cache_hint(self) -> Hint:
        """Return the hint for a full cache; a private cache is on the disk of the work folder."""
        if self.cache == self.private_cache:
            return HintCode.FREE_SPACE, self.work
        return (HintCode.PRUNE_PYTHON,)

    # ------------------------------------------------------------------ phases

    def run(self) -> Result:
        """Run all phases, up to the code's end or the first failure, which an event reports."""
        try:
            try:
                self._prepare()
            except (PhaseError, OSError) as error:
                why = cache_trouble(error, self.cache)
                if (
                    why is None
                    or self._phase == "system"  # a job cannot use another /nix
                    or self.cache == self.private_cache
                    or self.payload["on_cache_trouble"] == "fail"
                ):
                    raise
                self._leave_cache(why)
                self._prepare()
            if self.payload["lock_only"]:
                self.write(1, (self.lockfile or "").encode())
                return 0, {}
            self._phase = "run"
            with PhaseReporter(self.events, "run"):
                return run_code(self)
        except PhaseError as error:
            failure = error
        except StoppedError:
            reason = self.termination.reason
            if reason == "timeout":
                return EXIT_TIMEOUT, {"reason": reason}
            number = signal.SIGINT if reason == "interrupted" else signal.SIGTERM
            return 128 + number, {"reason": reason}
        except OSError as error:
            text = "%s: %s" % (error.filename, error.strerror) if error.filename else str(error)
            failure = PhaseError(text)
            if error.errno in DISK_FULL:
                in_cache = cache_trouble(error, self.cache) is not None
                space = (HintCode.FREE_SPACE, self.work)
                failure.hint = self.full_cache_hint() if in_cache else space
        self.events.error(self._phase, failure)
        first, *rest = self.events.masked(failure.text).split("\n")
        if rest and isinstance(failure, (CacheError, NetworkError)):
            first += ": " + rest[-1]
        return EXIT_ENVIRONMENT, {"reason": "%s: %s" % (self._phase, first[:300])}

    def _prepare(self) -> None:
        """Run the phases before that of the user's code."""
        self._phase = "lock"
        os.makedirs(self.cache, exist_ok=True)
        self._lock_until_end(self.path(PythonLayout.IN_USE_LOCK)).acquire(
            fcntl.LOCK_SH, lambda: self.events.note("the cache is being cleared; waiting")
        )
        self.lockfile = None
        if self.payload["requirements"]:
            from stoke.remote.runner.lockfile import find_lockfile

            with PhaseReporter(self.events, "lock") as phase:
                choose_python(self)
                self.lockfile = find_lockfile(self, phase)
        else:
            choose_python(self)
        if self.payload["lock_only"]:
            return
        if self.payload["system"]:
            from stoke.remote.runner.nix import SystemPackages

            self._phase = "system"
            with PhaseReporter(self.events, "system") as phase:
                self.programs = SystemPackages(self, self.payload["system"]).prepare(phase)
        if self.lockfile is not None:
            from stoke.remote.runner.environment import prepare_environment

            self._phase = "python"
            with PhaseReporter(self.events, "python") as phase:
                prepare_environment(self, phase, self.lockfile)

    def _leave_cache(self, why: str) -> None:
        """Use a private cache from now on, because the shared one cannot be used."""
        self.events.note("continuing without the cache, because it cannot be used: " + why)
        for lock in self._locks:
            lock.close()
        self._locks.clear()
        self.cache = self.private_cache

    # ------------------------------------------------------------------ environments and sets

    def find_or_build(
        self,
        phase: PhaseReporter,
        lock_path: str,
        find: Callable[[], dict[str, Any] | None],
        build: Callable[[], int],
        blocked: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Return what `find` returns, calling `build` first if that is None; one job builds.

        The file lock at `lock_path` stays held, shared, until the job's end, and counts the use.
        `build` returns how many packages were in the cache. `blocked` is called before this waits to
        build, because other jobs build or use the same.
        """
        lock = self._lock_until_end(lock_path)
        phase.facts["hit"] = True
        for _ in range(MAX_BUILDS):
            lock.acquire(fcntl.LOCK_SH, lambda: self.note_waiting("builds"))
            metadata = find()
            if metadata is not None:
                break
            lock.release()
            lock.acquire(fcntl.LOCK_EX, blocked or (lambda: self.note_waiting("builds")))
            if find() is None:
                phase.facts["hit"] = False
                phase.facts["cached"] = build()
            lock.release()
        else:
            built = lock_path[: -len(LOCK_SUFFIX)]
            raise PhaseError("other jobs removed or damaged %s each time it was built" % built)
        lock.count_use()
        return metadata

    def _lock_until_end(self, path: str) -> FileLock:
        lock = FileLock(path)
        self._locks.append(lock)
        return lock
