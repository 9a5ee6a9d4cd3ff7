"""Curves over time: hit rates and sizes of several caches together."""

from __future__ import annotations

from stoke.cache.metrics import Point
from stoke.history.database import CacheSize
from tui.format import share
from tui.metrics.cache_figures import hit_rates, total_sizes
from tui.widgets.plots import MOST_POINTS, thinned


def test_hit_rates_of_several_caches_add_up_and_leave_out_empty_stretches() -> None:
    one = (Point(0.0, 4, 1), Point(10.0, 0, 0), Point(20.0, 2, 2))
    other = (Point(0.0, 4, 3), Point(10.0, 0, 0), Point(20.0, 2, 0))
    assert hit_rates([one, other]) == [(0.0, 0.5), (20.0, 0.5)]
    assert hit_rates([]) == []


def test_sizes_of_several_volumes_add_up_as_they_are_measured() -> None:
    def measured(scope: str, at: float, size: int) -> CacheSize:
        return CacheSize("local", None, scope, "python", at, size, 1)

    sizes = [measured("a", 1, 10), measured("b", 2, 5), measured("a", 3, 1)]
    assert total_sizes(sizes) == [(1, 10), (2, 15), (3, 6)]


def test_thinning_keeps_the_last_point() -> None:
    points = [(float(number), float(number % 7)) for number in range(10_000)]
    few = thinned(points)
    assert len(few) <= MOST_POINTS + 1 and few[-1] == points[-1]
    assert thinned(points[:50]) == points[:50]
    assert thinned([(1.0, 2.0)] * 1000) == [(1.0, 2.0)]


def test_a_share_below_one_is_never_shown_as_100_percent() -> None:
    assert [share(part) for part in (None, 0, 0.001, 0.5, 0.999, 1)] == [
        "-", "0%", "1%", "50%", "99%", "100%",
    ]  # fmt: skip
