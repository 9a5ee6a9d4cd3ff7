"""The line at the bottom: the keys that work now.

Textual's footer has a widget for each key and makes them anew whenever a binding may have changed:
some fifteen to style and lay out in the middle of a search or a flood. This is a single widget, drawn
again only when its text changes.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

_KEPT = ("help", "quit_here", "back_to_jobs")
"""The actions whose keys are shown at every width."""


@runtime_checkable
class OffersKeys(Protocol):
    """A screen that hides keys of actions that only explain why they do nothing now."""

    def offers(self, action: str) -> bool: ...


class _Key(NamedTuple):
    key: str
    shown: str
    description: str
    enabled: bool
    is_kept: bool

    @property
    def width(self) -> int:
        return cell_len(self.shown) + 1 + cell_len(self.description)


def _fitting(keys: list[_Key], width: int) -> list[_Key]:
    """Return the keys that fit the width. Help, which lists the others, and the ways out are kept."""
    left = width + 1 - sum(key.width + 1 for key in keys if key.is_kept)
    shown: list[_Key] = []
    for key in keys:
        if not key.is_kept:
            left -= key.width + 1
        if key.is_kept or left >= 0:
            shown.append(key)
    return shown


class KeyBar(Widget):
    """Shows the bindings with `show`; a click on one presses its key."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"key-bar--key", "key-bar--description"}
    DEFAULT_CSS = """
    KeyBar {
        dock: bottom;
        height: 1;
        text-wrap: nowrap;
        color: $footer-foreground;
        background: $footer-background;
        .key-bar--key {
            color: $footer-key-foreground;
            background: $footer-key-background;
            text-style: bold;
        }
        .key-bar--description {
            color: $footer-description-foreground;
            background: $footer-description-background;
        }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._keys: list[_Key] = []
        # The shown keys, each with the column where its part of the line ends.
        self._places: list[tuple[_Key, int]] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._read)

    def on_unmount(self) -> None:
        self.screen.bindings_updated_signal.unsubscribe(self)

    def _read(self, screen: Screen[object]) -> None:
        # While another window of the desktop has the focus, no widget has it: the keys would change.
        if not self.app.app_focus or screen is not self.screen:
            return
        keys: dict[str, _Key] = {}
        is_typing = isinstance(screen.focused, Input)
        offers = screen.offers if isinstance(screen, OffersKeys) else lambda _: True
        for _, binding, enabled, _ in screen.active_bindings.values():
            # A user who types into a field must see how to accept the text, and how to leave it.
            if not offers(binding.action):
                continue
            is_field = is_typing and binding.key in ("enter", "escape")
            if binding.show or is_field:
                shown = self.app.get_key_display(binding)
                is_kept = is_field or binding.action in _KEPT
                description = (
                    "Accept" if is_field and binding.key == "enter" else binding.description
                )
                key = _Key(binding.key, shown, description, enabled, is_kept)
                # Show the first of several keys for an action.
                keys.setdefault(f"{binding.action} {description}", key)
        if (found := list(keys.values())) != self._keys:
            self._keys = found
            self.refresh()

    def render(self) -> Text:
        key_style = self.get_component_rich_style("key-bar--key")
        description_style = self.get_component_rich_style("key-bar--description")
        line = Text(no_wrap=True)
        self._places = []
        for key in _fitting(self._keys, self.size.width):
            start = len(line)
            line.append(key.shown, key_style)
            line.append(f" {key.description}", description_style)
            if not key.enabled:
                line.stylize("$quiet", start)
            self._places.append((key, line.cell_len))
            line.append(" ")
        return line

    def on_mouse_down(self, event: events.MouseDown) -> None:
        for key, end in self._places:
            if event.x < end:
                if key.enabled:
                    self.app.simulate_key(key.key)
                else:
                    self.app.bell()
                return
