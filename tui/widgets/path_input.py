"""A line to type a path in: a path that is pasted or dropped there takes the place of what it holds."""

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
    """The path that `text` is, if it starts at the root or a home folder; else None.

    Terminals quote what is dropped on them for a shell, or give its address.
    """
    text = text.strip()
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    elif text[:1] in "'\"" or "\\" in text:
        try:
            (text,) = shlex.split(text)
        except ValueError:  # no shell's quotes, or several words
            pass
    return text if text.startswith(("/", "~")) and text.isprintable() else None


def typed_path(text: str) -> str:
    """What is meant by a typed path: as in a shell's file dialogs, `//` and `/~` start it anew."""
    at = text.rfind("//")
    if at >= 0:
        text = text[at + 1 :]
    at = text.rfind("/~")
    return text[at + 1 :] if at >= 0 else text


def path_of(text: str) -> Path:
    """The path that a line holds. `RuntimeError` for a home folder that nobody has."""
    return Path(whole_path(text) or text.strip()).expanduser()
