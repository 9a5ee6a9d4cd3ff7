"""The names of jobs in front of their lines, where a log window shows several logs as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.cells import cell_len

from stoke.history.job import Job
from tui import format as fmt

_SHARE = 4
"""The part of the window's width that a name takes at most."""
_LEAST, _MOST = 12, 28
COLOURS = 5


class Tags:
    """`owner` returns the place in `jobs` of the job that printed a row."""

    def __init__(self, jobs: Sequence[Job], owner: Callable[[int], int]) -> None:
        names = [job.name for job in jobs]
        # Jobs of one name differ in their ids.
        self.names = names if len(set(names)) == len(names) else [job.id for job in jobs]
        self.ids = [job.id for job in jobs]
        self.owner = owner
        self._fitted: tuple[int, list[str]] = (-1, [])

    def of(self, row: int) -> str:
        """Return the whole name in front of a row."""
        return self.names[self.owner(row)]

    def fitted(self, available: int) -> list[str]:
        """Return the names for a window of `available` columns, all in the same number of cells."""
        if self._fitted[0] != available:
            width = max(_LEAST, min(_MOST, available // _SHARE))
            cut = fmt.cut_distinct(self.names, width)
            width = min(width, max(cell_len(name) for name in cut.values()))
            self._fitted = (available, [fmt.fit(cut[name], width) for name in self.names])
        return self._fitted[1]
