"""The curves of processor time and memory of jobs. A curve has a bounded number of figures."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

from stoke.history.database import History
from stoke.history.job import Usage
from stoke.history.rows import LATEST

MOST_FIGURES = 200
"""Of one job. A full curve is thinned out to half of that."""
MOST_RECENT = 100
"""The most jobs whose newest figures are read."""
_FIGURE = struct.Struct("<dfQ")


class UsageCurves:
    """Read and write the curves, which are stored in the history."""

    def __init__(self, history: History) -> None:
        self._history = history

    def add(self, job_id: str, figure: Usage) -> None:
        """Add a figure to a job's curve, unless it is not newer than the last one."""
        with self._history.transaction():
            curve = self.of(job_id)
            if curve and figure.at <= curve[-1].at:
                return  # A log that is read again reports it again.
            curve.append(figure)
            if len(curve) > MOST_FIGURES:
                curve = thinned(curve, MOST_FIGURES // 2)
            self._history.query(
                "INSERT OR REPLACE INTO usage SELECT id, ?2, ?3, ?4, ?5 FROM jobs WHERE id = ?1",
                (job_id, figure.at, figure.cores, figure.memory, _packed(curve)),
            )

    def of(self, job_id: str) -> list[Usage]:
        """Return the curve of a job, oldest first; empty if there is none or it is damaged."""
        rows = self._history.query("SELECT curve FROM usage WHERE job_id = ?", (job_id,))
        return _unpacked(rows[0]["curve"]) if rows else []

    def recent(self, count: int) -> dict[str, tuple[Usage, ...]]:
        """Return up to `count` newest figures of each job that runs."""
        rows = self._history.query(
            "SELECT id, substr(curve, -?1) AS tail FROM jobs JOIN usage ON job_id = id "
            "WHERE state = 'running' ORDER BY submitted_at DESC LIMIT ?2",
            (count * _FIGURE.size, MOST_RECENT),
        )
        return {row["id"]: tuple(_unpacked(row["tail"])) for row in rows}


def thinned(curve: Sequence[Usage], count: int) -> list[Usage]:
    """Return at most `count` + 1 figures, each for an equal stretch of time.

    Processor time is averaged, and memory is the most of the stretch, so the peak stays.
    """
    first = curve[0].at
    length = max(curve[-1].at - first, 1e-9) / count
    stretches: dict[int, list[tuple[float, Usage]]] = {}
    before = first
    for figure in curve:
        at = int((figure.at - first) / length)
        stretches.setdefault(at, []).append((max(figure.at - before, 1e-9), figure))
        before = figure.at
    return [
        Usage(
            stretch[-1][1].at,
            sum(lasted * one.cores for lasted, one in stretch) / sum(time for time, _ in stretch),
            max(one.memory for _, one in stretch),
        )
        for stretch in stretches.values()
    ]


def resampled(curve: Sequence[Usage], count: int) -> list[Usage]:
    """Return at most `count` figures for equal stretches of time, to draw them side by side.

    Each figure covers the time since the previous one, so a stretch without a figure gets the next.
    """
    if len(curve) < 2 or count < 2:
        return list(curve[-1:])
    first, last = curve[0].at, curve[-1].at
    count = min(count, len(curve))
    length = max(last - first, 1e-9) / count
    found = []
    at = 0
    for number in range(count):
        end = first + (number + 1) * length if number < count - 1 else math.inf
        begin = at
        while at < len(curve) and curve[at].at <= end:
            at += 1
        part = curve[begin:at] or curve[at : at + 1] or curve[-1:]
        most = max(part, key=lambda one: one.cores)
        found.append(Usage(part[-1].at, most.cores, max(one.memory for one in part)))
    return found


def _packed(curve: Iterable[Usage]) -> bytes:
    return b"".join(_FIGURE.pack(one.at, one.cores, one.memory) for one in curve)


def _unpacked(data: object) -> list[Usage]:
    if not isinstance(data, bytes) or len(data) % _FIGURE.size or len(data) > _FIGURE.size * 1024:
        return []
    curve = [Usage(*figures) for figures in _FIGURE.iter_unpack(data)]
    return [
        one
        for one in curve
        if 0 <= one.at <= LATEST and math.isfinite(one.cores) and one.memory < 1 << 62
    ]
