"""The local backend: a job is a detached process in its own session on this machine.

There is no isolation: a job runs as its user and sees what the user sees. Each job has one folder
with its delivery, the frames of its output, and its status.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.common.workspaces import WorkspaceMethods
from backends.local.caches import LocalCaches
from backends.local.folders import job_folder
from backends.local.log import FrameFile
from backends.local.processes import (
    MARK,
    Process,
    end_leftovers,
    leftovers,
    start_supervisor,
)
from backends.local.results import LocalResults
from backends.local.supervisor import STARTED, STATUS, elapsed, reserve
from stoke.backend.api import (
    Capabilities,
    Cause,
    CheckResult,
    Delivery,
    EngineState,
    EngineStatus,
    FoundJob,
    LogStream,
    PhaseReport,
    Volume,
)
from stoke.backend.capabilities import Channel
from stoke.config.model import Config
from stoke.errors import EngineError, RequestError, StokeError
from stoke.files.debug import Logger
from stoke.files.file_lock import is_locked, take_lock
from stoke.files.paths import cache_dir, make_private, state_dir
from stoke.files.untrusted import parse_json, read_bytes
from stoke.remote.command import runner_arguments
from stoke.remote.common.trees import remove_tree
from stoke.remote.protocol import JobFolder, RunnerOption
from stoke.request.spec import JobSpec
from stoke.text.sanitize import clean

if TYPE_CHECKING:
    from backends.local.forks import Forks
    from backends.local.gpus import TakenGpus
    from backends.local.workspaces import LocalWorkspaces
    from stoke.backend.capabilities import Workspace

_log = Logger(__name__)

# How long `stop` waits for a new job to handle signals.
BEGIN_SECONDS = 5.0
# The longest public spec, with every character escaped.
MAX_FILE = 64 * 1024**2
SUPERVISOR_LOG = "supervisor.log"
"""What the supervisor prints: only errors. It exists once the process has been asked for."""


class LocalBackend(LocalResults, WorkspaceMethods):
    """Run jobs as processes of this machine. Connects to nothing; all methods are quick."""

    name = "local"
    capabilities = Capabilities(
        images=False,
        limits=False,
        system_packages=False,
        counts_bytes=False,
        isolation="none: jobs run on this machine with your rights",
        workspaces=True,
        caches_here=True,
    )

    def __init__(self, config: Config) -> None:
        self._config = config
        self._supervisors: list[int] = []
        self._forks: Forks | None = None
        self._caches = LocalCaches(cache_dir() / "scopes", self._running_in)

    def check_mounts(self, spec: JobSpec) -> str | None:
        if not spec.mounts:
            return None
        from stoke.delivery.bind_mounts import resolve_mounts
        from stoke.request.mounts import MOUNT_ROOT

        linked = []
        for bind in resolve_mounts(spec, self._config):
            try:
                if os.path.samefile(bind.source, bind.target):
                    continue
            except OSError:
                pass  # Nothing is there, so code that reads the path fails instead of reading it.
            else:
                raise RequestError(
                    "mounts",
                    f"{bind.target} exists on this machine and is something else than {bind.source}, "
                    "and a local job would see it",
                    "choose another path, or run in a container: -b docker",
                )
            linked.append(bind.target)
        if not linked:
            return None
        first = linked[0]
        return (
            f"on this machine {first} is at ${MOUNT_ROOT}{first}, and nothing keeps it read-only; "
            f"os.environ['{MOUNT_ROOT}'] + '{first}' works on every backend"
        )

    def submit(self, delivery: Delivery, report: PhaseReport) -> None:
        began, clock = time.time(), elapsed()
        report("start", began, None)
        folder = make_private(job_folder(delivery.job_id))
        lock = take_lock(folder / "alive.lock", wait=False)
        if lock is None:
            return  # It runs already: the same submit, repeated.
        try:
            if _record(folder, STATUS):
                return
            mark = f"{delivery.job_id}.{secrets.token_hex(8)}"
            try:
                gpus = self._take_gpus(delivery.spec.gpu)
                try:
                    program = self._deliver(delivery, folder, mark)
                    environment = self._environment(delivery, folder, mark)
                    environment |= gpus.variables if gpus else {}
                    reserve(str(folder))
                    spec = delivery.spec
                    timeout = spec.timeout + (spec.hold or 0) if spec.timeout else 0
                    locks = (lock, *(gpus.locks if gpus else ()))
                    forks = self._forks_for(environment) if delivery.is_task else None
                    supervisor = _spawn(
                        _python(), folder, locks, timeout, program, environment, forks
                    )
                finally:
                    if gpus:
                        gpus.close()
            except (OSError, StokeError):
                remove_tree(str(folder))
                raise
            _log.debug("%s: process %d supervises it", delivery.job_id, supervisor)
            self._supervisors.append(supervisor)
        except OSError as error:
            raise EngineError(
                f"cannot start {delivery.job_id} in {folder}: {error.strerror}",
                "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
            ) from error
        finally:
            os.close(lock)
        report("start", began, elapsed() - clock)

    def _forks_for(self, environment: Mapping[str, str]) -> Forks | None:
        """Return the server that starts the supervisors of tasks with this environment, if there can
        be one."""
        from backends.local.forks import Forks

        if self._forks is not None and not self._forks.serves(environment):
            self.close()
        if self._forks is None:
            try:
                self._forks = Forks(_python(), environment)
            except OSError as error:
                _log.debug("no server of supervisors: %s", error)
        return self._forks

    def _take_gpus(self, count: int | None) -> TakenGpus | None:
        if count is None:
            return None
        from backends.local.gpus import take_gpus

        return take_gpus(count, self._config.local)

    def _environment(self, delivery: Delivery, folder: Path, mark: str) -> dict[str, str]:
        """Return the variables of the job. The targets of its mounts are links in a folder."""
        given = os.environ if delivery.environment is None else delivery.environment
        environment = {**given, MARK: mark}
        if delivery.spec.mounts:
            from stoke.delivery.bind_mounts import resolve_mounts
            from stoke.request.mounts import MOUNT_ROOT

            root = folder / "mounts"
            for bind in resolve_mounts(delivery.spec, self._config):
                link = root / bind.target.lstrip("/")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(bind.source)
            environment[MOUNT_ROOT] = str(root)
        return environment

    def _deliver(self, delivery: Delivery, folder: Path, mark: str) -> list[str]:
        (folder / "runner.py").write_bytes(delivery.runner)
        (folder / "spec.json").write_bytes(delivery.public_spec)
        (folder / "job.json").write_text(
            json.dumps(
                {
                    "scope": delivery.spec.scope,
                    "nonce": delivery.nonce,
                    "submitted_at": time.time(),
                    "use_cache": delivery.spec.use_cache,
                    "workspace": delivery.spec.workspace,
                    "mark": mark,
                }
            )
        )
        payload = os.open(folder / "payload", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(payload, "wb") as file:
            file.write(delivery.payload)
        pack = None
        if delivery.project and delivery.project.pack:
            pack = str(folder / "pack")
            _link_or_copy(delivery.project.pack, pack)
        inputs = None
        if delivery.inputs:
            inputs = str(folder / JobFolder.INPUTS)
            _link_or_copy(delivery.inputs, inputs)
        cache = None
        if delivery.spec.use_cache:
            cache = str(self._caches.make(delivery.spec.scope, "python"))
        workspace = None
        if delivery.spec.workspace is not None:
            # After the job's record, by which those who remove workspaces know that it is in use.
            workspace = str(self._workspaces().make(delivery.spec.workspace, delivery.spec.scope))
        arguments = runner_arguments(
            str(folder / "payload"),
            work=str(folder / JobFolder.WORK),
            uv=_uv(),
            cache=cache,
            pack=pack,
            workspace=workspace,
            results=str(folder / JobFolder.RESULTS),
            inputs=inputs,
            flags=(RunnerOption.KEEP_COPY,),
        )
        return [str(folder / "runner.py"), *arguments]

    def inspect(self, job_id: str) -> EngineState:
        self._reap()
        folder = job_folder(job_id)
        # In this order: the lock is held when a supervisor's log is created, and until its status is
        # written.
        was_spawned = (folder / SUPERVISOR_LOG).exists()
        alive = _is_supervised(folder)
        status = _record(folder, STATUS)
        record = _record(folder, STARTED)
        started = record["started_at"] if record else None
        if status is not None:
            return EngineState(
                EngineStatus.EXITED,
                status["exit_code"],
                None,
                status["started_at"],
                status["finished_at"],
            )
        if alive:
            return EngineState(EngineStatus.RUNNING, started_at=started)
        if not folder.exists():
            return EngineState(EngineStatus.ABSENT)
        if record is None:
            return _without_record(folder) if was_spawned else EngineState(EngineStatus.CREATED)
        is_elsewhere = Process(record).is_elsewhere
        return EngineState(
            EngineStatus.ABSENT,
            reason=_why_it_is_lost(folder, record),
            started_at=started,
            cause=Cause.MACHINE_RESTART if is_elsewhere else Cause.SUPERVISOR_LOST,
        )

    def logs(self, job_id: str, since: int, follow: bool) -> LogStream:
        def is_over() -> bool:
            return self.inspect(job_id).status in (EngineStatus.EXITED, EngineStatus.ABSENT)

        return FrameFile(job_folder(job_id) / "frames", since, follow, is_over)

    def stop(self, job_id: str, grace: float) -> None:
        folder = job_folder(job_id)
        started = self._started(folder)
        if started is None or _record(folder, STATUS):
            return
        if not _is_supervised(folder):
            _end_leftovers(job_id, folder)
            return
        supervisor = Process(started)
        if supervisor.is_elsewhere:
            raise EngineError(
                f"{job_id} runs on another machine or in another container, which shares {folder}",
                "stop it there",
            )
        if grace <= 0:
            sent = supervisor.send(signal.SIGQUIT)
        else:
            # The supervisor reads the file at the signal and does the rest, so this program may
            # end.
            try:
                (folder / "stop").write_text(str(grace))
            except OSError as error:
                raise EngineError(
                    f"cannot write to {folder}: {error.strerror}",
                    f"stop the job at once: stoke stop --now {job_id}",
                ) from error
            sent = supervisor.send(signal.SIGTERM)
        if not sent and _is_supervised(folder):
            raise EngineError(
                f"cannot stop {job_id}: an earlier version of stoke started it, and process "
                f"{supervisor.pid} may belong to another program",
                f"check whether it is the job's: ps -fp {supervisor.pid}; then kill it",
            )
        # A stopped (SIGSTOP) supervisor handles the signal only once it continues.
        supervisor.send(signal.SIGCONT)

    def interrupt(self, job_id: str) -> None:
        folder = job_folder(job_id)
        started = self._started(folder)
        if started is not None and not _record(folder, STATUS) and _is_supervised(folder):
            Process(started).send(signal.SIGINT)

    def enter(self, job_id: str) -> Channel:
        folder = job_folder(job_id)
        started = self._started(folder)
        if started is None or _record(folder, STATUS) or not _is_supervised(folder):
            raise EngineError(f"cannot enter {job_id}: its process has ended")
        supervisor = Process(started)
        if supervisor.is_elsewhere:
            raise EngineError(
                f"{job_id} runs on another machine or in another container, which shares {folder}",
                "run stoke exec there",
            )
        from backends.local.channel import LocalChannel

        entry = folder / JobFolder.WORK / JobFolder.ENTRY
        return LocalChannel(_python(), entry, supervisor.pid)

    def _started(self, folder: Path) -> dict[str, Any] | None:
        """Return the record that a supervisor writes once it handles signals; wait for a new one."""
        deadline = time.monotonic() + BEGIN_SECONDS
        while True:
            begins = is_locked(folder / "alive.lock")
            started = _record(folder, STARTED)
            if started is not None or not begins or time.monotonic() > deadline:
                return started
            time.sleep(0.01)

    def remove(self, job_id: str) -> None:
        folder = job_folder(job_id)
        # With a status, the supervisor does nothing more than release its lock.
        if not _record(folder, STATUS):
            if _is_supervised(folder):
                raise EngineError(
                    f"{job_id} is still running", f"stop it first: stoke stop {job_id}"
                )
            _end_leftovers(job_id, folder)
        remove_tree(str(folder))
        if folder.exists():
            raise EngineError(
                f"cannot remove all of {folder}",
                f"remove it: sudo rm -r {shlex.quote(str(folder))}",
            )

    def jobs(self) -> list[FoundJob]:
        found = []
        for folder in _all_folders():
            job = _read_job(folder)
            if job is None:
                continue
            read_spec = partial(_read_bytes, folder / "spec.json")
            found.append(
                FoundJob(folder.name, job["scope"], job["submitted_at"], job["nonce"], read_spec)
            )
        return found

    def project_store(self, scope: str) -> str | None:
        return str(cache_dir() / "scopes" / scope)

    def volumes(self) -> list[Volume]:
        return self._caches.volumes()

    def housekeep(
        self, volume: Volume, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        return self._caches.housekeep(volume, operation, progress, _python(), _uv())

    def forget_scope(self, scope: str) -> None:
        for volume in self.volumes():
            if volume.scope == scope:
                self.housekeep(volume, {"do": "clear", "kind": volume.kind}, lambda _: None)
                self._caches.remove(volume)

    # ------------------------------------------------------------------ workspaces

    def _workspaces(self) -> LocalWorkspaces:
        from backends.local.workspaces import LocalWorkspaces

        return LocalWorkspaces(state_dir() / "workspaces", self._running_with)

    def rename_workspace(self, workspace: Workspace, new: str) -> None:
        self._workspaces().rename(workspace, new)

    # ------------------------------------------------------------------ the rest

    def check(self) -> list[CheckResult]:
        from backends.local.check import check_machine

        return check_machine(_python(), self._config.local)

    def close(self) -> None:
        """End the server of supervisors, if there is one."""
        if self._forks is not None:
            self._forks.close()
            self._forks = None

    def _reap(self) -> None:
        """Reap ended supervisors, which are children of the program that started them."""
        for pid in list(self._supervisors):
            try:
                ended = os.waitpid(pid, os.WNOHANG)[0] == pid
            except ChildProcessError:
                ended = True
            if ended and pid in self._supervisors:
                self._supervisors.remove(pid)

    def _running_in(self, scope: str) -> list[str]:
        """Return the ids of running jobs that use the scope's caches."""
        return self._running(lambda job: job["scope"] == scope and job["use_cache"])

    def _running_with(self, workspace: str) -> list[str]:
        """Return the ids of running jobs that use a workspace."""
        return self._running(lambda job: job.get("workspace") == workspace)

    def _running(self, uses: Callable[[dict[str, Any]], bool]) -> list[str]:
        running = []
        for folder in _all_folders():
            job = _read_job(folder)
            if (
                job is not None
                and uses(job)
                and not _record(folder, STATUS)
                and _is_supervised(folder)
            ):
                running.append(folder.name)
        return running


def _all_folders() -> list[Path]:
    try:
        return sorted((state_dir() / "local").iterdir())
    except OSError:
        return []


@cache
def _uv() -> str:
    """Return uv's program. Looking for it takes 1 ms, which a sweep has no need to repeat."""
    from uv import find_uv_bin

    return find_uv_bin()


def _spawn(
    python: str,
    folder: Path,
    locks: tuple[int, ...],
    timeout: float,
    program: list[str],
    environment: Mapping[str, str],
    forks: Forks | None = None,
) -> int:
    """Start the supervisor, detached, holding the file locks from its first moment. Return its process
    id. It is a fork of the server `forks`, if there is one."""
    log = os.open(folder / SUPERVISOR_LOG, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if forks is not None:
            try:
                return forks.spawn([str(folder), str(timeout), *program], environment, log, locks)
            except OSError as error:
                _log.debug("%s: no fork of the server: %s", folder.name, error)
        return start_supervisor(python, folder, locks, timeout, program, environment, log)
    except (FileNotFoundError, PermissionError) as error:
        raise EngineError(
            f"cannot start Python for the job, {python}: {error.strerror}",
            "reinstall stoke: the Python that it was installed with is gone or not executable",
        ) from error
    finally:
        os.close(log)


def _python() -> str:
    """Return the interpreter that stoke was installed with, not that of stoke's own environment."""
    return getattr(sys, "_base_executable", None) or sys.executable


def _link_or_copy(source: Path, target: str) -> None:
    """Give a file a second name; copy it if the two are on different file systems."""
    Path(target).unlink(missing_ok=True)  # of a submit that was killed
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        from shutil import copyfile

        copyfile(source, target)


def _read_bytes(path: Path) -> bytes | None:
    """Return a file's content, or None. A job runs as the same user and can overwrite any file."""
    try:
        return read_bytes(path, MAX_FILE)
    except OSError:
        return None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = parse_json(_read_bytes(path) or b"")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _read_job(folder: Path) -> dict[str, Any] | None:
    """Return the record that `submit` wrote, if it is still valid."""
    job = _read_json(folder / "job.json")
    wanted = {"scope": str, "nonce": str, "submitted_at": float, "use_cache": bool}
    if job is None or any(type(job.get(name)) is not kind for name, kind in wanted.items()):
        return None
    return job


def _record(folder: Path, name: str) -> dict[str, Any] | None:
    """Return a record of the supervisor. On a full disk it may still have its temporary name."""
    return _read_json(folder / f"{name}.json") or _read_json(folder / f"{name}.reserved")


def _is_supervised(folder: Path) -> bool:
    """Whether a job's supervisor is alive, which means that it holds the file lock.

    In earlier versions the job inherited the lock, so the lock proves nothing if the supervisor is
    known to have ended.
    """
    if not is_locked(folder / "alive.lock"):
        return False
    record = _record(folder, STARTED)
    return record is None or not Process(record).is_dead


def _of_the_job(folder: Path) -> tuple[str | None, Process | None]:
    """Return a job's mark and its runner, as far as they are recorded."""
    mark = (_read_json(folder / "job.json") or {}).get("mark")
    runner = (_record(folder, STARTED) or {}).get("runner")
    return (
        mark if isinstance(mark, str) else None,
        Process(runner) if isinstance(runner, dict) else None,
    )


def _why_it_is_lost(folder: Path, record: dict[str, Any]) -> str:
    if Process(record).is_elsewhere:
        return "this machine was rebooted, or the job ran on another machine"
    left = leftovers(*_of_the_job(folder))
    if not left:
        return "its supervisor process was killed"
    names = ", ".join(str(process.pid) for process in left[:5]) + (", ..." if len(left) > 5 else "")
    return f"its supervisor process was killed; stoke kills the processes that it left ({names})"


def _without_record(folder: Path) -> EngineState:
    """Return the state of a job whose supervisor ended before it wrote a record."""
    reason = "its supervisor process ended before the job began"
    printed = (_read_bytes(folder / SUPERVISOR_LOG) or b"").decode(errors="replace")
    errors = [clean(line).strip()[:200] for line in printed.splitlines() if "Error" in line]
    if not errors:
        return EngineState(EngineStatus.ABSENT, reason=reason, cause=Cause.SUPERVISOR_LOST)
    python = shlex.quote(_python())
    return EngineState(
        EngineStatus.ABSENT,
        reason=f"{reason}: {errors[-1]}",
        hint=f"repair this Python if it prints an error: {python} -I -S -c 'import ctypes, json'",
    )


def _end_leftovers(job_id: str, folder: Path) -> None:
    left = end_leftovers(*_of_the_job(folder))
    if left:
        names = " ".join(map(str, left))
        raise EngineError(
            f"processes of {job_id} could not be killed: {names}", f"kill them: kill -9 {names}"
        )
