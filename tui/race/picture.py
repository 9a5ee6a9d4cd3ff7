"""The screen as an SVG file that loads no font from the network and depends on the screen only."""

from __future__ import annotations

import re
from typing import Any

from textual.app import App


def svg(app: App[Any]) -> str:
    picture = app.export_screenshot(title="stoke")
    picture = re.sub(r"@font-face\s*{[^}]*}", "", picture)
    picture = picture.replace("Fira Code", "monospace")
    # The exporter adds random numbers.
    return re.sub(r"terminal-\d+", "terminal", picture)
