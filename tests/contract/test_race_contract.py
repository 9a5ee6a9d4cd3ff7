"""A race on every backend: the cold run finds nothing, the warm one all, and the scope is gone."""

from __future__ import annotations

from typing import Any

import pytest

from stoke.backend.capabilities import ForgetsScopes
from stoke.backend.pool import Backends
from stoke.cache.scopes import is_ephemeral
from stoke.history.database import History
from stoke.history.job import Job
from stoke.race.race import Race, RunFailedError
from stoke.race.recording import missed
from tests.lab import Lab
from tests.package_index import PackageIndex


@pytest.fixture
def race(lab: Lab, index: PackageIndex) -> Any:
    """Makes a race of these fields, in a history of its own."""
    with History() as history:

        def make(code: str, **fields: Any) -> Race:
            request = lab.request(code, dependencies=["beta"], **fields)
            return Race(request, Backends(lab.config), lab.backend, history, lab.config)

        yield make


def scopes(lab: Lab) -> set[str]:
    return {volume.scope for volume in lab.backend.volumes()}


def known() -> list[Job]:
    with History() as history:
        return history.list()


def test_a_race(race: Any, lab: Lab) -> None:
    recording = race("import beta; print(beta.version)").run()
    cold, warm = recording.cold.at(), recording.warm.at()
    assert missed(cold) == ["lock", "python"] and missed(warm) == []
    assert is_ephemeral(recording.cold.scope) and recording.warm.scope == lab.scope
    assert recording.ratio is not None and recording.warmed is not None
    if lab.backend.capabilities.counts_bytes:
        assert recording.saved_bytes is not None and recording.saved_bytes > 0
    if isinstance(lab.backend, ForgetsScopes):
        assert recording.notes == []
    else:
        assert "used no cache at all" in recording.notes[0]
    assert recording.cold.scope not in scopes(lab)
    assert lab.scope in scopes(lab)
    assert {job.scope for job in known()} == {lab.scope}
    assert recording.cold.job not in {one.job_id for one in lab.backend.jobs()}


def test_a_race_that_fails_leaves_no_scope(race: Any, lab: Lab) -> None:
    before = scopes(lab)
    with pytest.raises(RunFailedError) as failed:
        race("print('so far'); raise SystemExit(7)").run()
    assert (failed.value.job.exit_code, failed.value.tail) == (7, ["so far"])
    assert not {scope for scope in scopes(lab) - before if scope == failed.value.job.scope}
    assert known() == []
