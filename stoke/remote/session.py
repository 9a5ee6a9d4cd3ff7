"""Run one program inside a job beside its code: at a terminal of its own, or with pipes.

    python3 -I -S -c BOOTSTRAP SIZE ENTRY [PID]

BOOTSTRAP (`stoke.remote.command`) reads this file, SIZE bytes, from stdin. ENTRY is the job's
`JobFolder.ENTRY`, which the runner writes once the environment is ready; until then this program waits.
It ends with process PID.

After that, stdin carries frames (`HEADER`, then as many bytes as it says) and stdout one line of JSON,
`{}` or `{"error": TEXT, "kind": KIND}`, and then the program's output. The exit code is that of the
program, or 128 + n for a signal.

Once the program has ended, stdout and stderr end with the client's token and the exit code: `end_mark`.
The client then ends the connection. Until it does, what it still sends is read: the API server of
Kubernetes never reports the end of a program that left input unread.

The end of stdin means that the client is gone. The program and everything at its terminal then get
SIGHUP, and SIGKILL a second later. An engine reports the end of a client in no other way.

Standard library only, Python 3.9 or later.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

HEADER = struct.Struct(">cI")
START = b"s"
"""JSON: `argv` (empty for a shell), `terminal` (null, or rows, columns and term), `main` (whether the
job ends with the program), `token`."""
DATA = b"d"
SIZE = b"w"
"""JSON: rows, columns."""
END = b"e"
"""The end of the program's stdin."""

CODE_DIGITS = 3
NO_SHELL, NO_PROGRAM, ENDING, FAILED = "no-shell", "no-program", "ending", "failed"
SHELL_PIPE = "shell"
"""Beside ENTRY: takes the exit code of the program that a job ends with."""

MOST = 1 << 18  # bytes for the program that are held before more are read
HANGUP_SECONDS = 1.0
ENTRY_SECONDS = 0.005
FAREWELL_SECONDS = 5.0
DRAIN_SECONDS = 1.0
EXIT_HANGUP = 129
# bash reads this in place of ~/.bashrc, which may put a python of its own in front of the job's.
RCFILE = (
    "if [ -f ~/.bashrc ]; then . ~/.bashrc; fi\n"
    'if [ -n "$_STOKE_FIRST" ]; then PATH="$_STOKE_FIRST:$PATH"; fi\n'
    "unset _STOKE_FIRST\n"
    "exec %d<&-\n"
)


def end_mark(token: str, code: int) -> bytes:
    """Return the mark at the end of a stream: a token that only client and session know, and a code.

    The client holds back what may be its beginning, so it begins with a byte that text never ends with.
    """
    return b"\xff%s%0*d" % (token.encode(), CODE_DIGITS, code)


class ClientGoneError(Exception):
    """Stdin has ended, or the process to end with."""


class Frames:
    """The frames on stdin."""

    def __init__(self, job: Optional[int]) -> None:
        self._held = bytearray()
        self._job = job

    def wait(self, seconds: float) -> None:
        """Wait for `seconds` at most, and read what has arrived."""
        watched = [0] if self._job is None else [0, self._job]
        ready = select.select(watched, [], [], seconds)[0]
        if 0 in ready:
            self.read()
        elif ready:
            raise ClientGoneError

    def read(self) -> None:
        data = os.read(0, 1 << 16)
        if not data:
            raise ClientGoneError
        self._held += data

    def take(self) -> Optional[Tuple[bytes, bytes]]:
        """Return the next whole frame, or None."""
        if len(self._held) < HEADER.size:
            return None
        kind, size = HEADER.unpack_from(self._held)
        end = HEADER.size + size
        if len(self._held) < end:
            return None
        payload = bytes(self._held[HEADER.size : end])
        del self._held[:end]
        return kind, payload


class RefusedError(Exception):
    """The program cannot be started: the kind of the reason, and a sentence."""


def main() -> int:
    entry = sys.argv[2]
    job = _watched(int(sys.argv[3])) if len(sys.argv) > 3 else None
    frames = Frames(job)
    pipe = None
    try:
        while (first := frames.take()) is None:
            frames.wait(60)
        asked: Dict[str, Any] = json.loads(first[1])
        while (found := _read_entry(entry)) is None:
            frames.wait(ENTRY_SECONDS)
        runner, values = found
        job = _watched(runner)
        if asked["main"]:
            pipe = _join(os.path.join(os.path.dirname(entry), SHELL_PIPE))
        env, argv = values["env"], list(asked["argv"])
        terminal: Optional[Dict[str, Any]] = asked["terminal"]
        if terminal and terminal["term"]:
            env["TERM"] = terminal["term"]
        os.chdir(values["folder"])
        program, argv = _program(argv, env, values["first"], terminal is not None)
    except ClientGoneError:
        return EXIT_HANGUP
    except RefusedError as error:
        _answer({"kind": error.args[0], "error": error.args[1]})
        return 126
    except OSError as error:
        _answer({"kind": FAILED, "error": "%s: %s" % (error.filename, error.strerror)})
        return 126
    _answer({})
    child = Child(program, argv, env, terminal)
    code = Relay(child, frames, job).run()
    if code is None:
        return EXIT_HANGUP
    has_client = _write_mark(end_mark(asked["token"], code))
    if pipe is not None:
        os.write(pipe, b"%d\n" % code)
    if has_client:
        _await_end()
    return code


def _write_mark(mark: bytes) -> bool:
    """End both streams with the mark; return whether the client is there to read it."""
    try:
        for stream in (1, 2):
            _write(stream, mark)
    except OSError:
        return False
    return True


def _await_end() -> None:
    """Read and forget what the client sends until it ends the connection."""
    deadline = time.monotonic() + FAREWELL_SECONDS
    try:
        while select.select([0], [], [], max(deadline - time.monotonic(), 0))[0]:
            if not os.read(0, 1 << 16):
                return
    except OSError:
        pass


def _watched(pid: int) -> Optional[int]:
    """Return a descriptor that becomes readable when a process ends; None if it cannot be had."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return None


def _read_entry(path: str) -> Optional[Tuple[int, Dict[str, Any]]]:
    """Return the runner's process id and what it offers; None before the environment is ready."""
    try:
        with open(path, encoding="ascii") as file:
            pid, descriptor = map(int, file.read(100).split())
    except FileNotFoundError:
        return None
    except ValueError:
        raise RefusedError(ENDING, "%s is damaged" % path) from None
    try:
        with open("/proc/%d/fd/%d" % (pid, descriptor), "rb") as file:
            values: Dict[str, Any] = json.loads(file.read())
    except FileNotFoundError:
        raise RefusedError(ENDING, "the job is ending") from None
    return pid, values


def _join(path: str) -> int:
    try:
        pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(pipe, b"begin\n")
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EPIPE, errno.ENOENT):
            raise RefusedError(ENDING, "the job is ending") from None
        raise
    return pipe


def _program(
    argv: List[str], env: Dict[str, str], first: List[str], at_terminal: bool
) -> Tuple[str, List[str]]:
    """Return the path of the program and its arguments."""
    path = env.get("PATH", os.defpath)
    if argv:
        found = _find(argv[0], path)
        if found is None:
            raise RefusedError(NO_PROGRAM, "there is no program %s" % argv[0])
        return found, argv
    for name in ("bash", "sh"):
        found = _find(name, path)
        if found is not None:
            env["SHELL"] = found
            if name == "bash" and at_terminal:
                env["_STOKE_FIRST"] = ":".join(first)
                return found, [name, "--rcfile", _rcfile()]
            return found, [name]
    raise RefusedError(NO_SHELL, "there is neither bash nor sh")


def _find(name: str, path: str) -> Optional[str]:
    for folder in [""] if "/" in name else path.split(":"):
        found = os.path.join(folder, name)
        if os.path.isfile(found) and os.access(found, os.X_OK):
            return os.path.abspath(found)
    return None


def _rcfile() -> str:
    """Return the path of a file in memory, which bash closes once it has read it."""
    ours, theirs = os.pipe()
    os.write(theirs, (RCFILE % ours).encode())
    os.close(theirs)
    os.set_inheritable(ours, True)
    return "/dev/fd/%d" % ours


def _answer(value: Dict[str, str]) -> None:
    _write(1, json.dumps(value).encode() + b"\n")


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class Child:
    """The program, in a session of its own."""

    def __init__(
        self, program: str, argv: List[str], env: Dict[str, str], terminal: Optional[Dict[str, Any]]
    ) -> None:
        self.terminal: Optional[int] = None
        self.stdin: Optional[int] = None
        ours, theirs = pty.openpty() if terminal else _stdin_pipe()
        if terminal:
            set_size(theirs, terminal)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                if terminal:
                    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
                for stream in (0, 1, 2) if terminal else (0,):
                    os.dup2(theirs, stream)
                for number in (signal.SIGPIPE, signal.SIGXFSZ):
                    signal.signal(number, signal.SIG_DFL)  # Python ignores them.
                os.execve(program, argv, env)  # noqa: S606
            except OSError as error:
                os.write(2, ("cannot start %s: %s\n" % (program, error.strerror)).encode())
            finally:
                os._exit(126)
        os.close(theirs)
        os.set_blocking(ours, False)
        if terminal:
            self.terminal = ours
        self.stdin = ours

    def hang_up(self) -> None:
        """End the program and everything in its session."""
        for number in (signal.SIGHUP, signal.SIGCONT):
            self._send(number)
        if self.stdin is not None:
            os.close(self.stdin)
        deadline = time.monotonic() + HANGUP_SECONDS
        while self._session() and time.monotonic() < deadline:
            _reap_all()
            time.sleep(0.01)
        while left := self._session():
            for pid in left:
                _kill(pid, signal.SIGKILL)
            _reap_all()
            time.sleep(0.01)

    def _send(self, number: int) -> None:
        for pid in self._session():
            _kill(pid, number)

    def _session(self) -> List[int]:
        """Return the live processes of the program's session."""
        found = []
        for name in os.listdir("/proc"):
            try:
                with open("/proc/%d/stat" % int(name), "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except (OSError, ValueError):
                continue
            if int(fields[3]) == self.pid and fields[0] not in (b"Z", b"X"):
                found.append(int(name))
        return found


def _stdin_pipe() -> Tuple[int, int]:
    theirs, ours = os.pipe()
    return ours, theirs


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass


def _reap_all() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def set_size(terminal: int, size: Dict[str, Any]) -> None:
    rows, columns = (min(max(int(size[name]), 1), 0xFFFF) for name in ("rows", "columns"))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Relay:
    """Copies between the client and the program until the program or the client ends."""

    def __init__(self, child: Child, frames: Frames, job: Optional[int]) -> None:
        self._child = child
        self._frames = frames
        self._job = job
        self._pending = bytearray()  # for the program's stdin
        self._ended = False  # whether the client has ended the program's stdin
        self._woken, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        os.write(waker, b".")  # The program may have ended before.

    def run(self) -> Optional[int]:
        """Return the program's exit code; None if the client or the job has ended before."""
        child = self._child
        try:
            while True:
                self._take_frames()
                reads = [self._woken]
                if len(self._pending) < MOST:
                    reads.append(0)
                if child.terminal is not None:
                    reads.append(child.terminal)
                if self._job is not None:
                    reads.append(self._job)
                writes = [child.stdin] if self._pending and child.stdin is not None else []
                readable, writable, _ = select.select(reads, writes, [])
                if child.terminal in readable:
                    self._copy_output()
                if writable:
                    self._feed()
                if self._woken in readable:
                    os.read(self._woken, 4096)
                    code = self._ended_with()
                    if code is not None:
                        return code
                if 0 in readable:
                    self._frames.read()
                elif self._job in readable:
                    raise ClientGoneError
        except (ClientGoneError, BrokenPipeError):
            child.hang_up()
            return None

    def _take_frames(self) -> None:
        child = self._child
        while (frame := self._frames.take()) is not None:
            kind, payload = frame
            if kind == DATA:
                self._pending += payload
            elif kind == END:
                self._ended = True
            elif kind == SIZE and child.terminal is not None:
                set_size(child.terminal, json.loads(payload))
        if self._ended and not self._pending:
            self._close_stdin()

    def _close_stdin(self) -> None:
        child = self._child
        if child.terminal is None and child.stdin is not None:
            os.close(child.stdin)
            child.stdin = None

    def _feed(self) -> None:
        child = self._child
        assert child.stdin is not None
        try:
            written = os.write(child.stdin, self._pending[:65536])
            del self._pending[:written]
        except BlockingIOError:
            pass
        except OSError:  # The program no longer reads.
            self._pending.clear()
            self._close_stdin()

    def _copy_output(self) -> bool:
        """Copy what the program has written; return whether there was anything."""
        terminal = self._child.terminal
        assert terminal is not None
        try:
            data = os.read(terminal, 1 << 16)
        except BlockingIOError:
            return False
        except OSError:  # EIO: no program has the terminal open.
            data = b""
        if not data:
            self._child.terminal = None
            return False
        _write(1, data)
        return True

    def _ended_with(self) -> Optional[int]:
        """Return the program's exit code once it has ended and its output is copied."""
        pid, status = os.waitpid(self._child.pid, os.WNOHANG)
        if not pid:
            return None
        # Programs that it left behind may write for ever.
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._child.terminal is not None and time.monotonic() < deadline:
            if not self._copy_output():
                break
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    os._exit(main())
