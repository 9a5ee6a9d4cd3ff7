"""The interleaved log of several jobs in $PAGER, as `stoke logs JOB JOB` prints it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from textual.app import SuspendNotSupported
from textual.screen import Screen

from stoke.errors import EngineError, StokeError
from tui.notifications import show_error
from tui.terminal import programs
from tui.threads import on_thread

_STOKE = "from stoke.cli.main import program; program()"


def show_merged_log(screen: Screen[None], job_ids: Sequence[str]) -> None:
    """Write the log of these jobs into a file on a thread, then open it."""
    # In a folder that only its owner can read.
    folder = tempfile.TemporaryDirectory(prefix="stoke-log-")
    target = Path(folder.name) / "jobs.log"

    def write() -> None:
        command = [sys.executable, "-c", _STOKE, "logs", "--timestamps", *job_ids]
        with target.open("wb") as file:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if not target.stat().st_size:
            raise EngineError(f"these jobs have no log (exit code {done.returncode})")

    def show(_: None) -> None:
        with folder:
            try:
                with screen.app.suspend():
                    programs.pager().open(target)
            except SuspendNotSupported:
                show_error(screen, StokeError("there is no terminal for another program"))
            except StokeError as error:
                show_error(screen, error)

    def failed(error: StokeError) -> None:
        folder.cleanup()
        show_error(screen, error)

    on_thread(screen, write, show, failed)
