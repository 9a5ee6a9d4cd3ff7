"""The curves of a job's usage: bounded, with the peak of its memory, and removed with the job."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.history.database import History
from stoke.history.job import JobState, Usage
from stoke.history.usage import MOST_FIGURES, UsageCurves, resampled, thinned
from tests.history.records import job

figures = st.lists(
    st.tuples(st.floats(0.01, 500), st.floats(0, 64), st.integers(0, 1 << 40)),
    min_size=1,
    max_size=400,
).map(
    lambda rows: [
        Usage(1_000 + sum(row[0] for row in rows[: at + 1]), cores, memory)
        for at, (_, cores, memory) in enumerate(rows)
    ]
)


@given(figures, st.integers(1, 120))
def test_a_thinned_curve_is_short_in_order_and_keeps_the_peak(
    curve: list[Usage], count: int
) -> None:
    thin = thinned(curve, count)
    assert len(thin) <= count + 1
    assert [one.at for one in thin] == sorted(one.at for one in thin)
    assert thin[-1].at == curve[-1].at
    assert max(one.memory for one in thin) == max(one.memory for one in curve)
    least, most = min(one.cores for one in curve), max(one.cores for one in curve)
    assert all(least - 1e-6 <= one.cores <= most + 1e-6 for one in thin)


@given(figures, st.integers(1, 120))
def test_a_drawn_curve_has_only_measured_values(curve: list[Usage], count: int) -> None:
    drawn = resampled(curve, count)
    assert 1 <= len(drawn) <= max(1, count)
    assert {one.cores for one in drawn} <= {one.cores for one in curve}
    if count > 1:
        assert max(one.memory for one in drawn) == max(one.memory for one in curve)


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History(tmp_path / "h.sqlite")
    running = job()
    running.state = JobState.RUNNING
    history.add(running, None, None)
    return history


def test_a_curve_stays_bounded_however_long_the_job_runs(history: History) -> None:
    curves = UsageCurves(history)
    for number in range(3 * MOST_FIGURES):
        curves.add("fit-aaaaaa", Usage(100.0 + 2 * number, 1.5, number * 1000))
    curve = curves.of("fit-aaaaaa")
    assert MOST_FIGURES // 2 <= len(curve) <= MOST_FIGURES
    assert curve[-1].memory == (3 * MOST_FIGURES - 1) * 1000
    assert all(one.cores == pytest.approx(1.5) for one in curve)
    assert curves.recent(12)["fit-aaaaaa"] == tuple(curve[-12:])


def test_a_log_that_is_read_again_adds_nothing(history: History) -> None:
    curves = UsageCurves(history)
    for at in (10.0, 12.0, 10.0, 12.0, 14.0):
        curves.add("fit-aaaaaa", Usage(at, 0.5, 1000))
    assert [one.at for one in curves.of("fit-aaaaaa")] == [10.0, 12.0, 14.0]


def test_a_curve_goes_with_its_job_and_a_damaged_one_is_empty(history: History) -> None:
    curves = UsageCurves(history)
    curves.add("fit-aaaaaa", Usage(10.0, 0.5, 1000))
    curves.add("no-such-job", Usage(10.0, 0.5, 1000))
    history.query("UPDATE usage SET curve = 'nonsense'")
    assert curves.of("fit-aaaaaa") == []
    assert curves.recent(3) == {"fit-aaaaaa": ()}
    history.remove("fit-aaaaaa")
    assert history.query("SELECT count(*) FROM usage")[0][0] == 0
