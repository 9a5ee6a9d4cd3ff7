"""One field of a form: its label, where it is typed, and what is wrong with it."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Static, TextArea

from stoke.errors import RequestError
from tui import format as fmt
from tui.new_job import form
from tui.new_job.chips import Chips
from tui.widgets.editing import SafeTextArea
from tui.widgets.line_input import SafeInput


class FormField(Vertical):
    class Changed(Message):
        """Something was typed."""

    def __init__(self, field: form.Field) -> None:
        super().__init__(id=f"field-{field.name}", classes="form-field")
        self.field = field
        self.chips = self._chips() if field.chips else None
        self._error: RequestError | None = None

    def _chips(self) -> Chips:
        name = self.field.name
        parse = form.parse_pieces(name)
        return Chips(name, self.field.hint, parse, lambda piece: form.wrong_with(name, piece))

    def compose(self) -> ComposeResult:
        with Horizontal(classes="field-line"):
            yield Static(Text(self.field.label), classes="field-label")
            if self.chips is not None:
                yield self.chips
            elif self.field.lines == 1:
                yield SafeInput(placeholder=self.field.hint, compact=True, id=self.field.name)
            else:
                box = SafeTextArea(
                    compact=True,
                    tab_behavior="focus",
                    placeholder=self.field.hint,
                    id=self.field.name,
                )
                box.styles.max_height = self.field.lines
                yield box
        if self.field.note:
            yield Static(Text(self.field.note), classes="hint field-below")
        error = Static(classes="field-error field-below")
        error.display = False
        yield error

    @property
    def control(self) -> Input | TextArea:
        found = self.query("Input, TextArea").first()
        assert isinstance(found, Input | TextArea)
        return found

    @property
    def text(self) -> str:
        if self.chips is not None:
            return self.chips.text
        control = self.control
        return control.value if isinstance(control, Input) else control.text

    @text.setter
    def text(self, text: str) -> None:
        control = self.control
        if self.chips is not None:
            self.chips.text = text
        elif isinstance(control, Input):
            control.value = text
        else:
            control.load_text(text)

    def show_error(self, error: RequestError | None) -> None:
        """Of many chips, what is wrong with the chosen one, or else with the first that is."""
        self._error = error
        why = "" if error is None else f"{error.why}; {error.hint}" if error.hint else error.why
        if self.chips is not None:
            wrong = self.chips.wrong
            chosen = self.chips.chosen_chip
            if chosen is not None and chosen.wrong:
                why = chosen.wrong
            elif len(wrong) > 1:
                why += f" (and {len(wrong) - 1:,} more)"
        line = self.query_one(".field-error", Static)
        line.display = bool(why)
        line.update(fmt.plain(why))

    def _show_count(self, chips: Chips) -> None:
        text = Text(self.field.label)
        if chips.count > 1:
            text.append(f" {chips.count:,}", style="bold")
        self.query_one(".field-label", Static).update(text)

    def on_chips_changed(self, event: Chips.Changed) -> None:
        event.stop()
        if self.chips is not None:
            self._show_count(self.chips)
        self.post_message(self.Changed())

    def on_chips_chosen(self, event: Chips.Chosen) -> None:
        event.stop()
        self.show_error(self._error)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed())

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self.post_message(self.Changed())
