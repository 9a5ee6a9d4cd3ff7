"""Run a program with a document on its standard input."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import suppress

from stoke.errors import EngineError
from stoke.notify.webhook import TemporaryError
from stoke.text.sanitize import clean

_MOST_SHOWN = 300


def run_program(command: tuple[str, ...], document: bytes, seconds: float) -> None:
    """Run a program to its end; kill it and its children after `seconds`.

    Raises `TemporaryError` if it fails, and `EngineError` if it cannot be started.
    """
    name = os.path.basename(command[0])
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(
                f"notify.command cannot be started: {command[0]}: {error.strerror}",
                "set notify.command to a program that exists, with its whole path",
            ) from error
        try:
            process.communicate(document, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise TemporaryError(f"{name} was killed after {seconds:g} s") from None
        finally:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            output.seek(max(0, output.tell() - _MOST_SHOWN))
            said = clean(output.read(_MOST_SHOWN).decode(errors="replace")).strip()
            raise TemporaryError(
                f"{name} ended with exit code {process.returncode}" + (f": {said}" if said else "")
            )
