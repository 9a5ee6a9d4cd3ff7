"""Choice of the cluster and namespace, for backends that have several."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, Input, Select, Static

from stoke.backend.capabilities import ClusterContext
from stoke.errors import StokeError
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.widgets.line_input import SafeInput

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_CONFIGURED = ""


class ClusterChoice(Vertical):
    """Hidden until `show`. A valid choice is posted as `Changed`."""

    class Changed(Message):
        def __init__(self, context: str | None, namespace: str | None) -> None:
            super().__init__()
            self.place = (context, namespace)

    class Allow(Message):
        """The user allows the program that gets the chosen context's credentials."""

        def __init__(self, plugin: str) -> None:
            super().__init__()
            self.plugin = plugin

    def __init__(self) -> None:
        super().__init__(id="cluster")
        self._contexts: Sequence[ClusterContext] = ()
        self._place: tuple[str | None, str | None] | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(classes="field-line"):
            yield Static(Text("context"), classes="field-label")
            # No later option has this value: with the same value, the first label would stay.
            yield Select([("", "?")], allow_blank=False, id="context", compact=True)
        with Horizontal(classes="field-line"):
            yield Static(Text("namespace"), classes="field-label")
            yield SafeInput(compact=True, id="namespace")
        yield Static(id="cluster-note", classes="field-below")
        yield Button("Allow the program ...", id="allow-plugin", compact=True)

    def on_mount(self) -> None:
        self.display = False
        self._show_note()

    def show(
        self, contexts: Sequence[ClusterContext], context: str | None, namespace: str | None
    ) -> None:
        """Show these contexts, and which context and namespace are chosen."""
        self._contexts = contexts
        self._place = (context, namespace)
        names = [one.name for one in contexts]
        options = [(_label(one), one.name) for one in contexts]
        if context is not None and context not in names:
            options.append((Content(f"{clean(context)} (gone)"), context))
        select = self.query_one("#context", Select)
        with self.prevent(Select.Changed, Input.Changed):
            current = next((f": {one.name}" for one in contexts if one.current), "")
            configured = Content(clean(f"as configured{current}"))
            select.set_options([(configured, _CONFIGURED), *options])
            select.value = context or _CONFIGURED
            self.query_one(Input).value = namespace or ""
        self.display = True
        self._show_note()

    def refuse(self, error: StokeError) -> None:
        """Show an error that concerns all contexts."""
        self.display = True
        self._show_note()
        note = self.query_one("#cluster-note", Static)
        note.update(fmt.error_text(error))
        note.display = True

    @property
    def _chosen(self) -> ClusterContext | None:
        """The context in use: the chosen one, or else the current one."""
        value = self.query_one("#context", Select).value
        for one in self._contexts:
            if one.name == value or (value == _CONFIGURED and one.current):
                return one
        return None

    @on(Select.Changed, "#context")
    @on(Input.Changed, "#namespace")
    def _changed(self, event: Message) -> None:
        event.stop()
        self._show_note()
        namespace = self.query_one(Input).value.strip()
        if namespace and not _NAMESPACE.fullmatch(namespace):
            return
        chosen = self._chosen
        if chosen is not None and chosen.trouble:
            return
        value = self.query_one("#context", Select).value
        context = value if isinstance(value, str) and value != _CONFIGURED else None
        place = (context, namespace or None)
        # Select posts its first value late, when another one may be shown already.
        if self._place is not None and place != self._place:
            self._place = place
            self.post_message(self.Changed(*place))

    def _show_note(self) -> None:
        chosen = self._chosen
        box = self.query_one(Input)
        box.placeholder = clean(chosen.namespace) if chosen else "as configured"
        asked = chosen is not None and chosen.plugin is not None and not chosen.allowed
        self.query_one("#allow-plugin").display = asked
        namespace = box.value.strip()
        note = Text()
        if namespace and not _NAMESPACE.fullmatch(namespace):
            why = f"{namespace[:80]!r} is not the name of a namespace; use a-z, 0-9 and -"
            note = fmt.plain(why, "bold $bad")
        elif chosen is not None and chosen.trouble:
            note = fmt.plain(f"{chosen.name} cannot be used: {chosen.trouble}", "bold $bad")
        elif chosen is not None and asked:
            note = fmt.plain("runs a program on this machine for credentials, ", "$warn")
            note.append(f"by {clean(chosen.plugin or '')}")
        self.query_one("#cluster-note", Static).update(note)
        self.query_one("#cluster-note").display = bool(note)

    @on(Button.Pressed, "#allow-plugin")
    def _allow(self, event: Button.Pressed) -> None:
        event.stop()
        chosen = self._chosen
        if chosen is not None and chosen.plugin is not None:
            self.post_message(self.Allow(chosen.plugin))


def _label(context: ClusterContext) -> Content:
    mark = " (current)" if context.current else " (unusable)" if context.trouble else ""
    return Content(clean(f"{context.name}{mark}  {context.server}"))
