"""One run of a race: its waterfall below a line with title and figures, and the end of its output."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Static

from stoke.history.job import Job
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.widgets.waterfall import Waterfall


class TitleLine(Widget):
    """A title on the left and figures on the right; a long title is cut."""

    DEFAULT_CSS = "TitleLine { height: 1; }"

    def __init__(self) -> None:
        super().__init__()
        self._title, self._figures = "", ""

    def show(self, title: str, figures: str) -> None:
        self._title, self._figures = clean(title), clean(figures)
        self.refresh()

    def render(self) -> Text:
        room = max(2, self.size.width - cell_len(self._figures) - 2)
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(fmt.fit(self._title, room), style="bold")
        return text.append("  ").append(self._figures)


class Lane(Vertical):
    """One of the two runs, drawn when something changes."""

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._shown: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        yield TitleLine()
        yield Waterfall(aligned=True)

    def show(self, title: str, job: Job | None, now: float, span: float, figures: str) -> None:
        is_running = job is not None and not job.state.finished
        shown = (title, figures, job, now if is_running else 0, span if job else 0)
        if shown == self._shown:
            return
        self._shown = shown
        self.query_one(TitleLine).show(title, figures)
        self.query_one(Waterfall).show(job, (), now, span)


class OutputTail(Vertical):
    """The last lines that a run has printed, as many as there is room for."""

    def __init__(self, title: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._title = title
        self._lines: Sequence[str] | None = None

    def compose(self) -> ComposeResult:
        yield Static(Text(self._title, style="$quiet"))
        yield _Lines()

    def show(self, lines: Sequence[str]) -> None:
        if lines != self._lines:
            self._lines = lines
            self.query_one(_Lines).show(lines)


class _Lines(Widget):
    DEFAULT_CSS = "_Lines { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self._lines: Sequence[str] = ()

    def show(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self.refresh()

    def render(self) -> Text:
        if not self._lines:
            return Text("No output yet.", style="$quiet")
        text = Text("\n", no_wrap=True, overflow="ellipsis")
        return text.join(Text(line) for line in self._lines[-max(1, self.size.height) :])
