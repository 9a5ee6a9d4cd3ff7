"""Asking before environments go: says first, from a dry run, which ones and how many bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, Input, Static

from stoke.backend.api import Volume
from stoke.cache.volumes import Progress, Pruned
from stoke.errors import StokeError
from stoke.request.spec import parse_duration, parse_size
from tui import format as fmt
from tui.dialogs.dialog import Dialog
from tui.threads import GivenUpError, Work, answer, on_thread
from tui.widgets.line_input import SafeInput


@dataclass(frozen=True)
class Plan:
    """What goes: what was unused for so many seconds, and then what is beyond so many bytes."""

    unused: float | None
    max_bytes: int | None


class PruneCache(Dialog[Plan | None]):
    """`look` is the dry run, called on a thread. `budget` is the scope's, in bytes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="prune.cancel"),
        # Before the fields, which copy with it.
        Binding("ctrl+c", "end", "End looking", show=False, priority=True, id="prune.end"),
    ]

    def __init__(
        self, volume: Volume, budget: int | None, look: Callable[[Plan, Progress], Pruned]
    ) -> None:
        super().__init__()
        self._volume = volume
        self._budget = budget
        self._look = look
        self._work: Work | None = None
        self._looked: Plan | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text("Prune this cache?"), classes="dialog-title")
            yield Static(fmt.plain(fmt.place(self._volume.whole_name), "bold"))
            with Horizontal(classes="dialog-line"):
                yield Static(Text("unused for"), classes="dialog-label")
                yield SafeInput("30d", id="prune-unused", placeholder="30d, 12h", compact=True)
            with Horizontal(classes="dialog-line"):
                yield Static(Text("down to"), classes="dialog-label")
                yield SafeInput(
                    _typed(self._budget), id="prune-size", placeholder="10g, 500m", compact=True
                )
            with VerticalScroll(id="prune-what", can_focus=False):
                yield Static(id="prune-text")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel", id="cancel")
                yield Button("What would go?", id="look", variant="primary")
                yield Button("Prune", id="go", variant="error", disabled=True)

    def on_mount(self) -> None:
        self.query_one("#prune-unused").focus()
        self._say(Text("Never what a job uses. First it is said what would go.", style="dim"))

    def on_unmount(self) -> None:
        self.action_end()

    def _say(self, text: Text) -> None:
        self.query_one("#prune-text", Static).update(text)

    @on(Input.Changed)
    def _changed(self) -> None:
        """What was looked at is not what would go now."""
        self._looked = None
        self.query_one("#go", Button).disabled = True

    @on(Input.Submitted)
    def _begin(self) -> None:
        if self._work is not None:
            return
        try:
            plan = self._plan()
        except ValueError as error:
            self._say(fmt.plain(str(error), "red"))
            return
        work = Work("looking", lambda: answer(self, self._show_step))
        self._work = work
        self.query_one("#look", Button).disabled = True
        self._show_step()
        on_thread(
            self,
            lambda: self._look(plan, work.progress),
            lambda pruned: self._known(plan, pruned),
            self._failed,
        )

    def _plan(self) -> Plan:
        """`ValueError` says what is wrong with what was typed."""
        unused = self.query_one("#prune-unused", Input).value.strip()
        size = self.query_one("#prune-size", Input).value.strip()
        if not unused and not size:
            raise ValueError("Say what may go: what was not used for a while, or what is too much.")
        seconds = float(parse_duration(unused)) if unused else None
        return Plan(seconds, int(parse_size(size)) if size else None)

    def _show_step(self) -> None:
        if self._work is not None:
            step = f"looking: {self._work.step or 'beginning'} (ctrl+c ends it)"
            self._say(fmt.plain(step, "cyan"))

    def _known(self, plan: Plan, pruned: Pruned) -> None:
        self._work = None
        self.query_one("#look", Button).disabled = False
        text = Text()
        if pruned.bytes:
            text.append(f"{fmt.size(pruned.bytes)} would go", style="bold")
            text.append(f", {fmt.size(pruned.left)} stay.\n")
        else:
            text.append("Nothing would go.\n", style="bold")
        if pruned.busy:
            text.append(f"{len(pruned.busy)} more would, but a job uses them.\n", style="yellow")
        keys = [key[:8] for key in pruned.environments]
        for what, names in (("environment", keys), ("package", pruned.packages)):
            if names:
                text.append("\n")
                text.append_text(fmt.plain(f"{fmt.count(len(names), what)}: {', '.join(names)}"))
        self._say(text)
        self._looked = plan if pruned.bytes and plan == self._plan_now() else None
        self.query_one("#go", Button).disabled = self._looked is None
        self.query_one("#cancel").focus()

    def _plan_now(self) -> Plan | None:
        try:
            return self._plan()
        except ValueError:
            return None

    def _failed(self, error: StokeError) -> None:
        self._work = None
        self.query_one("#look", Button).disabled = False
        if isinstance(error, GivenUpError):
            self._say(Text("Ended; nothing was touched."))
        else:
            self._say(fmt.error_text(error))

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "look":
            self._begin()
        elif event.button.id == "go" and self._looked is not None:
            self.dismiss(self._looked)
        else:
            self.dismiss(None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        return self._work is not None if action == "end" else True

    def action_end(self) -> None:
        if self._work is not None:
            self._work.give_up()

    def action_cancel(self) -> None:
        self.dismiss(None)


def _typed(size: int | None) -> str:
    """What reads back as `size`: `20g`."""
    if size is None:
        return ""
    for power, unit in ((3, "g"), (2, "m"), (1, "k")):
        if size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)
