"""The history in the pictures of the documentation."""

from __future__ import annotations

from pathlib import Path

from stoke.history.job import JobState
from stoke.jobs.compare import compare
from tools import example_history


def test_it_has_jobs_in_every_state_on_each_backend(own_home: Path) -> None:
    with example_history.opened() as history:
        jobs = history.list()
        assert {job.state for job in jobs} == {*JobState} - {JobState.LOST}
        assert {job.backend for job in jobs} == {"local", "docker", "argo"}
        reasons = {(job.reason or "").partition(": ")[0] for job in jobs}
        assert {"timeout", "out of memory", "stopped", "no node accepts it", "lock"} <= reasons


def test_two_of_its_jobs_differ_in_everything(own_home: Path) -> None:
    with example_history.opened() as history:
        second, first, *_ = (
            job for job in history.list() if (job.name, job.state) == ("fit-model", "succeeded")
        )
        found = compare(first, second, history)
        assert {one.change for one in found.packages["python"]} == {"changed", "removed"}
        assert found.files and found.results is not None and found.results.changes
        assert found.code and not found.unknown
