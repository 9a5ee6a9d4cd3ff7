"""The budget of a scope's volumes, and what is removed first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stoke.cache.volumes import CachedEnvironment, Usage, share_out


def usage(garbage: int, *entries: tuple[float, int, bool]) -> Usage:
    """Entries are (last used, bytes, busy)."""
    made = tuple(
        CachedEnvironment(str(number), size, size, None, used, 1, (), busy)
        for number, (used, size, busy) in enumerate(entries)
    )
    return Usage(garbage + sum(one.bytes for one in made), 0, garbage, 0.0, made)


entries = st.tuples(st.floats(1, 1e9), st.integers(1, 100), st.booleans())
volumes = st.builds(
    lambda garbage, made: usage(garbage, *made),
    st.integers(0, 100),
    st.lists(entries, max_size=6, unique_by=lambda one: one[0]),
)


@given(st.lists(volumes, min_size=1, max_size=3), st.integers(0, 1000))
def test_shares_keep_the_budget_and_take_what_was_used_least_recently(
    usages: list[Usage], budget: int
) -> None:
    limits = share_out(usages, budget)
    kept = [
        usage.bytes if limit is None else limit for usage, limit in zip(usages, limits, strict=True)
    ]
    total = sum(usage.bytes for usage in usages)
    can_go = total - sum(one.bytes for usage in usages for one in usage.environments if one.busy)
    if total - can_go > budget:
        assert kept == [0] * len(usages)
        return
    assert sum(kept) == min(total, budget)
    # An entry goes only after all garbage, and after all that were used before it.
    going = [usage.bytes - size for usage, size in zip(usages, kept, strict=True)]
    from_entries = [size - usage.garbage for usage, size in zip(usages, going, strict=True) if size]
    if any(size > 0 for size in from_entries):
        assert all(size >= 0 for size in from_entries)
        assert all(limit is not None for usage, limit in zip(usages, limits, strict=True)
                   if usage.garbage)  # fmt: skip


def test_a_volume_from_which_nothing_has_to_go_gets_no_limit() -> None:
    python = usage(0, (10.0, 50, False))
    system = usage(5, (20.0, 50, False))
    assert share_out([python, system], 105) == [None, None]
    assert share_out([python, system], 102) == [None, 52]
    assert share_out([python, system], 60) == [10, 50]
    assert share_out([python, system], 40) == [0, 40]
