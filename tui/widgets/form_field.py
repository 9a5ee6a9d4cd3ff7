"""One field of a form: its label, where it is typed, and what is wrong with it."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, Static, TextArea

from stoke.errors import RequestError
from tui import format as fmt
from tui.form import Field
from tui.widgets.editing import SafeInput, SafeTextArea


class FormField(Vertical):
    class Changed(Message):
        """Something was typed."""

    def __init__(self, field: Field) -> None:
        super().__init__(id=f"field-{field.name}", classes="form-field")
        self.field = field

    def compose(self) -> ComposeResult:
        yield Static(Text(self.field.label), classes="field-label")
        if self.field.lines == 1:
            yield SafeInput(placeholder=self.field.hint, compact=True, id=self.field.name)
        else:
            box = SafeTextArea(compact=True, tab_behavior="focus", id=self.field.name)
            box.styles.height = self.field.lines
            yield box
        if self.field.note:
            yield Static(Text(self.field.note), classes="hint")
        error = Static(classes="field-error")
        error.display = False
        yield error

    @property
    def control(self) -> Input | TextArea:
        found = self.query("Input, TextArea").first()
        assert isinstance(found, Input | TextArea)
        return found

    @property
    def text(self) -> str:
        control = self.control
        return control.value if isinstance(control, Input) else control.text

    @text.setter
    def text(self, text: str) -> None:
        control = self.control
        if isinstance(control, Input):
            control.value = text
        else:
            control.load_text(text)

    def show_error(self, error: RequestError | None) -> None:
        line = self.query_one(".field-error", Static)
        line.display = error is not None
        text = Text()
        if error is not None:
            text = fmt.plain(error.why)
            if error.mend:
                text.append_text(fmt.plain(f"; {error.mend}"))
        line.update(text)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed())

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self.post_message(self.Changed())
