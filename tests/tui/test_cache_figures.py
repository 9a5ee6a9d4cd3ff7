"""Curves over time: hit rates and sizes of several caches together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from stoke.cache.metrics import Point
from stoke.history.database import CacheSize
from tui.format import cut_distinct, share
from tui.metrics.cache_figures import hit_rates, total_sizes
from tui.widgets.plots import MOST_POINTS, steps, thinned


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


def test_charts_draw_no_value_that_was_not_measured() -> None:
    points = [(0.0, 3.0), (10.0, 1.0)]
    assert steps(points, None, 30.0) == [[(0, 3), (10, 3), (10, 1), (30, 1)]]
    # An interval of hit rates ends at the present, and none without jobs is crossed.
    assert steps(points, 4.0, 12.0) == [[(0, 3), (4, 3)], [(10, 1), (12, 1)]]


def test_long_names_lose_their_middle() -> None:
    names = [f"bench-9b1c56f0-e{number}" for number in range(3)]
    assert cut_distinct([*names, "default"], 10) == {
        names[0]: "bench…0-e0", names[1]: "bench…0-e1", names[2]: "bench…0-e2", "default": "default",
    }  # fmt: skip


@given(st.lists(st.text("ab日-", min_size=1, max_size=30), unique=True, max_size=30))
def test_cut_names_fit_and_stay_different(names: list[str]) -> None:
    shown = cut_distinct(names, 7)
    assert set(shown) == set(names)
    assert len(set(shown.values())) == len(names)
    assert all(cell_len(one) <= 7 for one in shown.values())
