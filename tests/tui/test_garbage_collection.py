"""Full garbage collections run between keys."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from textual.app import App

from tests.tui.conftest import until
from tui.garbage_collection import GarbageCollection


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


@pytest.mark.parametrize("why", ["QUIET_SECONDS", "LATEST_SECONDS"])
async def test_a_full_collection_waits_until_no_key_is_pressed(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    for name, seconds in (("CHECK", 0.01), ("QUIET", 3600.0), ("LATEST", 3600.0)):
        monkeypatch.setattr(f"tui.garbage_collection.{name}_SECONDS", seconds)
    app: App[None] = App()
    async with app.run_test() as pilot:
        garbage = GarbageCollection(app)
        knot = old_knot()
        for _ in range(10):
            garbage.key_pressed()
            await pilot.pause(0.02)
        assert knot() is not None
        monkeypatch.setattr(f"tui.garbage_collection.{why}", 0.0)
        await until(pilot, lambda: knot() is None)
