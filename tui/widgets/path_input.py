"""An input line for a path: a pasted or dropped path replaces its text."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit

from textual.events import Paste

from tui.widgets.line_input import SafeInput


class PathInput(SafeInput):
    def _on_paste(self, event: Paste) -> None:
        path = whole_path(event.text)
        if path is not None:
            self.value = path
            self.cursor_position = len(path)
            event.stop()
            event.prevent_default()  # else the base class inserts it


def whole_path(text: str) -> str | None:
    """Return `text` as a path if it starts at the root or a home directory, else None.

    Terminals insert a dropped file as a path quoted for a shell, or as a file:// address.
    """
    text = text.strip()
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    elif text[:1] in "'\"" or "\\" in text:
        try:
            (text,) = shlex.split(text)
        except ValueError:  # not quoted for a shell, or several words
            pass
    return text if text.startswith(("/", "~")) and text.isprintable() else None


def typed_path(text: str) -> str:
    """Return a typed path from its last `//` or `/~` on: as in file dialogs, these restart the path."""
    at = text.rfind("//")
    if at >= 0:
        text = text[at + 1 :]
    at = text.rfind("/~")
    return text[at + 1 :] if at >= 0 else text


def path_of(text: str) -> Path:
    """Return the path in a line. `RuntimeError` for the home directory of an unknown user."""
    return Path(whole_path(text) or text.strip()).expanduser()
