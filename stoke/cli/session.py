"""Run a program inside a job, connected to this program's terminal or streams."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from stoke.backend.api import Backend
from stoke.backend.capabilities import Channel, Interactive, NotStartedError
from stoke.errors import EXIT_STOPPED, EngineError, RequestError
from stoke.files.debug import Logger
from stoke.remote import session
from stoke.text.sanitize import clean

_log = Logger(__name__)

READ_SIZE = 1 << 16
MOST_QUEUED = 1 << 20
"""Bytes that wait for the connection before more are read from stdin."""
MOST_ANSWER = 1 << 16
MOST_ERRORS = 1 << 24
"""Bytes of stderr before the answer, which may be the program's already."""
RETRY_SECONDS = 0.1
LONGEST_RETRY = 1.0
NOTICE_SECONDS = 1.0


def interactive(backend: Backend) -> Interactive:
    """Return the backend if programs can be run inside its jobs; else raise `RequestError`."""
    if isinstance(backend, Interactive):
        return backend
    raise RequestError(
        "backend",
        f"the {backend.name} backend runs nothing inside a job",
        "choose one that does: -b docker",
    )


def at_terminal() -> bool:
    """Return whether the program gets a terminal: if both stdin and stdout are one."""
    return os.isatty(0) and os.isatty(1)


class JobEndedError(EngineError):
    """The job has ended before the program was started."""


class Ending:
    """Finds the mark at the end of the program's streams: see `stoke.remote.session`."""

    def __init__(self) -> None:
        self.token = os.urandom(16).hex()
        self._begin = session.end_mark(self.token, 0)[: -session.CODE_DIGITS]
        self._size = len(self._begin) + session.CODE_DIGITS
        self._held = {1: b"", 2: b""}
        self._codes: dict[int, int] = {}

    @property
    def is_complete(self) -> bool:
        return len(self._codes) == len(self._held)

    def exit_code(self) -> int | None:
        return self._codes.get(1)

    def without_mark(self, stream: int, data: bytes) -> bytes:
        """Return the program's own output, except what may be the beginning of the mark."""
        if stream in self._codes:
            return b""  # A program that was left behind writes on.
        data = self._held[stream] + data
        at = data.find(self._begin)
        if at < 0:
            ends = range(min(len(self._begin) - 1, len(data)), 0, -1)
            at = len(data) - next((size for size in ends if data.endswith(self._begin[:size])), 0)
        elif len(data) >= at + self._size:
            self._codes[stream] = int(data[at + len(self._begin) : at + self._size])
            self._held[stream] = b""
            return data[:at]
        self._held[stream] = data[at:]
        return data[:at]

    def held(self, stream: int) -> bytes:
        """Return what was held back, of a stream that ended without the mark."""
        return self._held[stream]


class Session:
    """One program inside a job: `connect`, then `run`. `main` makes the job end with the program."""

    def __init__(self, backend: Interactive, job_id: str, argv: list[str], main: bool) -> None:
        self._backend = backend
        self._job_id = job_id
        self._argv = argv
        self._main = main
        self._terminal = at_terminal()
        self._channel: Channel | None = None
        self._ending = Ending()
        self._early: list[tuple[int, bytes]] = []
        self._cancelled = threading.Event()

    def connect(self, on_wait: Callable[[], None] = lambda: None) -> None:
        """Return once the program is started, which needs the job's environment.

        `on_wait` is called, more than once, if that takes longer than a second. Raises `EngineError` if
        the job ends before.
        """
        began = time.monotonic()
        channel = self._open(on_wait)
        try:
            channel.queue(self._first_frame())
            answer, errors = b"", b""
            while b"\n" not in answer:
                if channel.ended or self._cancelled.is_set():
                    raise self._gone()
                if len(answer) > MOST_ANSWER or len(errors) > MOST_ERRORS:
                    raise EngineError(
                        f"cannot enter {self._job_id}: its python3 is another program"
                    )
                _wait(channel, [], NOTICE_SECONDS)
                if time.monotonic() - began > NOTICE_SECONDS:
                    on_wait()
                for stream, data in channel.read():
                    if stream == 1:
                        answer += data
                    else:
                        errors += data
            line, _, output = answer.partition(b"\n")
            _log.debug("session in %s: %s, %s", self._job_id, line, errors)
            self._check(line)
            self._early = [(1, output), (2, errors)]
        except BaseException:
            channel.close()
            raise
        self._channel = channel
        _log.debug("entered %s after %.3f s", self._job_id, time.monotonic() - began)

    def cancel(self) -> None:
        """End `connect`, because the job has ended; callable on any thread."""
        self._cancelled.set()

    def run(self) -> int:
        """Copy between the program and this program's streams until it ends; return its exit code.

        The code is 143 if it ended with its job.
        """
        channel = self._channel
        assert channel is not None
        try:
            with _raw_terminal() if self._terminal else _plain() as resized:
                self._copy(channel, resized)
            code = self._ending.exit_code()
            if code is None:
                code = channel.exit_code()
        finally:
            channel.close()
        return EXIT_STOPPED if code is None else code

    def _open(self, on_wait: Callable[[], None]) -> Channel:
        for attempt in count(1):
            try:
                return self._backend.enter(self._job_id)
            except NotStartedError:
                if attempt * RETRY_SECONDS > NOTICE_SECONDS:
                    on_wait()
                if self._cancelled.wait(min(attempt * RETRY_SECONDS, LONGEST_RETRY)):
                    raise self._gone() from None
        raise AssertionError

    def _gone(self) -> JobEndedError:
        return JobEndedError(
            f"cannot enter {self._job_id}: it has ended",
            f"see why: stoke show {self._job_id}",
        )

    def _first_frame(self) -> bytes:
        terminal = None
        if self._terminal:
            terminal = {**_size(), "term": os.environ.get("TERM", "")}
        asked = {
            "argv": self._argv,
            "terminal": terminal,
            "main": self._main,
            "token": self._ending.token,
        }
        return _frame(session.START, json.dumps(asked).encode())

    def _check(self, line: bytes) -> None:
        try:
            answer: dict[str, Any] = json.loads(line)
            text, kind = answer.get("error"), answer.get("kind")
        except (ValueError, AttributeError):
            raise EngineError(
                f"cannot enter {self._job_id}: its python3 is another program"
            ) from None
        if text is None:
            return
        if kind == session.ENDING:
            raise self._gone()
        hint = None
        if kind == session.NO_SHELL:
            hint = f"run a program that it has: stoke exec {self._job_id} -- python"
            if self._main:
                hint = "choose an image with one: --image IMAGE"
        elif kind == session.NO_PROGRAM:
            hint = f"look around in it: stoke exec {self._job_id}"
        raise EngineError(f"cannot enter {self._job_id}: {clean(str(text))[:500]}", hint)

    def _copy(self, channel: Channel, resized: int | None) -> None:
        ending = self._ending
        for stream, data in self._early:
            _write(stream, ending.without_mark(stream, data))
        stdin: int | None = 0
        while not (channel.ended or ending.is_complete):
            more = [] if resized is None else [resized]
            if stdin is not None and channel.queued() < MOST_QUEUED:
                more.append(stdin)
            ready = _wait(channel, more, None)
            for stream, data in channel.read():
                _write(stream, ending.without_mark(stream, data))
            if resized in ready:
                os.read(resized, READ_SIZE)
                channel.queue(_frame(session.SIZE, json.dumps(_size()).encode()))
            if stdin in ready:
                data = _read(stdin)
                channel.queue(_frame(session.DATA, data) if data else _frame(session.END, b""))
                if not data:
                    stdin = None
                    if self._terminal:
                        return  # The terminal was closed.
        for stream in (1, 2):
            _write(stream, ending.held(stream))


def _frame(kind: bytes, payload: bytes) -> bytes:
    return session.HEADER.pack(kind, len(payload)) + payload


def _size() -> dict[str, int]:
    try:
        size = os.get_terminal_size(0)
    except OSError:
        return {"rows": 24, "columns": 80}
    return {"rows": size.lines or 24, "columns": size.columns or 80}


def _wait(channel: Channel, more: list[int], seconds: float | None) -> list[int]:
    """Wait for the channel or a descriptor, write what is queued, and return what can be read."""
    poll = select.poll()
    for descriptor in {*channel.readers(), *more}:
        poll.register(descriptor, select.POLLIN)
    writer = channel.writer()
    if writer is not None:
        flags = select.POLLOUT | (select.POLLIN if writer in channel.readers() else 0)
        poll.register(writer, flags)
    ready = dict(poll.poll(None if seconds is None else seconds * 1000))
    if writer is not None and ready.get(writer, 0) & ~select.POLLIN:
        channel.write()
    return list(ready)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, READ_SIZE)
    except OSError:  # EIO: the terminal was closed.
        return b""


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


@contextmanager
def _plain() -> Iterator[int | None]:
    yield None


@contextmanager
def _raw_terminal() -> Iterator[int | None]:
    """Pass every key on to the program; give a descriptor that tells of a new size.

    The terminal is restored at the end, also after SIGTERM and SIGHUP.
    """
    import termios
    import tty

    resized, waker = os.pipe()
    os.set_blocking(waker, False)
    before = termios.tcgetattr(0)

    def on_size(_number: int, _frame: object) -> None:
        try:
            os.write(waker, b".")
        except BlockingIOError:
            pass

    def on_end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    handled = {signal.SIGWINCH: on_size, signal.SIGTERM: on_end, signal.SIGHUP: on_end}
    handlers = {number: signal.signal(number, handler) for number, handler in handled.items()}
    try:
        tty.setraw(0, termios.TCSADRAIN)
        os.write(waker, b".")  # The size may have changed since the program was started.
        yield resized
    finally:
        try:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
        except termios.error:
            pass  # The terminal was closed.
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(resized)
        os.close(waker)


class Shell:
    """The shell that a job runs in place of code: connected while the job starts."""

    def __init__(self, backend: Backend, job_id: str) -> None:
        self._session = Session(interactive(backend), job_id, [], main=True)
        self._wake: Callable[[], None] = lambda: None
        self._is_ready = False
        self._done = False
        self._fault: Exception | None = None
        """A fault of this program."""
        self.error: EngineError | None = None
        """Why the shell could not be started, unless the job has ended before."""
        self._thread = threading.Thread(target=self._connect, daemon=True)
        self._thread.start()

    def attach(self, wake: Callable[[], None]) -> None:
        """Have `wake` called once `act` has something to do."""
        self._wake = wake
        if self._is_ready or self.error or self._fault:
            wake()

    def act(self, stop: Callable[[], object]) -> None:
        """Run the shell if it has started: this returns when it has ended.

        `stop` is called once if it could not be started; `error` says why.
        """
        if self._fault is not None:
            raise self._fault
        if self.error is not None and not self._done:
            self._done = True
            stop()
        if self._is_ready and not self._done:
            self._done = True
            self._session.run()

    def close(self) -> None:
        self._session.cancel()

    def _connect(self) -> None:
        try:
            self._session.connect()
            self._is_ready = True
        except JobEndedError:
            return  # The job's record says why.
        except EngineError as error:
            self.error = error
        except Exception as error:  # Raised again by `act`: a thread has nowhere to show it.
            self._fault = error
        self._wake()
