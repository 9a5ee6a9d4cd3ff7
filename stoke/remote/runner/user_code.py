"""Run the user's code as a child process."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from _thread import allocate_lock, start_new_thread  # `threading` takes 2 ms to import.

from stoke.remote.protocol import (
    EXIT_TIMEOUT,
    WORKSPACE_VARIABLE,
    HintCode,
    JobFolder,
    JobVariable,
)
from stoke.remote.runner.entry import offer_entry
from stoke.remote.runner.errors import PhaseError, StoppedError
from stoke.remote.runner.job_folders import make_folders
from stoke.remote.runner.memory import out_of_memory_kills, reset_peak_memory
from stoke.remote.runner.python_setup import prepare_interpreter
from stoke.remote.runner.streams import Pump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from stoke.remote.runner.job import RemoteJob, Result
    from stoke.remote.schema import Payload

FIRST_USAGE = 1.0  # seconds until usage is first read, and as many until it is first reported
LEFTOVER_GRACE = 0.5  # seconds between SIGTERM and SIGKILL for processes that the code left behind


def run_code(job: RemoteJob) -> Result:
    """Run the user's code to its end, and end the processes that it left behind."""
    payload = job.payload
    folder = files = os.path.join(job.work, JobFolder.FILES)
    os.makedirs(folder, exist_ok=True)
    script = _write_code(payload, folder) if payload["start"]["kind"] == "code" else None
    project = payload["project"]
    if job.project and project:
        folder = os.path.normpath(os.path.join(job.project, project["directory"]))
    elif job.workspace:
        folder = job.workspace
    job.directory, job.script = folder, script
    job.code_began = os.stat(files).st_mtime if script else time.time()
    os.chdir(folder)
    is_live = prepare_interpreter(job)
    python = job.python
    env = dict(os.environ)
    if not job.own_files:
        # These variables are about this machine's interpreter and packages.
        env = {name: env[name] for name in env if not name.startswith("PYTHON")}
    elif job.environment:
        # The image may set these. The first breaks an environment; with the second, no job would
        # keep the bytecode of its modules.
        env.pop("PYTHONHOME", None)
        env.pop("PYTHONDONTWRITEBYTECODE", None)
    if job.environment:
        python = os.path.join(job.environment, "bin", "python")
        env["VIRTUAL_ENV"] = job.environment
    env["PATH"] = _search_path(job, env)
    for name in payload["withheld"]:
        env.pop(name, None)
    for name in (WORKSPACE_VARIABLE, JobVariable.INPUTS):
        env.pop(name, None)  # of a job around a local one
    if job.workspace:
        env[WORKSPACE_VARIABLE] = job.workspace
    env.update(payload["env"])
    env.update(make_folders(job))
    if job.inputs:
        env[JobVariable.INPUTS] = job.inputs
    if job.project and project:
        # Child processes import from the project, too.
        paths = [folder] if script else []
        paths += [env["PYTHONPATH"]] if env.get("PYTHONPATH") else []
        paths += [
            os.path.normpath(os.path.join(job.project, name)) for name in project["import_path"]
        ]
        if paths:
            env["PYTHONPATH"] = ":".join(paths)
    if folder is not files:
        env["PWD"] = folder
    if not is_live and payload["start"]["kind"] == "program":
        env.setdefault("PYTHONUNBUFFERED", "1")

    def offer() -> None:
        first = [] if "PATH" in payload["env"] else _first_folders(job)
        offer_entry(job, env, folder, first)

    if payload["start"]["kind"] == "shell":
        from stoke.remote.runner.waiting import run_shell

        return run_shell(job, offer)
    argv = _command(job, folder, python, is_live, script, env["PATH"])
    kills = out_of_memory_kills() if job.container else 0
    if job.termination.reason:
        raise StoppedError
    reset_peak_memory()
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    pump = Pump(job.tagged) if job.tagged else None
    if pump:
        actions += [
            (os.POSIX_SPAWN_DUP2, theirs, stream)
            for stream, theirs in enumerate(pump.given, start=1)
        ]
    child = os.posix_spawn(
        argv[0],
        argv,
        env,
        file_actions=actions,
        setpgroup=0,
        # Python ignores these signals, and a child would inherit that.
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )
    job.began = True
    job.termination.watch(child)
    offer()
    if pump:
        pump.start()
    sampling = Sampling(job, child)
    while True:  # process 1 of a container also reaps orphans
        pid, status, usage = os.wait4(-1, 0)
        if pid == child:
            break
    signal.setitimer(signal.ITIMER_REAL, 0)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    reason: str | None = job.termination.reason
    if code == 128 + signal.SIGKILL and job.container and out_of_memory_kills() > kills:
        reason = "out of memory"
    elif reason is None and code > 128:
        reason = "killed by signal %d" % (code - 128) if os.WIFSIGNALED(status) else None
    sampling.end()
    end_leftovers(child)
    if pump:
        pump.finish()
    if reason == "timeout":
        code = EXIT_TIMEOUT
    unit = 1 if sys.platform == "darwin" else 1024
    return code, {
        "reason": reason,
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 6),
        # The kernel has that of the largest process.
        "peak_memory": max(usage.ru_maxrss * unit, sampling.peak),
    }


class Sampling:
    """A thread that reports the usage of the code (`stoke.remote.runner.usage`) until `end`."""

    def __init__(self, job: RemoteJob, child: int) -> None:
        self._job = job
        self._child = child
        self._reporting = allocate_lock()
        self._ended = allocate_lock()
        self._ended.acquire()
        self.peak = 0
        try:
            start_new_thread(self._run, ())
        except RuntimeError:
            pass  # The job's limit of threads is reached: it runs without.

    def end(self) -> None:
        """Report nothing any more, and wait for a report that is being written."""
        self._ended.release()
        self._reporting.acquire()

    def _run(self) -> None:
        # A signal must interrupt the main thread, which waits for the code.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if self._ended.acquire(timeout=FIRST_USAGE):
            return
        from stoke.remote.runner.usage import UsageReporter

        reporter = UsageReporter(self._job.events, self._child, self._job.container)
        wait: float | None = FIRST_USAGE
        while wait is not None and not self._ended.acquire(timeout=wait):
            with self._reporting:
                if self._ended.acquire(blocking=False):
                    return
                try:
                    wait = reporter.report()
                except OSError:
                    return  # Nothing reads the log: the end of the job reports that.
                self.peak = reporter.peak


def check_program(job: RemoteJob) -> None:
    """Raise `PhaseError` if a job starts a program that it does not have.

    Called before the phase "run", in which hints could come from the code and are not believed.
    """
    start = job.payload["start"]
    if start["kind"] == "program" and "PATH" not in job.payload["env"]:
        _find_program(start["name"], _search_path(job, os.environ))


def _search_path(job: RemoteJob, env: Mapping[str, str]) -> str:
    """Return the PATH of the code, for a job whose own is in `env`."""
    return ":".join([*_first_folders(job), env.get("PATH", os.defpath)])


def _first_folders(job: RemoteJob) -> list[str]:
    """Return the folders that a job puts in front of its PATH."""
    # The environment comes first: system packages may bring a python of their own.
    first = [os.path.join(job.environment, "bin")] if job.environment else []
    if job.project and job.payload["project"]:
        first += [os.path.join(job.project, name) for name in job.payload["project"]["programs"]]
    return [*first, *job.programs]


def _write_code(payload: Payload, folder: str) -> str:
    """Write the code of the payload into a file, and return its path."""
    name = os.path.basename(payload["program"])
    if not re.match(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.py$", name):
        name = "main.py"
    path = os.path.join(folder, name)
    with open(path, "w", encoding=payload["encoding"], newline="") as file:
        file.write(payload["code"])
    return path


def _command(
    job: RemoteJob, folder: str, python: str, is_live: bool, script: str | None, path: str
) -> list[str]:
    """Return what starts the job in `folder`: its code, or a script, module or program."""
    start, args = job.payload["start"], job.payload["args"]
    kind, name = start["kind"], start["name"]
    options = [] if is_live else ["-u"]
    if kind == "module":
        return [python, *options, "-m", name, *args]
    if kind == "program":
        return [_find_program(name, path), *args]
    if script is None:
        # sys.argv[0] is what a user in this folder would write.
        script = os.path.relpath(os.path.join(job.project or "", name), folder)
        script = "./" + script if script.startswith("-") else script
    return [python, *options, script, *args]


def _find_program(name: str, path: str) -> str:
    """Return the path of a program in the folders of PATH, or the path that `name` is."""
    folders = [""] if "/" in name else path.split(":")
    for folder in folders:
        found = os.path.join(folder, name)
        if os.path.isfile(found) and os.access(found, os.X_OK):
            return os.path.abspath(found)
    raise PhaseError(
        "there is no program %s in this job's environment, project or image" % name,
        (HintCode.HAS_PROGRAM,),
    )


def end_leftovers(group: int) -> None:
    """End what the code left running: every process of a container, else the code's process group."""
    target = -1 if os.getpid() == 1 else -group
    deadline = time.monotonic() + LEFTOVER_GRACE
    number: int = signal.SIGTERM
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            if target == -1:
                return
        try:
            os.kill(target, number)
        except ProcessLookupError:
            return
        if number == signal.SIGKILL and target != -1:
            return
        if time.monotonic() > deadline:
            number = signal.SIGKILL
        elif number == signal.SIGTERM:
            number = 0  # sent once; from now on only check whether they exist
        time.sleep(0.01)
