"""The phases of a job as a waterfall: when each began, how long it took, what the cache had."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.widget import Widget

from stoke.history.job import Job, Phase
from stoke.text.sanitize import clean
from tui import format as fmt

_HIT_STYLES = {True: "$good", False: "$warn", None: "$wait"}
_NAME_WIDTH = 8
_LEAST_BAR = 4
_ALIGNED = (6, 4, 10, 8)


def _is_told(phase: Phase) -> bool:
    """Return whether a line below the phase tells what it is doing."""
    return phase.seconds is None and bool(phase.activity)


class Waterfall(Widget):
    """Draws the job of the last call of `show`.

    An `aligned` waterfall has columns of fixed widths, so that bars of two of them compare, and nothing
    below the phases. A `brief` one has nothing below the phases either.
    """

    def __init__(
        self,
        *,
        id: str | None = None,  # noqa: A002
        aligned: bool = False,
        brief: bool = False,
    ) -> None:
        super().__init__(id=id)
        self._aligned = aligned
        self._brief = brief or aligned
        self._span = 0.0
        self._job: Job | None = None
        self._notes: Sequence[str] = ()
        self._now = 0.0

    def show(self, job: Job | None, notes: Sequence[str], now: float, span: float = 0.0) -> None:
        """Show a job at `now`, in epoch seconds, with notes of the runner below.

        The full width of the bars is the duration of the job, or `span` seconds if that is more.
        """
        before = self._rows()
        self._job, self._notes, self._now, self._span = job, notes, now, span
        # A layout of the screen at each tick would draw the log below again.
        self.refresh(layout=not self._brief or self._rows() != before)

    def _rows(self) -> int:
        """Return the height of a brief waterfall: a row for each phase, and one for what it does."""
        if self._job is None:
            return 0
        return max(1, len(self._job.phases) + sum(map(_is_told, self._job.phases)))

    def render(self) -> Text:
        job = self._job
        if job is None:
            return Text()
        text = Text(no_wrap=False, overflow="fold")
        if not job.phases:
            text.append("No phase reported yet.\n", style="$quiet")
        begin = min([job.submitted_at, *(phase.started_at for phase in job.phases)])
        end = self._end(job)
        figures = [self._figures(phase) for phase in job.phases]
        # A column without any known value is left out.
        widths = [
            0 if all(cell == fmt.UNKNOWN for cell in column) else max(map(len, column))
            for column in zip(*figures, strict=True)
        ]
        if self._aligned:
            widths = list(_ALIGNED)
        used = _NAME_WIDTH + sum(width + 1 for width in widths if width)
        bar = max(_LEAST_BAR, self.size.width - used)
        for phase, cells in zip(job.phases, figures, strict=True):
            text.append_text(self._bar(phase, begin, max(end - begin, self._span, 1e-6), bar))
            for width, cell in zip(widths, cells, strict=True):
                if width:
                    style = _HIT_STYLES[phase.hit] if cell in ("HIT", "MISS") else ""
                    # A phase without a cache has no figures for one.
                    shown = "" if cell == fmt.UNKNOWN else cell
                    text.append(f" {shown:>{width}}", style=style)
            text.append("\n")
            if _is_told(phase):
                line = Text(" " * _NAME_WIDTH + clean(phase.activity or ""), style="$quiet")
                line.truncate(max(1, self.size.width), overflow="ellipsis")
                text.append_text(line)
                text.append("\n")
        if not self._brief:
            text.append("\n")
            text.append_text(self._summary(job))
        else:
            text.rstrip()
        for note in self._notes:
            text.append("\n")
            text.append_text(fmt.block(note, "$warn"))
        return text

    def _end(self, job: Job) -> float:
        if job.finished_at is not None:
            return job.finished_at
        ends = [phase.started_at + (phase.seconds or 0) for phase in job.phases]
        return max([job.submitted_at, self._now, *ends])

    def _seconds(self, phase: Phase) -> float | None:
        """Return how long the phase took, or has taken so far."""
        if phase.seconds is None and self._job is not None and not self._job.state.finished:
            return max(0.0, self._now - phase.started_at)
        return phase.seconds

    def _figures(self, phase: Phase) -> tuple[str, str, str, str]:
        packages = fmt.UNKNOWN if phase.packages is None else f"{phase.packages:,}"
        if phase.packages is not None and phase.cached is not None:
            packages = f"{phase.cached:,} of {phase.packages:,}"
        seconds = fmt.duration(self._seconds(phase))
        return seconds, fmt.hit(phase.hit), packages, fmt.size(phase.bytes)

    def _bar(self, phase: Phase, begin: float, whole: float, bar: int) -> Text:
        first = min(bar - 1, int((phase.started_at - begin) / whole * bar))
        length = max(1, round((self._seconds(phase) or 0) / whole * bar))
        length = min(length, bar - first)
        ended = phase.seconds is not None or (self._job is not None and self._job.state.finished)
        style = _HIT_STYLES[phase.hit] if ended else "$busy"
        line = Text(no_wrap=True)
        line.append(f"{clean(phase.name):<{_NAME_WIDTH}}", style="bold")
        line.append(" " * first)
        line.append("━" * length, style=style)
        line.append(" " * (bar - first - length))
        return line

    def _summary(self, job: Job) -> Text:
        text = Text()
        rows = [
            ("environment", fmt.duration(job.environment_seconds)),
            ("received", fmt.size(job.received_bytes)),
            ("cpu", fmt.duration(job.cpu_seconds)),
            ("peak memory", fmt.size(job.peak_memory)),
            ("exit code", fmt.UNKNOWN if job.exit_code is None else str(job.exit_code)),
        ]
        kinds = (("python", job.predicted.python), ("system", job.predicted.system))
        words = {kind: word.upper() for kind, word in kinds if word}
        if words:
            named = [f"{kind} {word}" for kind, word in words.items()]
            expected = ", ".join(words.values() if len(words) == 1 else named)
            if job.predicted.seconds is not None:
                expected += f", {fmt.duration(job.predicted.seconds)}"
            rows.insert(0, ("predicted", expected))
        for name, value in rows:
            text.append(f"{name:<12}", style="$quiet")
            text.append(f"{clean(value)}\n")
        return text
