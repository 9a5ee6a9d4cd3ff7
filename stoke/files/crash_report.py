"""The traceback of an unexpected error, written to a file that its reporter can attach.

Local variables are left out: they can hold secrets.
"""

from __future__ import annotations

import os
import time
import traceback
from pathlib import Path

from stoke.errors import StokeError
from stoke.files.paths import make_private, state_dir
from stoke.system_limits import disk_trouble, exhausted_limit

LONGEST = 1024**2
"""Size in bytes from which the file is truncated before the next report."""


def crash_file() -> Path:
    return state_dir() / "crash.log"


def report_crash(error: BaseException) -> tuple[str, str]:
    """Write the traceback of `error` to the crash file; return what to print, and a hint.

    An exhausted limit or a full disk is no fault of the program, and no traceback is written.
    """
    trouble = exhausted_limit(error) or disk_trouble(error)
    if trouble is not None:
        return trouble
    what = f"stoke itself failed: {type(error).__name__}: {error}"
    lines = [time.strftime("%Y-%m-%dT%H:%M:%S%z\n"), *traceback.format_exception(error), "\n"]
    try:
        path = crash_file()
        make_private(path.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "w", errors="backslashreplace") as file:
            if file.tell() > LONGEST:
                file.truncate(0)
            file.write("".join(lines))
    except (OSError, StokeError):
        return what, "run it again with STOKE_DEBUG=1 and report what it prints; this is a bug"
    return what, f"this is a bug; report it with the traceback at the end of {path}"
