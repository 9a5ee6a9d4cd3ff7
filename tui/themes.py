"""Themes of one's own: themes/NAME.toml beside config.toml, a colour a line.

    primary = "#0055aa"
    background = "#101418"
    dark = true

What is wrong with a file is said at the start, and that theme is left out.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from textual.color import Color, ColorParseError
from textual.theme import Theme

from stoke.files.paths import config_file
from stoke.files.untrusted import read_toml

HIGH_CONTRAST = Theme(
    name="high-contrast",
    primary="#ffff00",
    secondary="#00ffff",
    accent="#00ffff",
    warning="#ffff00",
    error="#ff6060",
    success="#00ff00",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#202020",
    boost="#303030",
    text_alpha=1.0,
)

_COLOURS = {
    field.name
    for field in fields(Theme)
    if str(field.type).startswith("str") and field.name != "name"
}


def load() -> tuple[list[Theme], list[str]]:
    """(themes, what is wrong with which file)."""
    found = [HIGH_CONTRAST]
    wrong = []
    for path in sorted((config_file().parent / "themes").glob("*.toml")):
        try:
            found.append(_theme(path))
        except (OSError, ValueError) as error:
            wrong.append(f"the theme {path.name} is left out: {error}")
    return found, wrong


def _theme(path: Path) -> Theme:
    given = read_toml(path)
    dark = given.pop("dark", True)
    if not isinstance(dark, bool):
        raise ValueError("dark is true or false")
    for name, colour in given.items():
        if name not in _COLOURS:
            raise ValueError(f"{name} is none of: dark, {', '.join(sorted(_COLOURS))}")
        try:
            Color.parse(colour)
        except (ColorParseError, TypeError, AttributeError):
            raise ValueError(f"{name} is no colour: {colour}") from None
    if "primary" not in given:
        raise ValueError("primary is missing, the one colour that every theme has")
    return Theme(name=path.stem, dark=dark, **given)
