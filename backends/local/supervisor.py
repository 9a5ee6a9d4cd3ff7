"""The supervisor of a local job: one detached process, on the standard library alone.

    python3 -I -S -c 'import supervisor; supervisor.main()' FOLDER LOCK_FDS TIMEOUT RUNNER ARGUMENTS...

It runs the program RUNNER in a fork with pipes for its output, because another interpreter would take
20 ms to start. It writes the output as frames into FOLDER/frames, and FOLDER/status.json at the very
end. It holds the file locks behind LOCK_FDS (3,4) all its life: a job whose first lock is free and that
has no status has lost its supervisor. The others are those of its GPUs. The runner keeps no lock.

`reserve` allocates the space for both records before the job starts, so that a full disk costs a
part of the log and never the exit code.

SIGTERM is passed on to the runner, and everything is killed after the seconds that FOLDER/stop
holds; SIGQUIT kills the whole job at once. Processes that the job leaves behind, also in other
sessions, are killed before the status is written, so a job ends as a group.

The runner enforces the job's timeout of TIMEOUT seconds (0 for none). The code can stop the runner
with SIGSTOP, so the supervisor continues it after the timeout, and at last kills the job.

A frame is a header of 13 bytes (stream u8, length u32, epoch nanoseconds u64, little endian) and
that many bytes. Stream 1 is stdout, 2 stderr, 3 a note of the engine.
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import signal
import struct
import sys
import time
from collections.abc import Callable, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

HEADER = struct.Struct("<BIQ")
PR_SET_CHILD_SUBREAPER = 36
# How long the output of an ended job is read, if a killed process still holds a pipe open.
DRAIN_SECONDS = 5.0
STARTED, STATUS = "started", "status"
"""The two records of a job; each fits into `RECORD_SIZE` bytes."""
RECORD_SIZE = 4096
# Freed if a record cannot be written after all: a copy-on-write file system allocates new blocks
# also to overwrite a file.
BALLAST = "ballast"
BALLAST_SIZE = 64 * 1024
RETRY_SECONDS = 0.5
# The folder of the files of a running job, and what is behind the name of the folder of all jobs in
# that of files that are removed.
WORK = "work"
REMOVED = "-removed"
# How long after the timeout a runner has to end its job, and how often it is continued until then.
OVERTIME_SECONDS = 30.0
CONTINUE_SECONDS = 1.0
LONGEST_WAIT = 3600.0  # epoll takes at most 24 days
# Free space that the log leaves for records, history and spool: at most an eighth of the disk.
MARGIN_SHARE = 8
MOST_MARGIN = 8 * 1024**2


def main() -> None:
    import ctypes  # Programs that only read what a supervisor wrote do without it.

    folder, timeout = sys.argv[1], float(sys.argv[3])
    locks = [int(descriptor) for descriptor in sys.argv[2].split(",")]
    program = sys.argv[4:]
    # A process of the job that outlives this one must not look like the supervisor.
    for lock in locks:
        os.set_inheritable(lock, False)
    # Orphans of the job become children of this process, so that it can find and kill them.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    frames = FrameWriter(os.path.join(folder, "frames"))
    started, clock = time.time(), elapsed()
    runner = os.fork()
    if runner == 0:
        frames.close()
        for descriptor in (*locks, out_read, err_read):
            os.close(descriptor)
        run_program(program, out_write, err_write)
    os.close(out_write)
    os.close(err_write)

    over = False  # From then on, the runner's process id may belong to another process.

    def forward(number: int, _frame: object) -> None:
        """Pass the signal on, and kill the job after the grace period in FOLDER/stop."""
        if not over:
            send(runner, number)
        try:
            with open(os.path.join(folder, "stop")) as file:
                signal.setitimer(signal.ITIMER_REAL, float(file.read()))
        except (OSError, ValueError):
            pass

    def reap(_number: int, _frame: object) -> None:
        """Reap orphans that ended; `record` waits for the runner itself."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            while (ended := os.waitid(os.P_ALL, 0, flags)) and ended.si_pid != runner:
                os.waitpid(ended.si_pid, os.WNOHANG)
        except ChildProcessError:
            pass

    def kill_all(_number: int, _frame: object) -> None:
        # The deepest first: once its parent is dead, the code has this process as its parent, and could
        # stop it with a signal to its parent.
        for pid in reversed(descendants(os.getpid())):
            send(pid, signal.SIGKILL)
        if not over:
            send(runner, signal.SIGKILL)

    def enforce_timeout(seconds: float) -> None:
        """Continue the runner, whose own timer is due; kill the job if it still does not end."""
        if seconds < OVERTIME_SECONDS:
            send(runner, signal.SIGCONT)
        else:
            kill_all(0, None)

    def runner_ended() -> None:
        nonlocal over
        over = True

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, kill_all)
    signal.signal(signal.SIGALRM, kill_all)
    signal.signal(signal.SIGCHLD, reap)
    try:
        publish(
            folder,
            STARTED,
            {
                **identity(os.getpid()),
                "session": os.getsid(0),
                "runner": identity(runner),
                "started_at": started,
            },
        )
    except OSError:
        kill_all(0, None)
        raise

    overtime = Overtime(timeout, enforce_timeout)
    status = record(frames, runner, {out_read: 1, err_read: 2}, runner_ended, overtime)
    free_ballast(folder)
    frames.close()
    code = os.waitstatus_to_exitcode(status)
    # No process of the job is left, so its GPUs are free before it counts as ended.
    for lock in locks[1:]:
        os.close(lock)
    # Measured on a clock that cannot be set, so the duration is right.
    finished = {
        "exit_code": code if code >= 0 else 128 - code,
        "started_at": started,
        "finished_at": started + elapsed() - clock,
    }
    set_aside(folder)
    # No process of the job is left, so `stop --now` may end this process while the disk is full.
    signal.signal(signal.SIGQUIT, lambda *_: os._exit(1))
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True:
        try:
            publish(folder, STATUS, finished)
        except FileNotFoundError:
            break  # The job was removed.
        except OSError as error:
            sys.stderr.write(f"cannot write the status: {error}\n")
            time.sleep(RETRY_SECONDS)
        else:
            break
    remove_set_aside(folder)


def set_aside(folder: str) -> None:
    """Move the files of an ended job to where this process removes them later.

    Removing thousands of them takes time, for which the program that waits for the status does not
    have to wait. It removes what cannot be moved together with the job.
    """
    aside = _aside(folder)
    try:
        os.makedirs(aside, 0o700, exist_ok=True)
        os.rename(os.path.join(folder, WORK), os.path.join(aside, os.path.basename(folder)))
    except OSError:
        pass


def remove_set_aside(folder: str) -> None:
    """Remove the files of ended jobs, also those that a killed supervisor left."""
    sys.path.append(_installation())
    from stoke.remote.common.trees import remove_tree

    aside = _aside(folder)
    try:
        for name in os.listdir(aside):
            remove_tree(os.path.join(aside, name))
    except OSError:
        pass


def _aside(folder: str) -> str:
    return os.path.dirname(folder) + REMOVED


def run_program(argv: list[str], stdout: int, stderr: int) -> NoReturn:
    """Run a Python program in this process, a fork of the supervisor, as a new interpreter would."""
    code: object = 1
    try:
        for descriptor, stream in ((stdout, 1), (stderr, 2)):
            os.dup2(descriptor, stream)
            os.close(descriptor)
        # Before the runner handles it, ctrl+c ends the job without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.argv = argv
        with open(argv[0], "rb") as file:
            source = file.read()
        _import_runner(source)
        exec(compile(source, argv[0], "exec"), {"__name__": "__main__"})  # noqa: S102
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _import_runner(source: bytes) -> None:
    """Import the modules of most runners from this installation, where Python keeps their bytecode.

    The delivered program finds these in `sys.modules` and compiles only the others, which it brings:
    otherwise it would compile all of them in each job, which takes 12 ms, and 7 more for a project.
    """
    installation = _installation()
    # Last, because other packages there may have the names of modules of the standard library.
    sys.path.append(installation)
    try:
        import stoke.remote.runner.environment
        import stoke.remote.runner.lockfile
        import stoke.remote.runner.main

        if b"sources['stoke.remote.runner.project']" in source:
            import stoke.remote.runner.project  # noqa: F401
    finally:
        sys.path.remove(installation)


def _installation() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Overtime:
    """Call `enforce` with the seconds since the timeout, each second, from one second after it."""

    def __init__(self, timeout: float, enforce: Callable[[float], None]) -> None:
        self._timeout = time.monotonic() + timeout  # This clock stops while the machine sleeps.
        self._enforce = enforce
        self._next = self._timeout + CONTINUE_SECONDS if timeout else float("inf")

    def wait(self) -> float | None:
        """Return the seconds until the next call is due, or None if there is no timeout."""
        if self._next == float("inf"):
            return None
        now = time.monotonic()
        if now >= self._next:
            self._enforce(now - self._timeout)
            self._next = now + CONTINUE_SECONDS
        return min(self._next - now, LONGEST_WAIT)


def record(
    frames: FrameWriter,
    runner: int,
    streams: dict[int, int],
    on_end: Callable[[], None],
    overtime: Overtime,
) -> int:
    """Write the output as frames until the runner has ended and the pipes are empty."""
    selector = selectors.DefaultSelector()
    for pipe in streams:
        selector.register(pipe, selectors.EVENT_READ)
    ended = os.pidfd_open(runner)
    selector.register(ended, selectors.EVENT_READ)
    status: int | None = None
    give_up = float("inf")
    while selector.get_map() and time.monotonic() < give_up:
        for key, _ in selector.select(overtime.wait() if status is None else 0.1):
            if key.fd == ended:
                selector.unregister(ended)
                on_end()
                _, status = os.waitpid(runner, 0)
                end_descendants()
                give_up = time.monotonic() + DRAIN_SECONDS
                continue
            data = os.read(key.fd, 1 << 16)
            if not data:
                selector.unregister(key.fd)
                continue
            frames.add(streams[key.fd], data)
    assert status is not None
    return status


class FrameWriter:
    """Append frames to a file.

    On a full disk a part of the log is lost and not the job: the lost bytes are counted, and
    reported as a frame of stream 3 as soon as there is space.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._end = os.fstat(self._file).st_size
        self._lost = 0
        self._why = ""
        self._torn = False
        disk = os.fstatvfs(self._file)
        self._margin = min(MOST_MARGIN, disk.f_blocks * disk.f_frsize // MARGIN_SHARE)

    def add(self, stream: int, data: bytes) -> None:
        if not ((not self._lost or self._tell()) and self._write(stream, data, self._margin)):
            self._lost += len(data)

    def close(self) -> None:
        """Report lost bytes that are still unreported, in the space reserved for that."""
        if self._lost:
            self._tell(margin=0)
        os.close(self._file)

    def _tell(self, margin: int | None = None) -> bool:
        text = f"{self._lost} bytes of output were lost: {self._why}".encode()
        told = self._write(3, text, self._margin if margin is None else margin)
        if told:
            self._lost = 0
        return told

    def _write(self, stream: int, data: bytes, margin: int) -> bool:
        if self._torn:
            return False
        frame = HEADER.pack(stream, len(data), time.time_ns()) + data
        size = len(frame)
        try:
            disk = os.fstatvfs(self._file)
            if disk.f_bavail * disk.f_frsize < margin + size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            while frame:
                frame = frame[os.write(self._file, frame) :]
        except OSError as error:
            full = error.errno == errno.ENOSPC
            self._why = "the disk was full" if full else error.strerror or str(error)
            try:
                os.ftruncate(self._file, self._end)
            except OSError:
                self._torn = True  # Nothing after half a frame can be decoded.
            return False
        self._end += size
        return True


def end_descendants() -> None:
    """Kill every process below this one, until none is left.

    This process is the parent of all orphans, so none is left once it has no child. A listing of
    processes is not enough: a chain of short-lived processes slips through it.
    """
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in descendants(os.getpid()):
            # Also the process group, which a child forked since the listing is still in.
            try:
                group = os.getpgid(pid)
                if group != os.getpgrp():
                    os.killpg(group, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            send(pid, signal.SIGKILL)
        time.sleep(0.0005)


def descendants(of: int) -> list[int]:
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError):
                continue
    found: list[int] = []
    level = [of]
    while level:
        level = [pid for pid, parent in parents.items() if parent in level]
        found += level
    return found


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def elapsed() -> float:
    """Return seconds on a clock that cannot be set and that runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def identity(pid: int) -> dict[str, object]:
    """Return what tells this process from a later one with the same id, or one on another machine."""
    return {"pid": pid, "start": start_time(pid), "place": place()}


def start_time(pid: int) -> int | None:
    """Return a process's start in clock ticks since boot, or None if it does not exist."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def place() -> str:
    """Return an id of this boot of this machine and of this namespace of process ids."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def reserve(folder: str) -> None:
    """Allocate what the supervisor must be able to write on a full disk. Raises `OSError`."""
    for name in (STARTED, STATUS):
        _allocate(os.path.join(folder, name + ".reserved"), bytes(RECORD_SIZE))
    # Random bytes, which a file system cannot compress.
    _allocate(os.path.join(folder, BALLAST), os.urandom(BALLAST_SIZE))
    _allocate(os.path.join(folder, "frames"), b"")


def _allocate(path: str, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        while data:
            data = data[os.write(file, data) :]
    finally:
        os.close(file)


def free_ballast(folder: str) -> None:
    try:
        os.unlink(os.path.join(folder, BALLAST))
    except OSError:
        pass


def publish(folder: str, name: str, value: Mapping[str, object]) -> None:
    """Write a record into the file that `reserve` allocated, and give it its final name.

    Readers accept the record under either name once it is complete JSON; until then the file holds
    zeros.
    """
    path = os.path.join(folder, name)
    record = json.dumps(value).encode().ljust(RECORD_SIZE)
    file = os.open(path + ".reserved", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if os.pwrite(file, record, 0) < RECORD_SIZE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(file)
    try:
        os.rename(path + ".reserved", path + ".json")
    except OSError:
        pass  # Readers accept the temporary name too.
