"""The colours of meaning: what is good, bad, worth a warning, at work, or secondary.

They come from the theme, and each is moved towards white or black until it can be read on every
background on which the screens write, the row of the cursor included. Style sheets and texts use the
same names: `color: $good` and `Text("HIT", "$good")`. In a text they also combine with `bold`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from rich.style import Style
from rich.theme import Theme as RichTheme
from textual.color import BLACK, WHITE, Color
from textual.theme import Theme

READABLE = 4.5
"""The least contrast of text, as WCAG 2 (1.4.3) defines it."""

# The colour of a theme that each role starts from.
ROLES = {
    "good": "success",
    "bad": "error",
    "warn": "warning",
    "busy": "primary",
    "wait": "secondary",
    "odd": "accent",
    "quiet": "foreground",
}
_ANSI_ROLES = {
    "good": "ansi_green",
    "bad": "ansi_red",
    "warn": "ansi_yellow",
    "busy": "ansi_cyan",
    "wait": "ansi_blue",
    "odd": "ansi_magenta",
    "quiet": "ansi_default",
}
_BARS = ("scrollbar", "scrollbar-hover", "scrollbar-active")
_BAR_GROUNDS = tuple(
    f"scrollbar-{part}"
    for part in ("background", "background-hover", "background-active", "corner-color")
)
GROUNDS = ("background", "surface", "panel", "raised", "raised-blurred")
ON_RAISED = {"on-raised": "foreground", "busy-on-raised": "busy", "bad-on-raised": "bad"}
"""The colours of texts on `raised`, which are one where the terminal chooses the colours."""
"""Variables with the backgrounds that text of every role may be written on."""


def contrast(one: Color, other: Color) -> float:
    """Return the contrast ratio of two opaque colours, 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Color) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in colour.normalized
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def readable(colour: Color, grounds: Iterable[Color]) -> Color:
    """Return `colour`, moved towards white or black as little as needed to be read on all `grounds`."""
    grounds = tuple(grounds)
    target = max(WHITE, BLACK, key=lambda end: min(contrast(end, ground) for ground in grounds))
    for step in range(20):
        moved = colour.blend(target, step / 20)
        if min(contrast(moved, ground) for ground in grounds) >= READABLE:
            return moved
    return target


@lru_cache(maxsize=8)
def _of_theme(name: str, given: tuple[tuple[str, str], ...]) -> dict[str, str]:
    generated = dict(given)
    parsed = {key: Color.parse(generated[key]) for key in (*ROLES.values(), "background")}
    background = parsed["background"]
    for key in ("surface", "panel"):
        parsed[key] = background + Color.parse(generated[key])
    foreground, primary = parsed["foreground"], parsed["primary"]
    parsed["raised"] = background.blend(primary, 0.14).blend(foreground, 0.09)
    parsed["raised-blurred"] = background.blend(foreground, 0.08)
    grounds = [parsed[key] for key in GROUNDS]
    colours = {key: parsed[key] for key in ("raised", "raised-blurred")}
    for role, source in ROLES.items():
        colour = parsed[source]
        if role == "quiet":
            colour = colour.blend(background, 0.42)
        colours[role] = readable(colour, grounds)
    colours["foreground"] = readable(foreground, grounds)
    colours["edge"] = background.blend(foreground, 0.22)
    colours["edge-focus"] = colours["odd"]
    # A bar beside a text is no part of it: it must be found, not seen first.
    for ground in _BAR_GROUNDS:
        colours[ground] = parsed["surface"]
    colours["scrollbar"] = colours["edge"]
    colours["scrollbar-hover"] = colours["scrollbar-active"] = primary
    colours["match"] = background.blend(parsed["warning"], 0.3)
    colours["match-text"] = readable(foreground, [colours["match"]])
    colours["match-now"] = colours["warn"]
    colours["match-now-text"] = readable(background, [colours["warn"]])
    for role in ("busy", "bad"):
        colours[f"on-{role}"] = readable(background, [colours[role]])
    colours["chosen"] = background.blend(primary, 0.35)
    colours["chosen-text"] = readable(foreground, [colours["chosen"]])
    for name, role in ON_RAISED.items():
        colours[name] = colours[role]
    colours["block-cursor-background"] = colours["raised"]
    colours["block-cursor-foreground"] = colours["foreground"]
    colours["block-cursor-blurred-background"] = colours["raised-blurred"]
    colours["block-cursor-blurred-foreground"] = colours["foreground"]
    colours["input-cursor-background"] = colours["foreground"]
    colours["input-cursor-foreground"] = background
    colours["text-muted"] = colours["footer-description-foreground"] = colours["quiet"]
    colours["footer-key-foreground"] = colours["odd"]
    for ours, theirs in (("good", "success"), ("bad", "error"), ("warn", "warning")):
        colours[f"text-{theirs}"] = colours[ours]
    for ours, theirs in (("busy", "primary"), ("wait", "secondary"), ("odd", "accent")):
        colours[f"text-{theirs}"] = colours[ours]
    return {key: colour.hex for key, colour in colours.items()}


def variables(theme: Theme, generated: Mapping[str, str]) -> dict[str, str]:
    """Return our variables for style sheets. `generated` are those that Textual makes of the theme."""
    if is_ansi(theme):
        return _ANSI_ROLES | {
            "raised": generated["block-cursor-background"],
            **dict.fromkeys(ON_RAISED, generated["block-cursor-foreground"]),
            "raised-blurred": generated["block-cursor-blurred-background"],
            "on-busy": "ansi_black",
            "on-bad": "ansi_black",
            # A bar beside a text is no part of it, as above.
            **dict.fromkeys(_BARS, "ansi_bright_black"),
            **dict.fromkeys(_BAR_GROUNDS, "ansi_default"),
            "edge": generated["border-blurred"],
            "edge-focus": generated["accent"],
            "match": "ansi_yellow",
            "match-text": "ansi_black",
            "match-now": "ansi_bright_magenta",
            "match-now-text": "ansi_black",
            "chosen": generated["screen-selection-background"],
            "chosen-text": generated["screen-selection-foreground"],
        }
    needed = {*ROLES.values(), "background", "surface", "panel"}
    return dict(_of_theme(theme.name, tuple((key, generated[key]) for key in sorted(needed))))


def without_hues(colours: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for NO_COLOR, where red and green would be greys darker than plain text."""
    return {**colours, **{role: colours["foreground"] for role in ROLES if role != "quiet"}}


def is_ansi(theme: Theme) -> bool:
    """Return whether the terminal chooses the colours, so that no contrast can be computed."""
    return theme.ansi or Color.parse(theme.primary).ansi is not None


def text_styles(colours: Mapping[str, str]) -> RichTheme:
    """Return the roles as styles of texts, under the names that style sheets use."""
    styles = {}
    for role in ROLES:
        colour = Color.parse(colours[role])
        # The default colour of a terminal has no weaker form.
        dim = True if role == "quiet" and colour.ansi is not None else None
        style = Style(color=colour.rich_color, dim=dim)
        styles[f"${role}"] = style
        styles[f"bold ${role}"] = style + Style(bold=True)
    return RichTheme(styles, inherit=True)
