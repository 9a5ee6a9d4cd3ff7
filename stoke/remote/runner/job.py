"""One job: what its phases share."""

from __future__ import annotations

import fcntl
import os
import sys

from stoke.remote.protocol import LOCK_SUFFIX, HintCode, RunnerOption
from stoke.remote.runner.errors import PhaseError
from stoke.remote.runner.event_writer import EventWriter, PhaseReporter
from stoke.remote.runner.file_lock import FileLock
from stoke.remote.runner.streams import Tagged, write_all
from stoke.remote.runner.termination import Termination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from stoke.remote.protocol import Hint
    from stoke.remote.runner.project_copy import ProjectCopy
    from stoke.remote.schema import Payload

    Shared = TypeVar("Shared")

Result = tuple[int, dict[str, object]]
"""How a job ended: (exit code, further fields of the end event)."""
MAX_BUILDS = 20  # of one environment by one job; other jobs may remove it before it is used


class RemoteJob:
    """The payload, folders, events and file locks of a job, and what its phases have found."""

    def __init__(self, payload: Payload, options: dict[str, str]) -> None:
        self.payload = payload
        self.work = options[RunnerOption.WORK]
        self.container = RunnerOption.CONTAINER in options
        self.own_files = RunnerOption.OWN_FILES in options
        self.nix = RunnerOption.NIX in options
        self.given_uv = options.get(RunnerOption.UV)
        self.keep_copy = RunnerOption.KEEP_COPY in options
        self.pack = options.get(RunnerOption.PACK)
        self.workspace = options.get(RunnerOption.WORKSPACE)
        self.results = options.get(RunnerOption.RESULTS)
        self.ca_bundle = options.get(RunnerOption.CA_BUNDLE)
        self.packed_inputs = options.get(RunnerOption.INPUTS)
        self.private_cache = os.path.join(self.work, ".cache")
        shared_cache = options.get(RunnerOption.CACHE) if payload["use_cache"] else None
        self.cache = shared_cache or self.private_cache
        self.tagged = Tagged() if RunnerOption.TAGGED in options else None
        self.write = self.tagged.write if self.tagged else write_all
        secrets = payload["index"]["secrets"]
        self.events = EventWriter(payload["nonce"], secrets, self.container, self.write)
        self.termination = Termination()
        self.python = sys.executable
        self.fingerprint: list[str] = []
        self.lockfile: str | None = None
        self.environment: str | None = None  # the folder of the environment in use
        self.began = False  # whether the code has begun
        self.programs: list[str] = []  # the bin folders of the system packages
        self.project: str | None = None  # the folder of the job's copy of its project
        self.copy: ProjectCopy | None = None  # the same folder, if it stays on the cache volume
        self.manifest = b""  # that of the project
        self.inputs: str | None = None  # the folder with the results of earlier jobs
        self.directory = ""  # the working directory of the code
        self.checkpoint: int | None = None  # the descriptor of its folder
        self.code_began = 0.0  # the time, on the clock of the file system
        self.script: str | None = None  # the file with the payload's code
        self._shared: dict[object, Any] = {}
        self._locks: list[FileLock] = []  # held until the job's end

    def shared(self, kind: Callable[[RemoteJob], Shared]) -> Shared:
        """Return the job's one object of a class, such as `Uv`. The first use makes it."""
        if kind not in self._shared:
            self._shared[kind] = kind(self)
        found: Shared = self._shared[kind]
        return found

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

    def leave_cache(self, why: str) -> None:
        """Use a private cache from now on, because the shared one cannot be used."""
        self.events.note("continuing without the cache, because it cannot be used: " + why)
        for lock in self._locks:
            lock.close()
        self._locks.clear()
        self.cache = self.private_cache

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
        lock = self.lock_until_end(lock_path)
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

    def lock_until_end(self, path: str) -> FileLock:
        lock = FileLock(path)
        self._locks.append(lock)
        return lock
