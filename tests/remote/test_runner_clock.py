"""Times of a job whose system clock is set."""

from __future__ import annotations

import time

import pytest

from stoke.remote.runner import clock


def test_setting_the_clock_does_not_change_differences_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = clock.now()
    assert abs(before - time.time()) < 60
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert 0 <= clock.now() - before < 60
