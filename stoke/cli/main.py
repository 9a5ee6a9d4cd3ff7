"""The program `stoke`: run a command or open the screens, and report errors with hints.

Imports are delayed: the screens load without click, and `stoke --help` without any command.
"""

from __future__ import annotations

import gc
import io
import os
import select
import sys
import time
from typing import TYPE_CHECKING

# Our own folder first: PYTHONPATH may contain other packages called `tui` or `backends`.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from _typeshed import ReadableBuffer

from stoke.errors import EXIT_ENGINE, EXIT_INTERRUPT, StokeError
from stoke.files import debug

_log = debug.Logger(__name__)

COMPLETING = "_STOKE_COMPLETE"
"""A shell sets this variable to ask for completions."""

GARBAGE_THRESHOLD = 200_000
"""Objects made between two searches for garbage. Imports, and snapshots of projects, make many and free
few: with Python's own 700, the searches take 8 ms of a start, and with 50,000 one takes 13 ms of the
start of a project of 1,000 files."""

CLOSED_OUTPUT = 141
"""The exit code after the reader of our output has closed it (128 + SIGPIPE)."""


def _fill_closed_streams() -> None:
    """Open /dev/null for standard streams that the parent has closed.

    Otherwise the next opened file would get the number of the stream, and its output.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # Takes the lowest free number, which is this one.
            setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w"))


class BlockingFile(io.FileIO):
    """A standard stream that waits until all is written, also in non-blocking mode.

    Raises `BrokenPipeError`, or `StokeError` for any other error, such as a full disk.

    A program that shares our terminal or pipe may set that mode; Python's own files then raise an
    error instead of waiting.
    """

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            # FileIO returns None for EAGAIN, whatever its type says.
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except BrokenPipeError:
            raise
        except OSError as error:
            name = "standard output" if self.fileno() == 1 else "standard error"
            # The streams are flushed again at the end, and would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            raise StokeError(f"cannot write to {name}: {error.strerror}") from error
        return written


def _wait_for_slow_readers() -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
            continue
        stream.flush()
        blocking = io.TextIOWrapper(
            io.BufferedWriter(BlockingFile(descriptor, "w", closefd=False)),
            stream.encoding,
            stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, blocking)
        setattr(sys, f"__{name}__", blocking)


def program() -> NoReturn:
    """Run `main` as the installed program does, and end this process at once.

    Python's own end first frees every object: 10 ms of `stoke run`, 1 to 2 ms of `stoke jobs`.
    What must happen before it still happens: exit functions run, and a thread that is not a daemon
    gets Python's own end.
    """
    code = main()
    import atexit
    import threading

    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    if not all(thread.daemon for thread in others):
        sys.exit(code)
    atexit._run_exitfuncs()
    try:
        sys.stderr.flush()
    except OSError:
        pass  # No stream is left to report that on.
    os._exit(code)


def main() -> int:
    """Run the command line and return the exit code (`stoke.errors` lists them)."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    _fill_closed_streams()
    _wait_for_slow_readers()
    try:
        code = _logged(_run)
        sys.stdout.flush()
        # Without this, Python searches all objects for garbage before it ends, which takes 15 ms.
        gc.freeze()
    except BrokenPipeError:
        # Python would report it again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return CLOSED_OUTPUT
    except StokeError as error:  # Of the last flush.
        from stoke.cli.output import print_error

        print_error(error.what, error.hint)
        return error.exit_code
    return code


def _logged(run: Callable[[], int]) -> int:
    """Run, and record the exit code and the seconds in the debug log if it is on."""
    began = time.monotonic()
    if debug.is_requested():
        from stoke.cli.debug_log import start_debug_log

        start_debug_log()
    code: int | None = None
    try:
        code = run()
    except BrokenPipeError:
        raise
    except BaseException:
        _log.exception("failed")
        raise
    finally:
        _log.debug("end: exit code %s after %.3f s", code, time.monotonic() - began)
    return code


def _run() -> int:
    try:
        if sys.argv[1:] in ([], ["--debug"]) and COMPLETING not in os.environ:
            from stoke.cli.screens import open_screens

            if len(sys.argv) > 1 and not debug.is_requested():
                from stoke.cli.debug_log import start_debug_log

                start_debug_log()
            return open_screens()
        from stoke.cli.command_table import run

        return run()
    except KeyboardInterrupt:
        return EXIT_INTERRUPT
    except StokeError as error:
        from stoke.cli.output import print_error

        print_error(error.what, error.hint)
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug.debug_file():
            raise
        from stoke.cli.output import print_error
        from stoke.files.crash_report import report_crash

        print_error(*report_crash(error))
        return EXIT_ENGINE
