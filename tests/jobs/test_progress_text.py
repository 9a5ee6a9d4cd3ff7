"""The progress of a phase in words."""

from __future__ import annotations

import pytest

from stoke.jobs.progress_text import progress_text
from stoke.remote.events import Event

FETCH: Event = {"event": "progress", "phase": "python", "stage": "fetch", "left": []}


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"packages": 1}, "fetching 1 package"),
        ({"packages": 41, "left": ["torch"]}, "fetching 41 packages: torch"),
        (
            {"packages": 41, "left": ["torch", "numpy"], "bytes": 120 << 20, "total": 840 << 20,
             "seconds": 12},
            "fetching 41 packages: 120 MiB of 840 MiB, about 12 s left, torch, numpy",
        ),
        ({"stage": "build", "packages": 1, "left": ["fit==1"]}, "building fit==1"),
        ({"stage": "build", "packages": 5, "left": ["a", "b", "c"]}, "building a, b, c and 2 more"),
        ({"stage": "install", "packages": 41}, "installing 41 packages"),
    ],
)  # fmt: skip
def test_progress_is_told_in_words(facts: Event, text: str) -> None:
    assert progress_text({**FETCH, **facts}) == text
