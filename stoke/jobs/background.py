"""Start one of our modules as a process that outlives this one."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from stoke.files.debug import child_environment


def start(
    module: str, *arguments: str, output: Path | None = None, inherits: tuple[int, ...] = ()
) -> None:
    """Run `python -m module arguments...` in a session of its own, with its output in a file.

    The process inherits the open descriptors `inherits` under their numbers.

    Raises `OSError` if the process or the file cannot be made.
    """
    # -P: a PYTHONPATH of the user may hold other packages called `tui` or `backends`.
    command = [sys.executable, "-P", "-m", module, *arguments]
    nothing = subprocess.DEVNULL
    if output is None:
        process = subprocess.Popen(
            command,
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,
            pass_fds=inherits,
            env=child_environment(),
        )
    else:
        with output.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=nothing,
                stdout=out,
                stderr=out,
                start_new_session=True,
                pass_fds=inherits,
                env=child_environment(),
            )
    # Reap the process if this one lives longer.
    threading.Thread(target=process.wait, daemon=True).start()
