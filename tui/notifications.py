"""Errors as notifications."""

from __future__ import annotations

from typing import Any

from textual.app import App
from textual.widget import Widget

from stoke.errors import StokeError
from stoke.text.sanitize import clean_block

ERROR_SECONDS = 10


def show_error(node: App[Any] | Widget, error: StokeError) -> None:
    """Show what failed and how to fix it; once, however many parts of the program report it."""
    hint = f"\n{clean_block(error.hint)}" if error.hint else ""
    text = f"{clean_block(error.what)}{hint}"
    app = node if isinstance(node, App) else node.app
    for shown in list(app._notifications):
        if shown.message == text:
            app._unnotify(shown, refresh=False)
    node.notify(text, severity="error", markup=False, timeout=ERROR_SECONDS)
