"""The traceback of an unexpected error, written to a file that its reporter can attach.

Local variables are left out: they can hold secrets.
"""

from __future__ import annotations

import errno
import os
import shlex
import time
import traceback
from pathlib import Path

from stoke.errors import StokeError
from stoke.files.paths import cache_dir, make_private, state_dir
from stoke.files.untrusted import NotRegularError, regular
from stoke.remote.common.files import is_below
from stoke.system_limits import disk_trouble, exhausted_limit

LONGEST = 1024**2
"""Size in bytes from which the file is truncated before the next report."""


def crash_file() -> Path:
    return state_dir() / "crash.log"


def misplaced(error: BaseException) -> tuple[str, str] | None:
    """Return what is in the place of a file of stoke's own, and the fix; None if nothing is."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str | bytes | Path):
        return None
    path = os.path.abspath(os.fsdecode(error.filename))
    ours = any(is_below(path, str(folder)) for folder in (state_dir(), cache_dir()))
    kinds = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
    if not ours or not (error.errno in kinds or isinstance(error, NotRegularError)):
        return None
    what = f"{path} is not what stoke stored there: {error.strerror}"
    return what, f"remove it: rm -r {shlex.quote(path)}"


def report_crash(error: BaseException) -> tuple[str, str]:
    """Write the traceback of `error` to the crash file; return what to print, and a hint.

    An exhausted limit, a full disk and something else in the place of a file of stoke's are no fault
    of the program, and no traceback is written.
    """
    trouble = exhausted_limit(error) or disk_trouble(error) or misplaced(error)
    if trouble is not None:
        return trouble
    what = f"stoke itself failed: {type(error).__name__}: {error}"
    lines = [time.strftime("%Y-%m-%dT%H:%M:%S%z\n"), *traceback.format_exception(error), "\n"]
    try:
        path = crash_file()
        make_private(path.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(regular(path, flags, 0o600), "w", errors="backslashreplace") as file:
            if file.tell() > LONGEST:
                file.truncate(0)
            file.write("".join(lines))
    except (OSError, StokeError):
        return what, "run it again with STOKE_DEBUG=1 and report what it prints; this is a bug"
    return what, f"this is a bug; report it with the traceback at the end of {path}"
