"""Cache metrics from the history: hits, saved time and bytes, packages, predictions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from stoke.cache.metrics import CacheFigures, Point, PredictionFigures, read_metrics
from stoke.history.cache_runs import PackageUse
from stoke.history.database import CacheSize, History
from stoke.history.job import Job, JobState, Phase, Prediction


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "h.sqlite")


def add(
    history: History,
    at: float,
    hit: bool | None,
    seconds: float | None,
    received: int | None = None,
    *,
    cached: int | None = None,
    packages: int | None = 4,
    spec: str | None = None,
    kind: str = "python",
    **fields: Any,
) -> None:
    known = {"backend": "docker", "scope": "default", "request_hash": "r", "python_hash": "p"}
    job = Job(
        id=f"job-{at}", name="job", state=JobState.SUCCEEDED, submitted_at=at, **known | fields
    )
    history.add(job, spec, None)
    history.set_phase(job.id, Phase(kind, at, seconds, hit, packages, cached, received))


def figures(history: History, **where: Any) -> CacheFigures:
    (one,) = read_metrics(history, **where).figures
    return one


def test_nothing_known_is_none_and_not_zero(history: History) -> None:
    empty = read_metrics(history)
    assert (empty.figures, empty.packages, empty.over_time) == ((), (), {})
    assert empty.prediction == PredictionFigures(0, 0, None)
    add(history, 1, None, 1)
    add(history, 2, False, None)
    assert read_metrics(history).figures == ()
    add(history, 3, True, 1.0, 0)
    # A hit without a recorded miss has no known savings.
    only = CacheFigures("docker", "default", "python", 1, 1, 1.0, None, 1.0, None, None)
    assert figures(history) == only


def test_a_single_miss_reports_no_saving(history: History) -> None:
    add(history, 1, False, 9, 100)
    assert figures(history) == CacheFigures(
        "docker", "default", "python", 1, 0, 0.0, 9, None, None, None
    )


def test_a_hit_saves_the_time_of_the_latest_cold_run_of_its_request(history: History) -> None:
    # In any order in which programs wrote them.
    add(history, 4, True, 1.0, 100)
    add(history, 5, False, 70.0, 7000, python_hash="another")
    add(history, 1, False, 9.0, 900)
    add(history, 2, True, 1.0, 0)
    add(history, 3, False, 5.0, 500)
    one = figures(history)
    assert (one.jobs, one.hits, one.hit_rate) == (5, 2, 0.4)
    assert (one.saved_seconds, one.saved_bytes) == (12.0, 1300)
    assert (one.cold_seconds, one.warm_seconds) == (9.0, 1.0)


def test_a_run_that_found_some_packages_is_not_the_cold_one(history: History) -> None:
    """The environment went, its packages stayed: what the cache saved is still all of the cold run."""
    add(history, 1, False, 10.0, 1000, cached=0)
    add(history, 2, False, 2.0, 0, cached=4)
    add(history, 3, True, 1.0, 0, cached=4)
    one = figures(history)
    assert (one.saved_seconds, one.saved_bytes) == (8.0 + 9.0, 2000)


def test_a_cold_run_before_the_time_asked_for_still_measures(history: History) -> None:
    add(history, 1, False, 9.0, 900)
    add(history, 100, True, 1.0, 0)
    one = figures(history, since=50)
    assert (one.jobs, one.hits, one.cold_seconds, one.saved_seconds) == (1, 1, None, 8.0)
    assert read_metrics(history, since=101).figures == ()


def test_every_cache_has_figures_of_its_own(history: History) -> None:
    add(history, 1, False, 9, 9)
    add(history, 2, True, 1, 0, scope="other")
    add(history, 3, True, 1, 0, backend="local")
    add(history, 4, False, 3, kind="system", system_hash="s")
    every = read_metrics(history).figures
    assert [(one.backend, one.scope, one.kind, one.hit_rate) for one in every] == [
        ("docker", "default", "python", 0.0),
        ("docker", "default", "system", 0.0),
        ("docker", "other", "python", 1.0),
        ("local", "default", "python", 1.0),
    ]
    # A hit is measured against a cold run in its own place only.
    assert {one.saved_seconds for one in every} == {None}
    assert figures(history, scope="other").scope == "other"
    assert figures(history, backend="local").backend == "local"


def test_bytes_that_could_not_be_counted_stay_unknown(history: History) -> None:
    add(history, 1, False, 9, None)
    add(history, 2, True, 1, None)
    one = figures(history)
    assert (one.hit_rate, one.saved_seconds, one.saved_bytes) == (0.5, 8.0, None)


def test_uncached_and_failed_jobs_count_neither_as_hits_nor_as_misses(history: History) -> None:
    add(history, 1, False, 9, spec='{"use_cache": false}')
    add(history, 2, False, 0.1, packages=None)
    assert read_metrics(history).figures == ()


def test_over_time_has_stretches_of_equal_length(history: History) -> None:
    now = time.time()
    add(history, now - 95, False, 9)
    add(history, now - 5, True, 1)
    add(history, now - 4, True, 1, scope="other", python_hash="q")
    add(history, now + 60, True, 1)  # a clock that is ahead
    over_time = read_metrics(history, since=now - 100, buckets=10).over_time
    points = over_time["docker", "default", "python"]
    assert [(point.jobs, point.hits) for point in points] == [(1, 0), *[(0, 0)] * 8, (2, 2)]
    assert points[0] == Point(now - 100, 1, 0)
    other = over_time["docker", "other", "python"]
    assert [point.at for point in other] == [point.at for point in points]


def test_packages_are_counted_by_the_jobs_that_name_them(history: History) -> None:
    history.add_asked("r", "python", ["numpy", "pandas"])
    history.add_asked("r", "python", ["numpy", "pandas"])
    history.add_asked("q", "python", ["numpy"])
    history.add_asked("q", "system", ["gcc"])
    add(history, 1, True, 1)
    add(history, 2, True, 1)
    add(history, 3, True, 1, request_hash="q")
    add(history, 4, True, 1, request_hash="q", scope="other")
    for job in ("job-3", "job-4"):
        history.set_phase(job, Phase("system", 3, 1, True, 1))
    # A job whose packages were never found used none.
    history.add_asked("typo", "python", ["nunpy"])
    add(history, 5, None, 1, request_hash="typo", packages=None)
    assert read_metrics(history).packages == (
        PackageUse("numpy", "python", 4),
        PackageUse("gcc", "system", 2),
        PackageUse("pandas", "python", 2),
    )
    assert read_metrics(history, since=3, scope="default").packages == (
        PackageUse("gcc", "system", 1),
        PackageUse("numpy", "python", 1),
    )


def test_a_prediction_counts_as_right_if_it_matches_hit_or_no_hit(history: History) -> None:
    add(history, 1, True, 1, predicted=Prediction("hit"))
    add(history, 2, False, 1, cached=2, predicted=Prediction("miss"))
    add(history, 3, False, 1, cached=2, predicted=Prediction("partial"))
    add(history, 4, True, 1, predicted=Prediction("partial"))
    add(history, 5, False, 1, predicted=Prediction("hit"))
    add(history, 6, False, 1, kind="system", predicted=Prediction("hit", "miss"))
    add(history, 7, True, 1)  # nothing was predicted
    assert read_metrics(history).prediction == PredictionFigures(6, 4, 4 / 6, 3)


def test_sizes_are_those_of_the_place(history: History) -> None:
    here = CacheSize("docker", None, "default", "python", 10.0, 5, 1)
    there = CacheSize("local", None, "team", "python", 20.0, 6, 2)
    history.add_cache_size(here)
    history.add_cache_size(there)
    assert set(read_metrics(history).sizes) == {here, there}
    assert read_metrics(history, backend="docker").sizes == (here,)
    assert read_metrics(history, since=15).sizes == (there,)
