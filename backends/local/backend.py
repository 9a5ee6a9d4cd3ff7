"""The local backend: a job is a detached process in its own session on this machine.

No container and no isolation: a job runs as its user and sees what the user sees. Everything about
a job is in one folder: what was delivered, the frames of its output, its status.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from backends.local.caches import LocalCaches
from backends.local.log import FrameFile
from stoke.backend import (
    Capabilities,
    Delivery,
    EngineState,
    Finding,
    FoundJob,
    LogStream,
    PhaseReport,
    Volume,
)
from stoke.config import Config
from stoke.errors import EngineError
from stoke.locks import is_locked
from stoke.paths import cache_dir, make_private, state_dir

# For how long a job that is to be stopped is waited for to take signals.
BEGIN_SECONDS = 5.0


class LocalBackend:
    """Jobs as processes of this machine. Connects to nothing; all methods are quick."""

    name = "local"
    capabilities = Capabilities(
        images=False,
        limits=False,
        system_packages=False,
        counts_bytes=False,
        isolation="jobs run as you, on this machine, with nothing between",
    )

    def __init__(self, config: Config) -> None:
        self._config = config
        self._supervisors: list[int] = []
        self._caches = LocalCaches(cache_dir() / "scopes", self._running_in)

    def submit(self, delivery: Delivery, report: PhaseReport) -> None:
        began = time.time()
        report("start", began, None)
        folder = make_private(_folder(delivery.job_id))
        lock = os.open(folder / "alive.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # It runs already: the same submit, repeated.
            if (folder / "status.json").exists():
                return
            argv = self._deliver(delivery, folder)
            self._supervisors.append(_spawn(folder, lock, argv))
        except OSError as error:
            raise EngineError(
                f"cannot start {delivery.job_id} in {folder}: {error.strerror}",
                "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
            ) from error
        finally:
            os.close(lock)
        report("start", began, time.time() - began)

    def _deliver(self, delivery: Delivery, folder: Path) -> list[str]:
        from uv import find_uv_bin

        (folder / "runner.py").write_bytes(delivery.runner)
        (folder / "spec.json").write_bytes(delivery.public_spec)
        (folder / "job.json").write_text(
            json.dumps(
                {
                    "scope": delivery.spec.scope,
                    "nonce": delivery.nonce,
                    "submitted_at": time.time(),
                    "use_cache": delivery.spec.use_cache,
                }
            )
        )
        payload = os.open(folder / "payload", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(payload, "wb") as file:
            file.write(delivery.payload)
        argv = [_python(), "-I", "-S", str(folder / "runner.py"), str(folder / "payload")]
        argv += ["--work", str(folder / "work"), "--uv", find_uv_bin()]
        if delivery.spec.use_cache:
            argv += ["--cache", str(self._caches.make(delivery.spec.scope, "python"))]
        return argv

    def inspect(self, job_id: str) -> EngineState:
        self._reap()
        folder = _folder(job_id)
        alive = is_locked(folder / "alive.lock")
        # In this order: a supervisor writes the status first and lets go of the lock afterwards.
        status = _read_json(folder / "status.json")
        started = (_read_json(folder / "started.json") or {}).get("started_at")
        if status is not None:
            return EngineState(
                "exited", status["exit_code"], None, status["started_at"], status["finished_at"]
            )
        if alive:
            return EngineState("running", started_at=started)
        if not folder.exists():
            return EngineState("absent")
        if started is None:
            return EngineState("created")
        return EngineState(
            "absent", reason="its process was killed, or this machine was started again"
        )

    def logs(self, job_id: str, since: int, follow: bool) -> LogStream:
        def is_over() -> bool:
            return self.inspect(job_id).status in ("exited", "absent")

        return FrameFile(_folder(job_id) / "frames", since, follow, is_over)

    def stop(self, job_id: str, grace: float) -> None:
        started = self._started(_folder(job_id))
        if started is None or not is_locked(_folder(job_id) / "alive.lock"):
            return
        pid = started["pid"]
        if grace <= 0:
            _signal(pid, signal.SIGQUIT)
            return
        # The supervisor reads it when the signal comes and does the rest: this program may end.
        (_folder(job_id) / "stop").write_text(str(grace))
        _signal(pid, signal.SIGTERM)

    def interrupt(self, job_id: str) -> None:
        started = self._started(_folder(job_id))
        if started is not None and is_locked(_folder(job_id) / "alive.lock"):
            _signal(started["pid"], signal.SIGINT)

    def _started(self, folder: Path) -> dict[str, Any] | None:
        """What a supervisor writes once it takes signals; one that has just begun is waited for."""
        deadline = time.monotonic() + BEGIN_SECONDS
        while True:
            begins = is_locked(folder / "alive.lock")
            started = _read_json(folder / "started.json")
            if started is not None or not begins or time.monotonic() > deadline:
                return started
            time.sleep(0.01)

    def remove(self, job_id: str) -> None:
        folder = _folder(job_id)
        # Its supervisor lets go of the lock a moment after it wrote the status, and does nothing more.
        if is_locked(folder / "alive.lock") and not (folder / "status.json").exists():
            raise EngineError(f"{job_id} still runs", f"stop it first: stoke stop {job_id}")
        shutil.rmtree(folder, ignore_errors=True)

    def jobs(self) -> list[FoundJob]:
        found = []
        for folder in _all_folders():
            job = _read_json(folder / "job.json")
            if job is None:
                continue
            read_spec = partial(_read_bytes, folder / "spec.json")
            found.append(
                FoundJob(folder.name, job["scope"], job["submitted_at"], job["nonce"], read_spec)
            )
        return found

    def volumes(self) -> list[Volume]:
        return self._caches.volumes()

    def housekeep(
        self, volume: Volume, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        from uv import find_uv_bin

        return self._caches.housekeep(volume, operation, progress, _python(), find_uv_bin())

    def forget_scope(self, scope: str) -> None:
        for volume in self.volumes():
            if volume.scope == scope:
                self.housekeep(volume, {"do": "clear", "kind": volume.kind}, lambda _: None)
                self._caches.remove(volume)

    def check(self) -> list[Finding]:
        from uv import find_uv_bin

        findings = [Finding("python", True, f"{_python()} ({sys.version.split()[0]})")]
        try:
            findings.append(Finding("uv", True, find_uv_bin()))
        except FileNotFoundError as error:
            findings.append(
                Finding("uv", False, str(error), "install stoke again: its uv package is damaged")
            )
        for what, folder, variable in (
            ("state", state_dir(), "STOKE_STATE_DIR"),
            ("caches", cache_dir(), "STOKE_CACHE_DIR"),
        ):
            try:
                make_private(folder)
                works = os.access(folder, os.W_OK)
                detail = str(folder) if works else f"{folder} cannot be written to"
            except EngineError as error:
                works, detail = False, error.what
            mend = None if works else f"export {variable}=/some/folder"
            findings.append(Finding(what, works, detail, mend))
        return findings

    def close(self) -> None:
        """Nothing is held open."""

    def _reap(self) -> None:
        """Supervisors that ended are this program's children as long as it lives."""
        for pid in list(self._supervisors):
            try:
                ended = os.waitpid(pid, os.WNOHANG)[0] == pid
            except ChildProcessError:
                ended = True
            if ended and pid in self._supervisors:
                self._supervisors.remove(pid)

    def _running_in(self, scope: str) -> list[str]:
        """Ids of running jobs that use the scope's caches."""
        running = []
        for folder in _all_folders():
            job = _read_json(folder / "job.json")
            uses = job is not None and job["scope"] == scope and job["use_cache"]
            over = (folder / "status.json").exists()
            if uses and not over and is_locked(folder / "alive.lock"):
                running.append(folder.name)
        return running


def _folder(job_id: str) -> Path:
    return state_dir() / "local" / job_id


def _all_folders() -> list[Path]:
    try:
        return sorted((state_dir() / "local").iterdir())
    except OSError:
        return []


def _python() -> str:
    """The interpreter stoke was installed with, not the environment stoke itself lives in."""
    return getattr(sys, "_base_executable", None) or sys.executable


def _spawn(folder: Path, lock: int, argv: list[str]) -> int:
    """Starts the supervisor, detached, with the lock as its own from the first moment."""
    supervisor = str(Path(__file__).with_name("supervisor.py"))
    command = [_python(), "-I", "-S", supervisor, str(folder), str(lock), *argv]
    # The lock belongs to the open file, which the child inherits and keeps when this end is closed.
    os.set_inheritable(lock, True)
    log = os.open(folder / "supervisor.log", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        return os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ],
            setsigmask=[],
        )
    finally:
        os.close(log)
        os.set_inheritable(lock, False)


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
