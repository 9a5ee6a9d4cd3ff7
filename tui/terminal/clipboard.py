"""Copy text by the first way that works, and say which.

tmux drops OSC 52 by default, so inside tmux its own command is used, which passes the text on to the
outer terminal. GNU screen passes OSC 52 on if it is wrapped. Elsewhere OSC 52 goes to the terminal,
also over SSH. Terminals do not acknowledge it and silently drop long texts, so a long text becomes a
file.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess

from textual.app import App

from stoke.errors import StokeError
from stoke.files.paths import make_private, state_dir
from tui.format import place, size

MOST = 74_994
"""Bytes of base64 that common terminals accept."""
# The longest string that GNU screen passes on.
_SCREEN_CHUNK = 512
_TMUX_SECONDS = 2


def copy(app: App[object], text: str) -> str:
    """Copy `text` and return how, in words. Blocks for a few seconds at most."""
    data = text.encode(errors="replace")
    if os.environ.get("TMUX") and (way := _tmux(data)):
        return way
    encoded = base64.b64encode(data)
    if len(encoded) > MOST:
        return f"too long for the clipboard ({size(len(data))}), saved as {_save(data)}"
    if os.environ.get("STY"):
        _write(app, _for_screen(encoded))
        return "copied through screen (OSC 52)"
    app.copy_to_clipboard(text)
    return "copied through the terminal (OSC 52)"


def _tmux(data: bytes) -> str | None:
    """Copy through tmux and return how; None if that failed."""
    if not shutil.which("tmux"):
        return None
    # -w, from tmux 3.2 on, hands it to the outer terminal too.
    for flags, way in ((["-w"], "copied through tmux"), ([], "copied into tmux's buffer")):
        try:
            subprocess.run(
                ["tmux", "load-buffer", *flags, "-"],
                input=data,
                timeout=_TMUX_SECONDS,
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return way
    return None


def _for_screen(encoded: bytes) -> str:
    sequence = f"\x1b]52;c;{encoded.decode()}\a"
    chunks = (sequence[at : at + _SCREEN_CHUNK] for at in range(0, len(sequence), _SCREEN_CHUNK))
    return "".join(f"\x1bP{chunk}\x1b\\" for chunk in chunks)


def _write(app: App[object], sequence: str) -> None:
    if app._driver is not None:
        app._driver.write(sequence)


def _save(data: bytes) -> str:
    path = make_private(state_dir()) / "copied.txt"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise StokeError(f"cannot copy into {path}: {error.strerror}") from error
    return place(str(path))
