"""A clock that is set while a job runs."""

from __future__ import annotations

import time

import pytest

from stoke.remote.runner import clock


def test_the_times_of_a_job_stay_as_far_apart_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = clock.now()
    assert abs(before - time.time()) < 60
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert 0 <= clock.now() - before < 60
