"""The user's themes: themes/NAME.toml beside config.toml, with a colour on each line.

    primary = "#0055aa"
    background = "#101418"
    dark = true

A file with an error is skipped, and the error is shown at the start.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from textual.color import Color, ColorParseError
from textual.theme import Theme

from stoke.files.paths import config_file
from stoke.files.untrusted import read_toml

STOKE = Theme(
    name="stoke",
    primary="#6cb6ff",
    secondary="#76d1c4",
    accent="#ff9a4d",
    warning="#f2c14e",
    error="#ff7b72",
    success="#7fd88f",
    foreground="#d6d9de",
    background="#11141a",
    surface="#161a21",
    panel="#1c212a",
)
"""The default."""
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

OURS = (STOKE, HIGH_CONTRAST)

_COLOURS = {
    field.name
    for field in fields(Theme)
    if str(field.type).startswith("str") and field.name != "name"
}


def load() -> tuple[list[Theme], list[str]]:
    """Return (themes of the user, errors of their files)."""
    found = []
    errors = []
    for path in sorted((config_file().parent / "themes").glob("*.toml")):
        try:
            found.append(_theme(path))
        except (OSError, ValueError) as error:
            errors.append(f"theme {path.name} skipped: {error}")
    return found, errors


def _theme(path: Path) -> Theme:
    given = read_toml(path)
    dark = given.pop("dark", True)
    if not isinstance(dark, bool):
        raise ValueError("dark must be true or false")
    for name, colour in given.items():
        if name not in _COLOURS:
            raise ValueError(f"unknown key {name}; known are: dark, {', '.join(sorted(_COLOURS))}")
        try:
            Color.parse(colour)
        except (ColorParseError, TypeError, AttributeError):
            raise ValueError(f"{name} is not a colour: {colour}") from None
    if "primary" not in given:
        raise ValueError("primary is missing; every theme needs it")
    return Theme(name=path.stem, dark=dark, **given)
