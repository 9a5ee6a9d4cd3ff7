"""The index of volumes: the newest report wins, in any order of arrival."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoke.backend.api import Volume
from stoke.history.database import History
from stoke.history.job import Counts
from stoke.history.volume_index import FORGOTTEN_AFTER, KnownEnvironment, ScopeCache, VolumeIndex

PLACE = ScopeCache("docker", "team", "python")
VOLUME = Volume("docker", "team", "python", "stoke-team-python")
R, Q = "r" * 64, "q" * 64
LOCK = ["alpha==1.0", "beta==2.0"]


@pytest.fixture
def index(tmp_path: Path) -> VolumeIndex:
    return VolumeIndex(History(tmp_path / "h.sqlite"))


def test_a_job_records_the_environment_of_its_request(index: VolumeIndex) -> None:
    assert index.environment_for(PLACE, R) is None
    index.record_use(PLACE, "k1", 10, R, LOCK)
    assert index.environment_for(PLACE, R) == KnownEnvironment("k1", True)
    assert index.environment_for(PLACE, Q) is None
    for other in (
        ScopeCache("local", "team", "python"),
        ScopeCache("docker", "default", "python"),
        ScopeCache("docker", "team", "system"),
    ):
        assert index.environment_for(other, R) is None
    # A newer lock: another environment; the older stays where it is.
    index.record_use(PLACE, "k2", 20, R, ["alpha==2.0"])
    assert index.environment_for(PLACE, R) == KnownEnvironment("k2", True)


def test_a_removed_environment_is_unknown_until_it_is_built_again(index: VolumeIndex) -> None:
    index.record_use(PLACE, "k1", 10, R, LOCK)
    index.record_removal(VOLUME, ["k1", "nobody-knows-this"], 20)
    assert index.environment_for(PLACE, R) == KnownEnvironment("k1", False)
    # Brought home late: it ran before the pruning.
    index.record_use(PLACE, "k1", 15, R)
    assert index.environment_for(PLACE, R) == KnownEnvironment("k1", False)
    index.record_use(PLACE, "k1", 30, R)
    assert index.environment_for(PLACE, R) == KnownEnvironment("k1", True)


def test_measuring_finds_changes_of_other_programs(index: VolumeIndex) -> None:
    index.record_use(PLACE, "k1", 10, R, LOCK)
    index.record_use(PLACE, "k3", 40, "w" * 64)
    index.record_measurement(VOLUME, {"k2": ["gamma==1"]}, {Q: "k2"}, 20)
    assert index.environment_for(PLACE, R) == KnownEnvironment("k1", False)
    assert index.environment_for(PLACE, Q) == KnownEnvironment("k2", True)
    # Built while it was measured.
    assert index.environment_for(PLACE, "w" * 64) == KnownEnvironment("k3", True)
    # An answer older than the measuring says nothing new.
    index.record_use(PLACE, "k9", 15, Q)
    assert index.environment_for(PLACE, Q) == KnownEnvironment("k2", True)


def test_cached_packages_of_a_removed_environments_lockfile_are_counted(index: VolumeIndex) -> None:
    index.record_use(PLACE, "k1", 10, R, LOCK)
    index.record_use(PLACE, "k2", 10, Q, ["alpha==1.0", "gamma==1.0"])
    index.record_removal(VOLUME, ["k1"], 20)
    assert index.count_of_lock(PLACE, "k1") == Counts(1, 2, named=False)
    index.record_removal(VOLUME, ["k2"], 30)
    assert index.count_of_lock(PLACE, "k1") == Counts(0, 2, named=False)
    assert index.count_of_lock(PLACE, "never") is None


def test_packages_by_name_and_as_written(index: VolumeIndex) -> None:
    index.record_use(PLACE, "k1", 10, R, ["Alpha_One==1.0", "beta==2.0"])
    index.record_use(PLACE, "k2", 10, Q, ["beta==1.0", "gamma @ https://h/gamma-1.whl"])
    assert index.count_names(PLACE, ["alpha-one", "beta", "gamma", "delta"]) == 3
    assert index.count_names(ScopeCache("docker", "other", "python"), ["beta"]) == 0
    assert index.count_packages(PLACE, ["beta==2.0", "beta==3.0"]) == 1
    assert index.count_packages(PLACE, ["beta==1.0", "Alpha_One==1.0"]) == 2
    index.record_removal(VOLUME, ["k1"], 20)
    assert index.count_packages(PLACE, ["beta==2.0", "Alpha_One==1.0"]) == 0


def test_an_environment_of_exactly_these_packages(index: VolumeIndex) -> None:
    index.record_use(PLACE, "k1", 10, R, ["Alpha_One==1.0", "beta==2.0"])
    index.record_use(PLACE, "k2", 10, Q, ["beta==1.0", "gamma==1.0"])
    assert index.has_environment_of(PLACE, ["beta==2.0", "Alpha_One==1.0"])
    # All of it is there, but in two environments; a part of one; one and more.
    assert not index.has_environment_of(PLACE, ["beta==1.0", "Alpha_One==1.0"])
    assert not index.has_environment_of(PLACE, ["beta==2.0"])
    assert not index.has_environment_of(PLACE, ["Alpha_One==1.0", "beta==2.0", "gamma==1.0"])
    index.record_removal(VOLUME, ["k1"], 20)
    assert not index.has_environment_of(PLACE, ["beta==2.0", "Alpha_One==1.0"])


def test_the_canonical_name_of_a_system_package_is_unchanged(index: VolumeIndex) -> None:
    place = ScopeCache("docker", "team", "system")
    index.record_use(place, "k1", 10, R, ["python3Packages.numpy", "gcc"])
    assert index.count_names(place, ["python3Packages.numpy", "ffmpeg"]) == 1


def test_a_deleted_volume_has_no_environments(index: VolumeIndex) -> None:
    index.record_use(PLACE, "k1", 10, R, LOCK)
    index.record_volumes("docker", [VOLUME], 20)
    index.record_volumes("local", [], 20)
    assert index.environment_for(PLACE, R) == KnownEnvironment("k1", True)
    index.record_volumes("docker", [Volume("docker", "team", "system", "stoke-team-system")], 20)
    assert index.environment_for(PLACE, R) == KnownEnvironment("k1", False)


def test_the_volume_of_each_node_has_its_own_environments(index: VolumeIndex) -> None:
    """Jobs do not say on which node they ran; measuring does."""
    one = Volume("docker", "team", "python", "a", node="one")
    two = Volume("docker", "team", "python", "b", node="two")
    index.record_use(PLACE, "k1", 10, R, LOCK)
    index.record_measurement(one, {}, {}, 20)
    assert index.environment_for(PLACE, R) == KnownEnvironment("k1", True)
    index.record_measurement(two, {"k1": LOCK}, {R: "k1"}, 20)
    index.record_removal(one, ["k1"], 30)
    assert index.environment_for(PLACE, R) == KnownEnvironment("k1", True)
    index.record_removal(two, ["k1"], 30)
    assert index.environment_for(PLACE, R) == KnownEnvironment("k1", False)


def test_environments_removed_long_ago_are_forgotten(index: VolumeIndex) -> None:
    index.record_use(PLACE, "k1", 10, R, LOCK)
    index.record_removal(VOLUME, ["k1"], 20)
    index.record_measurement(VOLUME, {}, {}, 30)
    assert index.environment_for(PLACE, R) == KnownEnvironment("k1", False)
    index.record_measurement(VOLUME, {"k2": ["alpha==1.0"]}, {}, 30 + FORGOTTEN_AFTER)
    assert index.environment_for(PLACE, R) is None
    assert index.count_of_lock(PLACE, "k1") is None
