"""Compare the results of two jobs by name, size and digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stoke.results.collect import Collected, ResultFile

DIGITS = 12
"""Of a digest that people read."""


@dataclass(frozen=True)
class ResultChange:
    """A result that only one of two jobs has, or that differs between them."""

    path: str
    first: ResultFile | None
    second: ResultFile | None

    @property
    def change(self) -> str:
        if self.first is None:
            return "added"
        return "removed" if self.second is None else "changed"

    def sides(self, size: Callable[[int], str]) -> list[str]:
        """Return a few words for each job that has the file: its size and the digest's beginning."""
        both = [file for file in (self.first, self.second) if file is not None]
        return [f"{size(file.size)} {file.sha256[:DIGITS]}" for file in both]


@dataclass(frozen=True)
class ResultsComparison:
    """The differences, sorted by path, and how many files are the same in both jobs."""

    changes: tuple[ResultChange, ...]
    same: int


def compare_results(first: Collected, second: Collected) -> ResultsComparison:
    before = {file.path: file for file in first.files}
    after = {file.path: file for file in second.files}
    changes = tuple(
        ResultChange(path, before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    )
    return ResultsComparison(changes, len(after) - sum(one.second is not None for one in changes))
