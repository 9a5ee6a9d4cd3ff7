"""One field of the form: its label, the widget it is typed into, and what is wrong with it."""

from __future__ import annotations

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Checkbox, Input, Static, TextArea

from stoke.errors import RequestError
from stoke.request.fields import Field, Widget
from stoke.request.values import Flag
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.new_job import form
from tui.new_job.chips import Chips
from tui.new_job.project import form_hint
from tui.widgets.editing import SafeTextArea
from tui.widgets.line_input import SafeInput


class FormField(Vertical):
    class Changed(Message):
        """The text of the field has changed."""

    def __init__(self, field: Field, widget: Widget) -> None:
        super().__init__(id=f"field-{field.name}", classes="form-field")
        self.field = field
        self.widget = widget
        self.chips = self._chips() if widget.chips else None
        self._error: RequestError | None = None
        self._unsupported: str | None = None

    def _chips(self) -> Chips:
        field = self.field
        return Chips(
            field.name,
            self.widget.placeholder,
            lambda text: list(field.value.from_text(field.name, text)),
            lambda item: form.item_error(field, item),
        )

    def compose(self) -> ComposeResult:
        name, placeholder = self.field.name, self.widget.placeholder
        with Horizontal(classes="field-line"):
            if isinstance(self.field.value, Flag):
                yield Checkbox(placeholder, id=name, compact=True)
            else:
                yield Static(Text(self.field.label), classes="field-label")
                if self.chips is not None:
                    yield self.chips
                elif self.widget.lines == 1:
                    yield SafeInput(placeholder=placeholder, compact=True, id=name)
                else:
                    box = SafeTextArea(
                        compact=True, tab_behavior="focus", placeholder=placeholder, id=name
                    )
                    box.styles.max_height = self.widget.lines
                    yield box
        if self.widget.note:
            yield Static(Text(self.widget.note), classes="hint field-below")
        error = Static(classes="field-error field-below")
        error.display = False
        yield error

    @property
    def control(self) -> Input | TextArea | Checkbox:
        found = self.query("Input, TextArea, Checkbox").first()
        assert isinstance(found, Input | TextArea | Checkbox)
        return found

    @property
    def text(self) -> str:
        if self.chips is not None:
            return self.chips.text
        control = self.control
        if isinstance(control, Checkbox):
            return self.field.value.to_text(control.value)
        return control.value if isinstance(control, Input) else control.text

    @text.setter
    def text(self, text: str) -> None:
        control = self.control
        if self.chips is not None:
            self.chips.text = text
        elif isinstance(control, Checkbox):
            control.value = self.field.value.from_text(self.field.name, text)
        elif isinstance(control, Input):
            control.value = text
        else:
            control.load_text(text)

    def show_error(self, error: RequestError | None) -> None:
        """Show what is wrong: of several chips, with the chosen one or else the first wrong one."""
        self._error = error
        why = "" if error is None else "; ".join(filter(None, (error.why, form_hint(error.hint))))
        if self.chips is not None:
            wrong = self.chips.wrong
            chosen = self.chips.chosen_chip
            if chosen is not None and chosen.wrong:
                why = chosen.wrong
            elif len(wrong) > 1:
                why += f" (and {len(wrong) - 1:,} more)"
        self.set_class(bool(why), "-wrong")
        line = self.query_one(".field-error", Static)
        line.display = bool(why)
        line.update(fmt.plain(why))

    # --- what the backend cannot honour -----------------------------------------------------------

    def show_unsupported(self, reason: str | None) -> None:
        """Disable the field with the reason why the backend cannot honour it; None enables it again.

        A field that holds something stays enabled, so that it can be emptied; its error says why.
        """
        self._unsupported = reason
        self._update_disabled()

    def _update_disabled(self) -> None:
        reason = self._unsupported
        if reason is not None and (self.has_focus_within or self.text.strip()):
            reason = None
        control = self.control
        control.disabled = reason is not None
        placeholder = clean(reason or self.widget.placeholder)
        if self.chips is not None:
            self.chips.placeholder = placeholder
        elif not isinstance(control, Checkbox):
            control.placeholder = placeholder

    def on_descendant_blur(self) -> None:
        self._update_disabled()

    # --- changes ----------------------------------------------------------------------------------

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

    @on(Input.Changed)
    @on(TextArea.Changed)
    @on(Checkbox.Changed)
    def _control_changed(self, event: Message) -> None:
        event.stop()
        self.post_message(self.Changed())
