"""Predictions against what happened, on every backend: two hundred jobs with bad days in between."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stoke.backend.api import Volume
from stoke.cache.metrics import read_metrics
from stoke.cache.volumes import Housekeeper
from stoke.history.database import History
from stoke.history.job import Counts, JobState, Prediction
from tests.contract.test_cache_contract import Cache
from tests.lab import Lab
from tests.nix_cache import NixCache
from tests.package_index import PackageIndex
from tests.predictions import predict

JOBS = {"local": 200, "docker": 40, "argo": 24}
SEED = 20

# Most requests repeat a few packages.
REQUESTS = [
    ["one"], ["two"], ["most"], ["one", "three"], ["most", "three"], ["four"], ["two>=1", "four"],
    ["one<9"], ["most", "four", "three"], ["three<9"], ["one", "two", "three", "four"],
]  # fmt: skip
WEIGHTS = [30, 20, 20, 10, 8, 5, 5, 3, 3, 2, 2]


@pytest.fixture
def cache(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Cache]:
    cache = Cache(lab, request)
    yield cache
    cache.history.close()


@pytest.fixture
def index(index: PackageIndex) -> PackageIndex:
    for name in ("one", "two", "three", "four"):
        index.add(name, "1.0", size=200_000)
    index.add("most", "1.0", ["one", "two"], size=100_000)
    return index


@pytest.mark.timeout(900)  # two hundred jobs, on a machine that may be busy
def test_mixed_jobs_are_predicted(lab: Lab, cache: Cache, index: PackageIndex) -> None:
    """Unpredictable events happen too: a damaged environment, a release on the index."""
    chance = random.Random(SEED)
    releases = iter(range(1, 1000))
    upgraded = []
    jobs = JOBS[lab.backend.name]
    for number in range(jobs):
        day = chance.random() if number > 5 else 1.0
        if day < 0.04:
            cache.prune(max_bytes=int(cache.usage().bytes * chance.random()))
        elif day < 0.06:
            cache.clear()
        elif day < 0.08:
            environments = [one for one in (cache.folder / "venvs").glob("*") if one.is_dir()]
            if environments:
                (chance.choice(environments) / "stoke-environment.json").unlink()
        elif day < 0.10:
            name = chance.choice(["one", "two", "three", "four"])
            index.add(name, f"1.{next(releases)}", size=200_000)
            upgraded.append(name)
        (wanted,) = chance.choices(REQUESTS, WEIGHTS)
        outcome = lab.run(
            "pass",
            dependencies=chance.sample(wanted, len(wanted)),
            upgrade=chance.random() < 0.05,
            use_cache=chance.random() > 0.03,
        )
        assert outcome.job.state is JobState.SUCCEEDED, outcome.stderr
    told = read_metrics(cache.history).prediction
    print(
        f"{told.right} of {told.judged} right, {told.exact} exactly; new on the index: {upgraded}"
    )
    assert told.judged > jobs * 0.9
    assert told.rate is not None and told.rate >= 0.95


def test_after_pruning_and_clearing(lab: Lab, cache: Cache, index: PackageIndex) -> None:
    def told() -> Prediction:
        wanted = lab.request("pass", dependencies=["most"])
        return predict(wanted.spec, lab.backend.name, cache.history)

    assert told() == Prediction("miss")
    first = lab.run("pass", dependencies=["most"])
    assert told() == Prediction("hit")
    lab.run("pass", dependencies=["one"])
    pruned = cache.prune(max_bytes=cache.usage().bytes - 100_000)
    assert pruned.environments == (first.phase("python").key,)
    # Of most, one and two, only one is named by another request.
    assert told() == Prediction("partial", counts={"python": Counts(1, 3, named=False)})
    again = lab.run("pass", dependencies=["most"])
    assert (again.phase("python").cached, again.phase("python").packages) == (1, 3)
    cache.clear()
    assert told().python == "miss"


def test_environments_of_other_users_are_known_after_measuring(
    lab: Lab, cache: Cache, index: PackageIndex, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = lab.request("pass", dependencies=["most"]).spec
    with monkeypatch.context() as other_user:
        other_user.setenv("STOKE_STATE_DIR", str(own_home / "other-user"))
        lab.run("pass", dependencies=["most"])
    assert predict(wanted, lab.backend.name, cache.history) == Prediction("miss")
    cache.usage()
    assert predict(wanted, lab.backend.name, cache.history) == Prediction("hit")
    warm = lab.run("pass", dependencies=["most"])
    assert warm.phase("python").hit


def test_a_failing_cache_does_not_change_predictions(
    lab: Lab, cache: Cache, index: PackageIndex
) -> None:
    """A job that went on without the cache built nothing that another could find."""
    lab.run("pass", dependencies=["one"])
    shutil.rmtree(cache.folder / "venvs")
    (cache.folder / "venvs").write_text("in the way")
    alone = lab.run("pass", dependencies=["two"])
    assert alone.job.state is JobState.SUCCEEDED
    assert alone.phase("python").key is None
    wanted = lab.request("pass", dependencies=["two"]).spec
    assert predict(wanted, lab.backend.name, cache.history).python == "miss"


def test_system_packages_are_predicted_by_their_set(
    system_lab: Lab, nix: NixCache, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python packages, the job that built them and their order do not matter."""
    index = PackageIndex(system_lab.address)
    index.add("one", "1.0")
    system_lab.defaults["index"]["url"] = index.url
    with History() as history:

        def told(*system: str, **fields: Any) -> Prediction:
            wanted = system_lab.request("pass", system=system, **fields)
            return predict(wanted.spec, system_lab.backend.name, history)

        system_lab.run("pass", system=["tree", "leaf"])
        assert told("leaf", "tree").system == "hit"
        both = told("tree", "leaf", dependencies=["one"])
        assert (both.python, both.system) == ("miss", "hit")
        assert told("tree").counts == {"system": Counts(1, 1, named=True)}

        housekeeper = Housekeeper(history, 3600)

        def volume() -> Volume:
            found = housekeeper.volumes(system_lab.backend)
            (one,) = [it for it in found if (it.scope, it.kind) == (system_lab.scope, "system")]
            return one

        with monkeypatch.context() as other_user:
            other_user.setenv("STOKE_STATE_DIR", str(own_home / "other-user"))
            system_lab.run("pass", system=["tree"])
        usage = housekeeper.usage(system_lab.backend, volume(), lambda _: None)
        assert len(usage.requests) == 2
        assert told("tree").system == "hit"
        housekeeper.clear(system_lab.backend, volume(), lambda _: None)
        assert told("tree").system == "miss"
    index.stop()
