"""A list of packages as chips: each typed or pasted item is shown on its own, right or wrong.

Enter, a comma, or text behind a blank turns the input line into chips. Backspace in the empty line
takes the last chip back for editing; the left arrow moves through the chips.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.new_job import tokenizer
from tui.widgets.line_input import SafeInput, shown

MOST_ROWS = 5
_OPEN_NAME = re.compile(r"(?:^|[\s,])([A-Za-z0-9][\w.-]*)$")


@dataclass(frozen=True)
class Chip:
    """One item. `wrong` is what is wrong with it; `given` chips come from the code and stay."""

    text: str
    wrong: str | None = None
    given: bool = False


class ChipList(ScrollView, can_focus=False):
    """The chips in rows; only visible rows are drawn."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chips--right",
        "chips--wrong",
        "chips--given",
        "chips--chosen",
    }

    def __init__(self) -> None:
        super().__init__()
        self._chips: Sequence[Chip] = ()
        self._rows: list[list[tuple[int, int]]] = []
        self._row_of: list[int] = []
        self.chosen: int | None = None

    def show(self, chips: Sequence[Chip], chosen: int | None) -> None:
        """Show these chips, and scroll to the chosen one or else to the last."""
        changed = chips != self._chips
        self._chips, self.chosen = chips, chosen
        if changed:
            self._lay_out()
        # Only the next layout decides the height, and with it how far the list scrolls.
        self.call_after_refresh(self._scroll_to_it)
        self.refresh()

    def _scroll_to_it(self) -> None:
        if self._rows:
            row = self._row_of[len(self._chips) - 1 if self.chosen is None else self.chosen]
            self.scroll_to_region(Region(0, row, 1, 1), animate=False, immediate=True, force=True)

    def on_resize(self) -> None:
        self._lay_out()
        self.call_after_refresh(self._scroll_to_it)

    def _label(self, chip: Chip) -> str:
        mark = "! " if chip.wrong else ""
        label = f"{mark}{shown(chip.text)}{' (in the code)' if chip.given else ''}"
        most = max(4, self._width - 2)
        return label if cell_len(label) <= most else set_cell_size(label, most - 1) + "\u2026"

    @property
    def _width(self) -> int:
        return self.size.width or 40

    def _lay_out(self) -> None:
        self._rows, self._row_of = [], []
        at = self._width + 1
        for number, chip in enumerate(self._chips):
            width = cell_len(self._label(chip)) + 2
            if at + width > self._width:
                self._rows.append([])
                at = 0
            self._rows[-1].append((at, number))
            self._row_of.append(len(self._rows) - 1)
            at += width + 1
        self.display = bool(self._rows)
        self.styles.height = max(1, min(MOST_ROWS, len(self._rows)))
        self.virtual_size = Size(self._width, len(self._rows))

    def render_line(self, y: int) -> Strip:
        row = y + self.scroll_offset.y
        base = self.rich_style
        if row >= len(self._rows):
            return Strip.blank(self.size.width, base)
        segments: list[Segment] = []
        at = 0
        for start, number in self._rows[row]:
            label = f" {self._label(self._chips[number])} "
            segments.append(Segment(" " * (start - at), base))
            segments.append(
                Segment(label, base + self.get_component_rich_style(self._kind(number)))
            )
            at = start + cell_len(label)
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def _kind(self, number: int) -> str:
        chip = self._chips[number]
        if number == self.chosen:
            return "chips--chosen"
        if chip.wrong:
            return "chips--wrong"
        return "chips--given" if chip.given else "chips--right"

    def number_at(self, x: int, y: int) -> int | None:
        """Return the number of the chip at a position, in cells of the visible part."""
        row = y + self.scroll_offset.y
        for start, number in self._rows[row] if row < len(self._rows) else ():
            if start <= x < start + cell_len(self._label(self._chips[number])) + 2:
                return number
        return None


class ChipInput(SafeInput):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "other_completion(1)", "Next completion", show=False, id="chips.next"),
        Binding(
            "up", "other_completion(-1)", "Previous completion", show=False, id="chips.previous"
        ),
        Binding("escape", "leave_chips", "Back to typing", show=False, id="chips.leave"),
    ]

    def __init__(self, placeholder: str, name: str) -> None:
        super().__init__(placeholder=placeholder, compact=True, id=name, select_on_focus=False)
        self._matches: list[str] = []
        self._match = 0

    @property
    def chips(self) -> Chips:
        assert isinstance(self.parent, Chips)
        return self.parent

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        if action == "other_completion":
            return len(self._matches) > 1
        if action == "leave_chips":
            return self.chips.chosen is not None
        return True

    # --- completion -------------------------------------------------------------------------------

    def watch_value(self, value: str) -> None:
        open_name = _OPEN_NAME.search(value)
        self._matches = self.chips.completions(open_name[1]) if open_name else []
        self._match = 0
        self._suggest()

    def _suggest(self) -> None:
        self._suggestion = ""
        open_name = _OPEN_NAME.search(self.value)
        if self._matches and open_name:
            self._suggestion = self.value + self._matches[self._match][len(open_name[1]) :]

    def action_other_completion(self, by: int) -> None:
        self._match = (self._match + by) % len(self._matches)
        self._suggest()

    # --- keys -------------------------------------------------------------------------------------

    async def _on_key(self, event: events.Key) -> None:
        if event.is_printable:
            self.chips.choose(None)
        await super()._on_key(event)
        if event.is_printable:
            self.chips.take_done()

    def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        self.chips.paste(event.text)

    async def action_submit(self) -> None:
        self.chips.enter()

    def action_cursor_left(self, select: bool = False) -> None:
        if self.cursor_position == 0 and not select:
            self.chips.step(-1)
        else:
            super().action_cursor_left(select)

    def action_cursor_right(self, select: bool = False) -> None:
        if self.chips.chosen is not None:
            self.chips.step(1)
        else:
            super().action_cursor_right(select)

    def action_delete_left(self) -> None:
        if not self.chips.backspace():
            super().action_delete_left()

    def action_delete_right(self) -> None:
        if not self.chips.remove_chosen():
            super().action_delete_right()

    def action_leave_chips(self) -> None:
        self.chips.choose(None)


class Chips(Vertical):
    """An input line with chips above it. `check` returns what is wrong with an item, or None."""

    class Changed(Message):
        """A chip or the input line has changed."""

    class Chosen(Message):
        """Another chip is chosen, or none is."""

    class FilePasted(Message):
        """The pasted text is a requirements file. It has not been added."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(
        self,
        name: str,
        placeholder: str,
        parse: tokenizer.Parse,
        check: Callable[[str], str | None],
    ) -> None:
        super().__init__(classes="chips")
        self._placeholder = placeholder
        self._parse = parse
        self._check = check
        self._chips: list[Chip] = []
        self._given: list[Chip] = []
        self._checked: dict[str, str | None] = {}
        self._at: int | None = None
        self._list = ChipList()
        self.input = ChipInput(placeholder, name)
        self.chosen: int | None = None
        self.known: Sequence[str] = ()
        """Names for completion, the likeliest first."""

    def compose(self) -> ComposeResult:
        yield self._list
        yield self.input

    def on_mount(self) -> None:
        self._show()

    @property
    def placeholder(self) -> str:
        return self._placeholder

    @placeholder.setter
    def placeholder(self, text: str) -> None:
        if text != self._placeholder:
            self._placeholder = text
            self._show()

    # --- its items --------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The chips and the input line, one per line."""
        typed = self.input.value.strip()
        texts = [chip.text for chip in self._chips]
        if typed:
            at = len(texts) if self._at is None else self._at
            texts.insert(at, typed)
        return "\n".join(texts)

    @text.setter
    def text(self, text: str) -> None:
        self._at = None
        self._chips = []
        self.input.value = ""
        self._add(tokenizer.cut(text, self._parse))

    @property
    def wrong(self) -> list[Chip]:
        return [chip for chip in self._chips if chip.wrong]

    @property
    def chosen_chip(self) -> Chip | None:
        return None if self.chosen is None else self._chips[self.chosen]

    @property
    def count(self) -> int:
        return len(self._chips)

    def give(self, texts: Sequence[str]) -> None:
        """Show the packages that the code names."""
        given = [Chip(text, given=True) for text in texts]
        if given != self._given:
            self._given = given
            self._show()

    def completions(self, begun: str) -> list[str]:
        there = {chip.text for chip in self._chips}
        folded = begun.casefold()
        return [
            text
            for text in self.known
            if len(text) > len(begun) and text.casefold().startswith(folded) and text not in there
        ]

    def _add(self, texts: Sequence[str]) -> None:
        there = {chip.text for chip in self._chips}
        new = [text for text in dict.fromkeys(texts) if text not in there]
        at = len(self._chips) if self._at is None else self._at
        self._chips[at:at] = [Chip(text, self._why(text)) for text in new]
        self._at = None
        self._show()
        self.post_message(self.Changed())

    def _why(self, text: str) -> str | None:
        if text not in self._checked:
            self._checked[text] = self._check(text)
        return self._checked[text]

    def _show(self) -> None:
        self.input.placeholder = "" if self._chips else self._placeholder
        self._list.show([*self._chips, *self._given], self.chosen)

    # --- editing ----------------------------------------------------------------------------------

    def take_done(self) -> None:
        """Turn the part of the input line that no further key can change into chips."""
        if self.input.cursor_at_end:
            done, rest = tokenizer.take(self.input.value, self._parse)
            if rest != self.input.value:
                self.input.value = rest
                self.input.cursor_position = len(rest)
                self._add(done)

    def enter(self) -> None:
        """Edit the chosen chip, or turn the input line into chips, or move to the next field."""
        if self.chosen is not None:
            self._take(self.chosen)
        elif typed := self.input.value:
            self.input.value = ""
            self._add(tokenizer.cut(typed, self._parse))
        else:
            self.screen.focus_next()

    def paste(self, text: str) -> None:
        # Terminals send a line end as the enter key does, a carriage return.
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if tokenizer.is_requirements_file(text):
            self.post_message(self.FilePasted(text))
            return
        self.choose(None)
        lines = text.splitlines()
        if len(lines) > 1:
            self.input.insert_text_at_cursor(lines[0].lstrip())
            whole = "\n".join([self.input.value, *lines[1:]])
            self.input.value = ""
            self._add(tokenizer.pasted(whole, self._parse))
        elif lines:
            self.input.insert_text_at_cursor(lines[0])
            self.take_done()

    def step(self, by: int) -> None:
        """Choose the previous or next chip; behind the last chip is the input line."""
        if self._chips:
            at = len(self._chips) if self.chosen is None else self.chosen
            at = max(0, at + by)
            self.choose(at if at < len(self._chips) else None)

    def choose(self, number: int | None) -> None:
        if number != self.chosen:
            self.chosen = number
            self._show()
            self.post_message(self.Chosen())

    def backspace(self) -> bool:
        """Remove the chosen chip, or with an empty input line edit the last chip."""
        if self.remove_chosen():
            return True
        if self.input.value or not self._chips:
            return False
        self._take(len(self._chips) - 1)
        return True

    def remove_chosen(self) -> bool:
        if self.chosen is None:
            return False
        number = self.chosen
        del self._chips[number]
        self.choose(min(number, len(self._chips) - 1) if self._chips else None)
        self._show()
        self.post_message(self.Changed())
        return True

    def _take(self, number: int) -> None:
        chip = self._chips[number]
        if typed := self.input.value.strip():
            self.input.value = ""
            self._add(tokenizer.cut(typed, self._parse))
        number = self._chips.index(chip)
        del self._chips[number]
        self.choose(None)
        self._at = number
        self.input.value = chip.text
        self.input.cursor_position = len(chip.text)
        self._show()
        self.post_message(self.Changed())

    # --- mouse ------------------------------------------------------------------------------------

    def on_click(self, event: events.Click) -> None:
        if event.widget is self._list:
            number = self._list.number_at(event.x, event.y)
            self.input.focus()
            if number is not None and number < len(self._chips):
                self.choose(number)

    def on_input_changed(self, event: SafeInput.Changed) -> None:
        event.stop()
        self.post_message(self.Changed())
