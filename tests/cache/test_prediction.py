"""The prediction before a job is submitted, from the history and its index of volumes alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoke.backend.api import Volume
from stoke.cache.keys import python_hash, request_hash, system_hash
from stoke.history.database import History
from stoke.history.job import Counts, Job, JobState, Phase, Prediction
from stoke.history.volume_index import ScopeCache, VolumeIndex
from stoke.request.spec import JobSpec, make_spec
from tests.predictions import predict

VOLUME = Volume("docker", "default", "python", "v")
HASH = "sha256:" + "a" * 64


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "h.sqlite")


def spec(**fields: Any) -> JobSpec:
    return make_spec({"code": "pass", **fields})


@pytest.fixture
def ran(history: History) -> Callable[..., None]:
    """A job that is over, as a tracker leaves it."""
    numbers = itertools.count(1)

    def run(
        wanted: JobSpec, key: str, hit: bool, seconds: float, *packages: str, cached: int = 0,
        kind: str = "python",
    ) -> None:  # fmt: skip
        number = next(numbers)
        hashes = (python_hash(wanted), system_hash(wanted))
        job = Job(
            f"past-{number:06}", "past", "docker", wanted.scope, JobState.QUEUED, number,
            request_hash=request_hash(wanted), python_hash=hashes[0], system_hash=hashes[1],
        )  # fmt: skip
        history.add(job, wanted.model_dump_json(), None)
        history.set_phase(job.id, Phase(kind, number, seconds, hit, 2, 2 if hit else cached))
        history.update(job.id, state=JobState.SUCCEEDED)
        place = ScopeCache("docker", wanted.scope, kind)
        VolumeIndex(history).record_use(place, key, number, hashes[kind == "system"], packages)

    return run


def test_nothing_is_predicted_where_nothing_is_asked_for(history: History) -> None:
    assert predict(spec(), "docker", history) == Prediction()


def test_a_request_that_was_answered_is_a_hit_there(
    history: History, ran: Callable[..., None]
) -> None:
    wanted = spec(dependencies=["numpy"])
    assert predict(wanted, "docker", history) == Prediction("miss")
    ran(wanted, "k", False, 5.0, "numpy==2.0")
    assert predict(wanted, "docker", history) == Prediction("hit")
    for seconds in (0.3, 0.1, 0.2):
        ran(wanted, "k", True, seconds)
    assert predict(wanted, "docker", history) == Prediction("hit", seconds=0.2)
    assert predict(wanted, "local", history) == Prediction("miss")
    assert predict(spec(dependencies=["pandas"]), "docker", history) == Prediction("miss")
    team = spec(dependencies=["numpy"], scope="team")
    assert predict(team, "docker", history) == Prediction("miss")


def test_another_system_package_changes_nothing_for_the_python_ones(
    history: History, ran: Callable[..., None]
) -> None:
    ran(spec(dependencies=["numpy"]), "k", False, 5.0, "numpy==2.0")
    both = spec(dependencies=["numpy"], system=["gcc"])
    assert predict(both, "docker", history) == Prediction("hit", "miss")
    ran(spec(system=["gcc"]), "s", False, 5.0, "gcc", kind="system")
    assert predict(both, "docker", history) == Prediction("hit", "hit")
    more = predict(spec(system=["gcc", "make"]), "docker", history)
    assert more == Prediction(None, "partial", None, {"system": Counts(1, 2, named=True)})


def test_after_pruning_the_lockfile_predicts_the_remaining_packages(
    history: History, ran: Callable[..., None]
) -> None:
    wanted = spec(dependencies=["beta"])
    ran(wanted, "k", False, 9.0, "alpha==1", "beta==1")
    ran(wanted, "k", False, 4.0, "alpha==1", "beta==1", cached=1)
    ran(spec(dependencies=["alpha"]), "other", False, 2.0, "alpha==1")
    VolumeIndex(history).record_removal(VOLUME, ["k"], 50)
    told = predict(wanted, "docker", history)
    # The time is that of the run that went like this.
    assert told == Prediction("partial", None, 4.0, {"python": Counts(1, 2, named=False)})
    VolumeIndex(history).record_removal(VOLUME, ["other"], 51)
    assert predict(wanted, "docker", history) == Prediction("miss", seconds=9.0)


def test_an_unknown_request_counts_the_packages_it_names(
    history: History, ran: Callable[..., None]
) -> None:
    ran(spec(dependencies=["numpy", "pandas"]), "k", False, 5.0, "numpy==2.0", "pandas==2.1")
    new = spec(dependencies=["Pandas>=2"], requirements="torch\n")
    told = predict(new, "docker", history)
    assert told == Prediction("partial", None, None, {"python": Counts(1, 2, named=True)})


def test_an_unknown_lockfile_is_a_hit_where_its_environment_is_cached(
    history: History, ran: Callable[..., None]
) -> None:
    ran(spec(dependencies=["numpy"]), "k", False, 5.0, "numpy==2.0", "six==1.0")
    lines = [f"numpy==2.0 --hash={HASH}", f"six==1.0 --hash={HASH}", f"torch==3 --hash={HASH}"]
    whole, part, more = "\n".join(lines[:2]), lines[0], "\n".join(lines)
    assert predict(spec(requirements=whole, locked=True), "docker", history) == Prediction("hit")
    counts = {
        text: predict(spec(requirements=text, locked=True), "docker", history).counts["python"]
        for text in (part, more)
    }
    assert counts == {part: Counts(1, 1, named=False), more: Counts(2, 3, named=False)}
    # The same lines without `locked` may need more packages than they name.
    open_ended = predict(spec(requirements=whole), "docker", history)
    assert open_ended.counts["python"] == Counts(2, 2, named=True)


def test_requirements_with_markers_are_not_counted(
    history: History, ran: Callable[..., None]
) -> None:
    """Whether it is installed depends on the interpreter of the job."""
    ran(spec(dependencies=["numpy"]), "k", False, 5.0, "numpy==2.0", "six==1.0")
    marked = "torch==3 ; sys_platform == 'win32'"
    asked = spec(dependencies=["numpy>=2", "torch ; sys_platform == 'win32'"])
    assert predict(asked, "docker", history).counts["python"] == Counts(1, 1, named=True)
    text = f"numpy==2.0 --hash={HASH}\n{marked} --hash={HASH}\n"
    lock = spec(requirements=text, locked=True)
    told = predict(lock, "docker", history)
    assert told == Prediction("partial", None, None, {"python": Counts(1, 1, named=False)})


def test_without_the_cache_everything_is_built(history: History, ran: Callable[..., None]) -> None:
    ran(spec(dependencies=["numpy"]), "k", True, 0.1, "numpy==2.0")
    told = predict(spec(dependencies=["numpy"], use_cache=False), "docker", history)
    assert told == Prediction("miss")
