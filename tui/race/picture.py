"""The screen as a picture that stands alone: it names no address to fetch a font from, so whoever looks
at it uses their own, and the same screen gives the same file."""

from __future__ import annotations

import re
from typing import Any

from textual.app import App


def svg(app: App[Any]) -> str:
    picture = app.export_screenshot(title="stoke")
    picture = re.sub(r"@font-face\s*{[^}]*}", "", picture)
    picture = picture.replace("Fira Code", "monospace")
    # Numbers that the exporter draws anew each time.
    return re.sub(r"terminal-\d+", "terminal", picture)
