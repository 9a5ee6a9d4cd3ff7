"""Full garbage collections run between keys."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from textual.app import App

from tests.tui.conftest import until
from tui.garbage_collection import LATEST_SECONDS, QUIET_SECONDS, GarbageCollection


class Knot:
    """A reference cycle, which only a garbage collection frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def old_knot() -> weakref.ref[Knot]:
    knot = Knot()
    gc.collect(0)
    gc.collect(1)
    assert any(one is knot for one in gc.get_objects(generation=2))
    return weakref.ref(knot)


@pytest.mark.parametrize(
    ("seconds", "key"), [(QUIET_SECONDS + 0.01, False), (LATEST_SECONDS + 0.01, True)]
)
async def test_a_full_collection_waits_until_no_key_is_pressed(seconds: float, key: bool) -> None:
    """A collection that has waited for `LATEST_SECONDS` does not wait any longer."""
    now = 1000.0
    readings = 0

    def clock() -> float:
        nonlocal readings
        readings += 1
        return now

    app: App[None] = App()
    async with app.run_test() as pilot:
        garbage = GarbageCollection(app, clock, check_seconds=0.01)
        knot = old_knot()
        garbage.key_pressed()
        before = readings
        await until(pilot, lambda: readings > before + 5, "several checks")
        assert knot() is not None
        now += seconds
        if key:
            garbage.key_pressed()
        await until(pilot, lambda: knot() is None)
