"""The dialog for pruning: a dry run lists what would be deleted before the user confirms."""

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
from stoke.text.units import parse_duration, parse_size
from tui import format as fmt
from tui.dialogs.dialog import Dialog
from tui.threads import Work, WorkCancelledError, call_in, on_thread
from tui.widgets.line_input import SafeInput


@dataclass(frozen=True)
class Plan:
    """Delete what was unused for `unused` seconds, then the oldest until `max_bytes` are left."""

    unused: float | None
    max_bytes: int | None


class PruneCache(Dialog[Plan | None]):
    """Returns the plan to carry out. `dry_run` runs on a thread; `budget` is in bytes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="prune.cancel"),
        # With priority over the fields, in which ctrl+c copies.
        Binding("ctrl+c", "end", "Cancel the dry run", show=False, priority=True, id="prune.end"),
    ]

    def __init__(
        self, volume: Volume, budget: int | None, dry_run: Callable[[Plan, Progress], Pruned]
    ) -> None:
        super().__init__()
        self._volume = volume
        self._budget = budget
        self._dry_run = dry_run
        self._work: Work | None = None
        self._checked_plan: Plan | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text("Prune this cache?"), classes="dialog-title")
            yield Static(fmt.plain(fmt.place(self._volume.whole_name), "bold"))
            with Horizontal(classes="dialog-line"):
                yield Static(Text("unused for"), classes="dialog-label")
                yield SafeInput("30d", id="prune-unused", placeholder="30d, 12h", compact=True)
            with Horizontal(classes="dialog-line"):
                yield Static(Text("shrink to"), classes="dialog-label")
                yield SafeInput(
                    _typed(self._budget), id="prune-size", placeholder="10g, 500m", compact=True
                )
            with VerticalScroll(id="prune-what", can_focus=False):
                yield Static(id="prune-text")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel", id="cancel")
                yield Button("Dry run", id="look", variant="primary")
                yield Button("Prune", id="go", variant="error", disabled=True)

    def on_mount(self) -> None:
        self.query_one("#prune-unused").focus()
        self._show_text(
            Text(
                "A dry run lists what would be deleted. Environments in use are kept.",
                style="$quiet",
            )
        )

    def on_unmount(self) -> None:
        self.action_end()

    def _show_text(self, text: Text) -> None:
        self.query_one("#prune-text", Static).update(text)

    @on(Input.Changed)
    def _changed(self) -> None:
        """Ask for another dry run."""
        self._checked_plan = None
        self.query_one("#go", Button).disabled = True

    @on(Input.Submitted)
    def _start_dry_run(self) -> None:
        if self._work is not None:
            return
        try:
            plan = self._plan()
        except ValueError as error:
            self._show_text(fmt.plain(str(error), "$bad"))
            return
        work = Work("dry run", lambda: call_in(self, self._show_step))
        self._work = work
        self.query_one("#look", Button).disabled = True
        self._show_step()
        on_thread(
            self,
            lambda: self._dry_run(plan, work.progress),
            lambda pruned: self._show_result(plan, pruned),
            self._failed,
        )

    def _plan(self) -> Plan:
        """Return what was typed; `ValueError` says what is wrong with it."""
        unused = self.query_one("#prune-unused", Input).value.strip()
        size = self.query_one("#prune-size", Input).value.strip()
        if not unused and not size:
            raise ValueError("Enter an age, a size, or both.")
        seconds = float(parse_duration(unused)) if unused else None
        return Plan(seconds, int(parse_size(size)) if size else None)

    def _show_step(self) -> None:
        if self._work is not None:
            step = f"dry run: {self._work.step or 'starting'} (ctrl+c cancels)"
            self._show_text(fmt.plain(step, "$busy"))

    def _show_result(self, plan: Plan, pruned: Pruned) -> None:
        self._work = None
        self.query_one("#look", Button).disabled = False
        text = Text()
        if pruned.bytes:
            text.append(f"Frees {fmt.size(pruned.bytes)}", style="bold")
            text.append(f", keeps {fmt.size(pruned.left)}.\n")
        else:
            text.append("Nothing to delete.\n", style="bold")
        if pruned.busy:
            text.append(f"{len(pruned.busy)} more are in use and kept.\n", style="$warn")
        keys = [key[:8] for key in pruned.environments]
        for what, names in (("environment", keys), ("package", pruned.packages)):
            if names:
                text.append("\n")
                text.append_text(fmt.plain(f"{fmt.count(len(names), what)}: {', '.join(names)}"))
        if pruned.snapshots:
            text.append(f"\n{fmt.count(pruned.snapshots, 'snapshot')} of projects")
        self._show_text(text)
        self._checked_plan = plan if pruned.bytes and plan == self._plan_now() else None
        self.query_one("#go", Button).disabled = self._checked_plan is None
        self.query_one("#cancel").focus()

    def _plan_now(self) -> Plan | None:
        try:
            return self._plan()
        except ValueError:
            return None

    def _failed(self, error: StokeError) -> None:
        self._work = None
        self.query_one("#look", Button).disabled = False
        if isinstance(error, WorkCancelledError):
            self._show_text(Text("Cancelled; nothing was deleted."))
        else:
            self._show_text(fmt.error_text(error))

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "look":
            self._start_dry_run()
        elif event.button.id == "go" and self._checked_plan is not None:
            self.dismiss(self._checked_plan)
        else:
            self.dismiss(None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        return self._work is not None if action == "end" else True

    def action_end(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def action_cancel(self) -> None:
        self.dismiss(None)


def _typed(size: int | None) -> str:
    """Return the text that reads back as `size`: `20g`."""
    if size is None:
        return ""
    for power, unit in ((3, "g"), (2, "m"), (1, "k")):
        if size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)
