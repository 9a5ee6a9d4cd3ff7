"""Dialogs of the New job screen: open a file, choose a preset, name a new preset."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, Static
from textual.widgets.option_list import Option

from stoke.errors import RequestError
from stoke.request import presets
from stoke.request.presets import Preset
from tui import format as fmt
from tui.dialogs.dialog import Dialog
from tui.widgets.choice_list import ChoiceList
from tui.widgets.line_input import SafeInput
from tui.widgets.path_input import PathInput, typed_path

MOST_ENTRIES = 500


class SavePreset(Dialog[Path | None]):
    """Asks for the name of a preset; returns the file to write."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="preset.cancel"),
    ]

    def __init__(self, name: str) -> None:
        super().__init__()
        self._wanted = name

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text("Save the form as a preset"), classes="dialog-title")
            yield SafeInput(self._wanted, placeholder="name", compact=True, id="preset-name")
            yield Static(id="preset-note", classes="hint")

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._look()

    @on(Input.Changed)
    def _look(self) -> None:
        try:
            path = presets.path_of(self.query_one(Input).value)
        except RequestError as error:
            note = fmt.plain(error.why, "$warn")
        else:
            there = ", which exists already" if path.exists() else ""
            note = fmt.plain(f"{fmt.place(str(path))}{there}")
            note.append("\nEnter saves, esc cancels. Secrets are saved by reference only.")
        self.query_one("#preset-note", Static).update(note)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        try:
            self.dismiss(presets.path_of(self.query_one(Input).value))
        except RequestError:
            self.app.bell()  # The note below the name says what is wrong.

    def action_cancel(self) -> None:
        self.dismiss(None)


class ChoosePreset(Dialog[Preset | None]):
    """Lists the presets; choosing an unreadable one shows why it cannot be used."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "cancel", "Cancel", id="presets.cancel"),
    ]

    def __init__(self, found: list[Preset]) -> None:
        super().__init__()
        self._found = found

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog dialog-wide"):
            yield Static(Text("Presets"), classes="dialog-title")
            yield ChoiceList(*(Option(_described(one)) for one in self._found), id="preset-list")
            yield Static(id="preset-note", classes="hint")

    def on_mount(self) -> None:
        where = fmt.place(str(presets.folder()))
        if self._found:
            note = f"Enter opens it, esc cancels. Presets are files in {where}"
        else:
            note = f"No presets yet. Ctrl+s saves the form as one, or put files into {where}"
        self.query_one("#preset-note", Static).update(fmt.plain(note))
        self.query_one("#preset-list").display = bool(self._found)
        self.query_one(ChoiceList).focus()

    @on(ChoiceList.OptionSelected)
    def _selected(self, event: ChoiceList.OptionSelected) -> None:
        chosen = self._found[event.option_index]
        if chosen.error is None:
            self.dismiss(chosen)
        else:
            text = fmt.plain(f"{fmt.place(str(chosen.path))} cannot be used\n", "bold")
            note = text.append_text(fmt.error_text(chosen.error))
            self.query_one("#preset-note", Static).update(note)

    def action_cancel(self) -> None:
        self.dismiss(None)


def _described(preset: Preset) -> Text:
    text = fmt.plain(preset.name, "bold")
    if preset.error is not None:
        why = preset.error.what.removeprefix(f"{preset.path}: ")
        text.append_text(fmt.plain(f"  {why}", "$bad"))
    elif preset.spec is not None:
        wanted = ", ".join((*preset.spec.dependencies, *preset.spec.system)) or "no packages"
        text.append_text(fmt.plain(f"  {wanted}", "$quiet"))
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


class OpenFile(Dialog[Path | None]):
    """Asks for a file or a folder: up and down choose, tab completes, enter opens the file."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="open.cancel"),
        Binding("down", "step(1)", "Next", show=False, id="open.down", priority=True),
        Binding("up", "step(-1)", "Previous", show=False, id="open.up", priority=True),
        Binding("tab", "complete", "Complete", show=False, id="open.complete", priority=True),
        Binding("f9", "take_folder", "Take this folder", id="open.take_folder", priority=True),
    ]

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._entries: list[str] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog dialog-wide"):
            yield Static(
                Text("Open a file: Python code, or a request as JSON; or take a folder"),
                classes="dialog-title",
            )
            yield PathInput(
                _typed(self._folder), compact=True, id="open-path", select_on_focus=False
            )
            yield ChoiceList(id="open-list")
            yield Static(id="open-note", classes="hint")

    def on_mount(self) -> None:
        self.query_one("#open-list", ChoiceList).can_focus = False
        self.query_one(Input).focus()
        self._look()

    @on(Input.Changed)
    def _look(self) -> None:
        """List the entries that have what is typed in their names."""
        folder, _, begun = typed_path(self.query_one(Input).value).rpartition("/")
        note = "Tab completes, enter opens, f9 takes the folder with its files."
        try:
            self._entries = _entries(Path(folder or "/").expanduser(), begun)
        except (OSError, RuntimeError, ValueError) as error:
            self._entries = []
            note = f"{folder}: {getattr(error, 'strerror', None) or error}"
        options = self.query_one(ChoiceList)
        options.clear_options()
        options.add_options([Option(fmt.plain(name)) for name in self._entries])
        if self._entries:
            options.highlighted = 0
        self.query_one("#open-note", Static).update(fmt.plain(note))

    def action_step(self, by: int) -> None:
        options = self.query_one(ChoiceList)
        (options.action_cursor_down if by > 0 else options.action_cursor_up)()

    def action_complete(self) -> None:
        at = self.query_one(ChoiceList).highlighted
        if at is not None and at < len(self._entries):
            self._go(self._entries[at])

    def _go(self, entry: str) -> None:
        box = self.query_one(Input)
        folder = typed_path(box.value).rpartition("/")[0]
        box.value = f"{folder}/{entry}"
        box.cursor_position = len(box.value)

    @on(ChoiceList.OptionSelected)
    def _clicked(self, event: ChoiceList.OptionSelected) -> None:
        self._go(self._entries[event.option_index])
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        typed = typed_path(self.query_one(Input).value)
        if not _is(typed, Path.is_file):
            self.action_complete()
        typed = typed_path(self.query_one(Input).value)
        if _is(typed, Path.is_file):
            self.dismiss(Path(typed).expanduser())

    def action_take_folder(self) -> None:
        """Return the typed folder, or the one that the typed name is in."""
        typed = typed_path(self.query_one(Input).value)
        for folder in (typed, typed.rpartition("/")[0]):
            if folder and _is(folder, Path.is_dir):
                self.dismiss(Path(folder).expanduser())
                return
        self.app.bell()

    def action_cancel(self) -> None:
        self.dismiss(None)


def _typed(folder: Path) -> str:
    return f"{fmt.place(str(folder))}/".replace("//", "/")


def _is(typed: str, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(Path(typed).expanduser())
    except (OSError, RuntimeError, ValueError):
        return False


def _entries(folder: Path, begun: str) -> list[str]:
    """Return the entries of a folder: folders first, with a slash; hidden ones only after a typed dot.

    Those that begin as typed come before those that have it elsewhere in their names.
    """
    wanted = begun.casefold()
    beginning: list[tuple[bool, str]] = []
    having: list[tuple[bool, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if wanted not in name.casefold() or (name.startswith(".") and begun[:1] != "."):
                continue
            if (is_folder := entry.is_dir()) or entry.is_file():
                found = beginning if name.startswith(begun) else having
                found.append((not is_folder, f"{name}/" if is_folder else name))
    return [name for _, name in (*sorted(beginning), *sorted(having))][:MOST_ENTRIES]
