"""Compare the results of two jobs by name, size and digest."""

from __future__ import annotations

from dataclasses import dataclass

from stoke.results.collect import Collected, ResultFile


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


def compare_results(first: Collected, second: Collected) -> list[ResultChange]:
    """Return the differences, sorted by path."""
    before = {file.path: file for file in first.files}
    after = {file.path: file for file in second.files}
    return [
        ResultChange(path, before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
