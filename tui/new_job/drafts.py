"""Several drafts: which one the form edits, and the dialog that changes to another one."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static
from textual.widgets.option_list import Option

from stoke.errors import StokeError
from tui import format as fmt
from tui.context import Context
from tui.dialogs.dialog import Dialog
from tui.dialogs.prompts import Confirm
from tui.new_job import draft as drafts
from tui.new_job.draft import Draft, DraftSlot
from tui.new_job.opening import OpensFiles
from tui.notifications import show_error
from tui.widgets.choice_list import ChoiceList

CLEAR, NEW = "clear", "new"
_HINT = "Enter opens, d removes, esc closes. The open draft stays saved."


class DraftsDialog(Dialog[str | None]):
    """Returns `CLEAR`, `NEW` or the name of a draft."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "Close", id="drafts.close"),
        Binding("d", "remove", "Remove", id="drafts.remove"),
    ]

    def __init__(self, slot: DraftSlot) -> None:
        super().__init__()
        self._slot = slot
        self._others: list[str] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog dialog-wide"):
            yield Static(Text("Drafts"), classes="dialog-title")
            yield ChoiceList(id="drafts-list")
            yield Static(Text(_HINT), classes="hint")

    def on_mount(self) -> None:
        self._show()
        self.query_one(ChoiceList).focus()

    def _show(self) -> None:
        self._others = [name for name in drafts.names() if name != self._slot.name]
        options = self.query_one(ChoiceList)
        options.clear_options()
        options.add_option(Option(Text("New draft"), id=NEW))
        options.add_option(Option(Text("Clear this draft"), id=CLEAR))
        for name in self._others:
            options.add_option(
                Option(_described(name), id=f"={name}", disabled=drafts.is_open(name))
            )
        options.highlighted = 0

    @on(ChoiceList.OptionSelected)
    def _selected(self, event: ChoiceList.OptionSelected) -> None:
        self.dismiss((event.option.id or NEW).removeprefix("="))

    def action_remove(self) -> None:
        at = self.query_one(ChoiceList).highlighted
        if at is None or at < 2:
            self.app.bell()
            return
        try:
            drafts.remove(self._others[at - 2])
        except OSError as error:
            show_error(self, StokeError(f"Cannot remove the draft: {error.strerror}"))
        self._show()

    def action_close(self) -> None:
        self.dismiss(None)


def _described(name: str) -> Text:
    draft = drafts.load(name)
    code = next((line.strip() for line in draft.code.splitlines() if line.strip()), "no code")
    text = fmt.plain(draft.values.get("name", "").strip() or "unnamed", "bold")
    if drafts.is_open(name):
        text.append("  open in another stoke", "$warn")
    text.append("  ")
    text.append_text(fmt.plain(code, "$quiet"))
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


class HasDrafts(OpensFiles):
    """The part of the New job screen that saves what is typed."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._slot = DraftSlot(context.ui_state.get("draft"))
        self._draft = self._saved = drafts.load(self._slot.name)

    def on_unmount(self) -> None:
        self._slot.close()

    def _fill(self, draft: Draft) -> None:
        """Put a draft into the form."""
        raise NotImplementedError

    def _choose_backend(self, name: str) -> None:
        raise NotImplementedError

    def _save(self) -> None:
        if not self.query("#submit"):
            return
        draft = self._now()
        if draft == self._saved:
            return
        try:
            drafts.save(draft, self._slot.name)
            self._saved = draft
        except StokeError as error:
            self.show_error(error)

    def save_unsaved(self) -> None:
        self._save()

    def action_drafts(self) -> None:
        """Change to another draft, begin a new one, or clear this one."""
        self._save()

        def picked(what: str | None) -> None:
            if what == CLEAR:
                body = Text("This empties every field. Ctrl+z restores the code.")
                asked = Confirm("Clear the form?", body, "Clear")
                self.app.push_screen(asked, lambda yes: self._put(Draft()) if yes else None)
            elif what is not None and self._slot.change(None if what == NEW else what):
                self.context.ui_state.set(draft=self._slot.name)
                self._put(drafts.load(self._slot.name))

        self.app.push_screen(DraftsDialog(self._slot), picked)

    def _put(self, draft: Draft) -> None:
        self._fill(draft)
        self._choose_backend(draft.backend or self.context.config.backend)
        self._code.focus()
