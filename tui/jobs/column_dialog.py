"""Which columns the list of jobs shows, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import OptionList, Static

from tui.dialogs.dialog import Dialog
from tui.jobs.columns import COLUMNS, SHOWN

_HELP = "space shows or hides, J and K move, backspace resets, esc closes"
_FULL = {
    "job": "id",
    "backend": "backend",
    "environment": "seconds for the environment",
    "cpu": "processor time",
    "memory": "peak memory",
}


class Columns(Dialog[None]):
    """`changed` is called with the names of the shown columns after each change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,C", "close", "Close", id="columns.close"),
        Binding("space,enter", "show_or_hide", "Show or hide", id="columns.toggle", priority=True),
        Binding("J,shift+down", "shift(1)", "Move back", id="columns.back"),
        Binding("K,shift+up", "shift(-1)", "Move forward", id="columns.front"),
        Binding("j", "step(1)", "Next", show=False, id="columns.down"),
        Binding("k", "step(-1)", "Previous", show=False, id="columns.up"),
        Binding("backspace", "reset", "Restore the defaults", id="columns.reset"),
    ]

    def __init__(self, shown: Sequence[str], changed: Callable[[tuple[str, ...]], object]) -> None:
        super().__init__()
        self._shown = list(shown)
        self._changed = changed

    @property
    def _names(self) -> list[str]:
        return [*self._shown, *(name for name in COLUMNS if name not in self._shown)]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text("Columns"), classes="dialog-title")
            yield OptionList(*self._lines(), id="columns-list")
            yield Static(Text(_HELP), classes="hint")

    def _lines(self) -> list[Text]:
        return [
            Text.assemble(
                ("[x] " if name in self._shown else "[ ] "), _named(name),
                style="" if name in self._shown else "$quiet",
            )
            for name in self._names
        ]  # fmt: skip

    @property
    def _list(self) -> OptionList:
        return self.query_one(OptionList)

    def on_mount(self) -> None:
        self._list.focus()
        self._list.highlighted = 0

    def _show(self, at: int, changed: bool = True) -> None:
        self._list.set_options(self._lines())
        self._list.highlighted = at
        if changed:
            self._changed(tuple(self._shown))

    def action_show_or_hide(self) -> None:
        at = self._list.highlighted or 0
        name = self._names[at]
        if name not in self._shown:
            self._shown.append(name)
        elif len(self._shown) > 1:
            self._shown.remove(name)
        self._show(self._names.index(name))

    def action_shift(self, step: int) -> None:
        at = self._list.highlighted or 0
        to = at + step
        if at < len(self._shown) and 0 <= to < len(self._shown):
            self._shown[at], self._shown[to] = self._shown[to], self._shown[at]
            self._show(to)

    def action_step(self, step: int) -> None:
        (self._list.action_cursor_down if step > 0 else self._list.action_cursor_up)()

    def action_reset(self) -> None:
        self._shown = list(SHOWN)
        self._show(0)

    def action_close(self) -> None:
        self.dismiss(None)


def _named(name: str) -> str:
    """Return the heading of a column, and its full name."""
    label, full = COLUMNS[name].label, _FULL.get(name, name)
    return label if label == full else f"{label:<6} {full}"
