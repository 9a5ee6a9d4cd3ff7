"""The local engine: one detached process a job, alone on the standard library.

    python3 -I -S supervisor.py FOLDER LOCK_FD ARGV...

Starts ARGV (the runner) with pipes for its output, keeps what comes as frames in FOLDER/frames, and
writes FOLDER/status.json once everything is over. It holds the lock behind LOCK_FD all its life: a
job whose lock is free and which has no status has lost its supervisor.

SIGTERM is passed on to the runner, and everything is killed after the seconds that FOLDER/stop
names; SIGQUIT kills all of the job at once. Whatever the job leaves behind is
killed before the status is written: a job ends as a group, also what it started in other sessions.

A frame is a header of 13 bytes (stream u8, length u32, epoch nanoseconds u64, little endian) and
that many bytes. Stream 1 is stdout, 2 stderr, 3 a note of the engine.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import struct
import sys
import time

HEADER = struct.Struct("<BIQ")
PR_SET_CHILD_SUBREAPER = 36
# What a job has written when it ends is read to its end; a pipe that a killed process still holds
# open is given up after this.
DRAIN_SECONDS = 5.0


def main() -> None:
    folder, argv = sys.argv[1], sys.argv[3:]
    # Orphans of the job become children of this process, so they can be found and ended.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    started = time.time()
    runner = os.posix_spawn(
        argv[0],
        argv,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out_write, 1),
            (os.POSIX_SPAWN_DUP2, err_write, 2),
        ],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )
    os.close(out_write)
    os.close(err_write)

    def forward(number: int, _frame: object) -> None:
        """A polite stop becomes a hard one after the grace that whoever asked wrote down."""
        send(runner, number)
        try:
            with open(os.path.join(folder, "stop")) as file:
                signal.setitimer(signal.ITIMER_REAL, float(file.read()))
        except (OSError, ValueError):
            pass

    def reap(_number: int, _frame: object) -> None:
        """Orphans that ended; the runner itself is `record`'s to wait for."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            while (ended := os.waitid(os.P_ALL, 0, flags)) and ended.si_pid != runner:
                os.waitpid(ended.si_pid, os.WNOHANG)
        except ChildProcessError:
            pass

    def kill_all(_number: int, _frame: object) -> None:
        for pid in [runner, *descendants(os.getpid())]:
            send(pid, signal.SIGKILL)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, kill_all)
    signal.signal(signal.SIGALRM, kill_all)
    signal.signal(signal.SIGCHLD, reap)
    write_whole(os.path.join(folder, "started.json"), {"pid": os.getpid(), "started_at": started})

    status = record(folder, runner, {out_read: 1, err_read: 2})
    code = os.waitstatus_to_exitcode(status)
    write_whole(
        os.path.join(folder, "status.json"),
        {
            "exit_code": code if code >= 0 else 128 - code,
            "started_at": started,
            "finished_at": time.time(),
        },
    )


def record(folder: str, runner: int, streams: dict[int, int]) -> int:
    """Keeps the output as frames until the runner has ended and the pipes are empty."""
    frames = Frames(os.path.join(folder, "frames"))
    selector = selectors.DefaultSelector()
    for pipe in streams:
        selector.register(pipe, selectors.EVENT_READ)
    ended = os.pidfd_open(runner)
    selector.register(ended, selectors.EVENT_READ)
    status: int | None = None
    give_up = float("inf")
    while selector.get_map() and time.monotonic() < give_up:
        for key, _ in selector.select(None if status is None else 0.1):
            if key.fd == ended:
                selector.unregister(ended)
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


class Frames:
    """Appends frames to a file. A full disk costs a piece of the log and not the job, and the piece
    is counted and told as a frame of stream 3 as soon as there is room."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lost = 0

    def add(self, stream: int, data: bytes) -> None:
        if self._lost:
            text = f"{self._lost} bytes of output could not be kept: the disk was full".encode()
            if not self._write(3, text):
                self._lost += len(data)
                return
            self._lost = 0
        if not self._write(stream, data):
            self._lost += len(data)

    def _write(self, stream: int, data: bytes) -> bool:
        frame = HEADER.pack(stream, len(data), time.time_ns()) + data
        start = os.lseek(self._file, 0, os.SEEK_END)
        try:
            while frame:
                frame = frame[os.write(self._file, frame) :]
        except OSError:
            os.ftruncate(self._file, start)
            return False
        return True


def end_descendants() -> None:
    """Kills every process below this one, until there is none."""
    while True:
        children = descendants(os.getpid())
        for pid in children:
            send(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        if not children:
            return
        time.sleep(0.002)


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


def write_whole(path: str, value: object) -> None:
    """Written aside and renamed, so that a reader meets all of it or nothing."""
    with open(path + ".new", "w") as file:
        json.dump(value, file)
    os.rename(path + ".new", path)


if __name__ == "__main__":
    main()
