"""Copying, by the first way that works here, which is said.

tmux drops OSC 52 in its default settings, so inside tmux its own command is asked; it passes the
text on to the outer terminal. GNU screen passes OSC 52 on when it is wrapped. Elsewhere OSC 52 goes
through the terminal, over SSH as well; nobody answers it, and terminals drop what is long without a
word, so what is long becomes a file.
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
"""What terminals were found to take, in bytes of base64."""
# GNU screen takes no longer string to pass on.
_SCREEN_CHUNK = 512
_TMUX_SECONDS = 2


def copy(app: App[object], text: str) -> str:
    """Copies `text` and returns how, in words for a person. Blocks for some seconds at most."""
    data = text.encode(errors="replace")
    if os.environ.get("TMUX") and (way := _tmux(data)):
        return way
    encoded = base64.b64encode(data)
    if len(encoded) > MOST:
        return f"too long for the terminal's clipboard ({size(len(data))}): kept in {_keep(data)}"
    if os.environ.get("STY"):
        _write(app, _for_screen(encoded))
        return "copied through screen (OSC 52)"
    app.copy_to_clipboard(text)
    return "copied through the terminal (OSC 52)"


def _tmux(data: bytes) -> str | None:
    """How tmux took it; None when it did not."""
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


def _keep(data: bytes) -> str:
    path = make_private(state_dir()) / "copied.txt"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        raise StokeError(f"cannot copy by way of {path}: {error.strerror}") from error
    return place(str(path))
