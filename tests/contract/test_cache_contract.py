"""Caches, on every backend: measured as `du` does, pruned as promised, never under a running job."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoke.backend.api import Volume
from stoke.cache.volumes import Housekeeper, Pruned, Usage
from stoke.errors import EngineError
from stoke.history.database import History
from stoke.remote.common.trees import remove_tree
from tests.lab import Lab, prune_while_jobs_run, until
from tests.package_index import PackageIndex
from tests.remote import test_hostile_volume as hostile

FOREVER = "import time; print('holding', flush=True); time.sleep(600)"


class Cache:
    """The python cache of a laboratory's scope. `folder` is where this machine sees it."""

    def __init__(self, lab: Lab, request: pytest.FixtureRequest) -> None:
        self._lab = lab
        self._request = request
        self.history = History()
        self.housekeeper = Housekeeper(self.history, lock_ttl=24 * 3600)

    @property
    def volume(self) -> Volume:
        found = self.housekeeper.volumes(self._lab.backend)
        (volume,) = [one for one in found if (one.scope, one.kind) == (self._lab.scope, "python")]
        return volume

    @property
    def folder(self) -> Path:
        if self._lab.backend.name == "local":
            return Path(self.volume.name)
        if self._lab.backend.name == "argo":
            where: Path = self._request.getfixturevalue("real_cluster").on_node(self.volume.name)
            return where
        engine = self._request.getfixturevalue("docker_engine")
        return Path(engine.inspect_volume(self.volume.name)["Mountpoint"])

    def usage(self) -> Usage:
        return self.housekeeper.usage(self._lab.backend, self.volume, lambda _: None)

    def prune(
        self, unused: float | None = None, max_bytes: int | None = None, dry_run: bool = False
    ) -> Pruned:
        return self.housekeeper.prune(
            self._lab.backend,
            self.volume,
            lambda _: None,
            unused=unused,
            max_bytes=max_bytes,
            dry_run=dry_run,
        )

    def clear(self) -> Pruned:
        return self.housekeeper.clear(self._lab.backend, self.volume, lambda _: None)

    def du(self) -> int:
        """Bytes on disk; a hard-linked file once, as everywhere."""
        done = subprocess.run(
            ["du", "-s", "--block-size=1", str(self.folder)], capture_output=True, check=True
        )
        return int(done.stdout.split()[0])


@pytest.fixture
def cache(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Cache]:
    cache = Cache(lab, request)
    yield cache
    cache.history.close()


@pytest.fixture
def index(index: PackageIndex) -> PackageIndex:
    """Packages that weigh something: one..four, 2 to 5 MB, and `most`, which needs one and two."""
    for size, name in enumerate(("one", "two", "three", "four"), start=2):
        index.add(name, "1.0", size=size * 1_000_000)
    index.add("most", "1.0", ["one", "two"], size=1_000_000)
    return index


# ---------------------------------------------------------------------------- measuring


def test_usage_equals_du(lab: Lab, cache: Cache, index: PackageIndex) -> None:
    lab.run("import one", dependencies=["one"])
    lab.run("import most; import two", dependencies=["most"])
    lab.run("import one", dependencies=["one"])
    usage = cache.usage()
    assert usage.bytes == pytest.approx(cache.du(), rel=0.01)
    again = cache.usage()  # most of it remembered
    assert again.bytes == pytest.approx(cache.du(), rel=0.01)
    lab.run("import json, urllib.request, most", dependencies=["most"])  # writes bytecode
    assert cache.usage().bytes == pytest.approx(cache.du(), rel=0.01)
    assert 8_000_000 > usage.uv_bytes > 6_000_000

    by_use = {environment.uses: environment for environment in usage.environments}
    assert by_use[2].packages == ("one==1.0",)
    assert by_use[1].packages == ("most==1.0", "one==1.0", "two==1.0")
    assert by_use[2].bytes > 2_000_000
    assert by_use[2].reclaimable < 1_000_000, "the other environment has it too"
    assert by_use[1].reclaimable > 4_000_000
    for environment in usage.environments:
        assert environment.built_at is not None
        assert environment.built_at <= environment.last_used <= time.time() + 1
        assert not environment.busy
    known = cache.volume
    assert (known.bytes, known.entries) == (cache.usage().bytes, 2)
    assert known.measured_at is not None


def test_measuring_after_uvs_cache_was_emptied(lab: Lab, cache: Cache, index: PackageIndex) -> None:
    lab.run("import one", dependencies=["one"])
    lab.run("import most", dependencies=["most"])
    cache.usage()
    subprocess.run(["rm", "-rf", str(cache.folder / "uv")], check=True)
    assert cache.usage().bytes == pytest.approx(cache.du(), rel=0.01)


def test_measuring_can_be_given_up(lab: Lab, cache: Cache, index: PackageIndex) -> None:
    lab.run("import one", dependencies=["one"])

    def give_up(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.housekeeper.usage(lab.backend, cache.volume, give_up)
    assert cache.usage().bytes > 2_000_000


def test_nothing_outside_is_measured_or_removed(
    lab: Lab, cache: Cache, index: PackageIndex, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x" * 3_000_000)
    lab.run("import one", dependencies=["one"])
    folder = cache.folder
    (environment,) = [one for one in (folder / "venvs").iterdir() if one.is_dir()]
    # In an environment, beside them, in uv's cache and in place of the trash.
    (environment / "lib" / "out").symlink_to(outside)
    (folder / "venvs" / ("0" * 32)).symlink_to(outside)
    (folder / "venvs" / ("1" * 32 + ".tmp")).symlink_to(outside)
    (folder / "uv" / "archive-v0" / "out").symlink_to(outside)
    (folder / "uv" / "wheels-v7" / "pypi").symlink_to(outside)
    (folder / "locks" / ("2" * 64 + ".txt")).symlink_to(outside / "precious")
    (folder / "trash").symlink_to(outside)
    (folder / "out").symlink_to(outside)
    assert cache.usage().bytes == pytest.approx(cache.du(), rel=0.01)
    cache.prune(unused=0)
    cache.clear()
    assert (outside / "precious").stat().st_size == 3_000_000
    assert sorted(os.listdir(outside)) == ["precious"]
    assert [one.name for one in folder.iterdir() if one.is_symlink()] == []


# ---------------------------------------------------------------------------- pruning


@pytest.mark.parametrize("how", ["unused", "max_bytes"])
def test_prune_frees_as_many_bytes_as_predicted(
    lab: Lab, cache: Cache, index: PackageIndex, how: str
) -> None:
    for name in ("four", "one", "most", "three"):
        lab.run(f"import {name}, json, email.message", dependencies=[name])
    keys = {one.packages[-1]: one.key for one in cache.usage().environments}
    if how == "unused":
        # Two of them were used long ago.
        for package in ("four==1.0", "one==1.0"):
            os.utime(cache.folder / "venvs" / f"{keys[package]}.lock", (1e9, 1e9))
            os.utime(cache.folder / "venvs" / keys[package] / "stoke-environment.json", (1e9, 1e9))
        limits = {"unused": 3600.0}
    else:
        limits = {"max_bytes": cache.du() - 4_500_000}
    before = cache.du()
    promised = cache.prune(**limits, dry_run=True)  # type: ignore[arg-type]
    assert cache.du() == pytest.approx(before, abs=100_000), "a dry run touches nothing"
    done = cache.prune(**limits)  # type: ignore[arg-type]
    freed = before - cache.du()
    assert freed == pytest.approx(promised.bytes, rel=0.05)
    assert done.bytes == pytest.approx(promised.bytes, rel=0.05)
    assert promised.environments == done.environments
    assert promised.packages == done.packages
    assert done.trouble is None
    assert set(done.environments) >= {keys["four==1.0"]}
    assert "four" in done.packages
    assert "one" not in done.packages, "another environment names it"
    assert done.left == pytest.approx(cache.du(), rel=0.05)
    # Remaining environments work, and removed ones are built again.
    for name, hit in (("most", True), ("three", True), ("four", False)):
        assert lab.run(f"import {name}", dependencies=[name]).phase("python").hit is hit


def test_a_limit_above_the_size_removes_nothing(
    lab: Lab, cache: Cache, index: PackageIndex
) -> None:
    lab.run("import one", dependencies=["one"])
    assert cache.prune(max_bytes=1 << 40).environments == ()
    assert lab.run("import one", dependencies=["one"]).phase("python").hit is True


def test_the_least_recently_used_is_pruned_first(
    lab: Lab, cache: Cache, index: PackageIndex
) -> None:
    for name in ("one", "two", "three"):
        lab.run(f"import {name}", dependencies=[name])
    lab.run("import one", dependencies=["one"])
    done = cache.prune(max_bytes=cache.du() - 1_000_000)
    assert done.packages == ("two",)
    assert lab.run("import one", dependencies=["one"]).phase("python").hit is True


def test_environments_in_use_are_not_removed(lab: Lab, cache: Cache, index: PackageIndex) -> None:
    job = lab.submit(f"import one; {FOREVER}; import one", dependencies=["one"])
    tracker = lab.track(job)
    lab.until_output(job, b"holding\n")
    lab.run("import two", dependencies=["two"])
    held = {one.packages: one for one in cache.usage().environments}
    assert held[("one==1.0",)].busy and not held[("two==1.0",)].busy
    assert held[("one==1.0",)].in_use_by == (job.id,) and not held[("two==1.0",)].in_use_by
    done = cache.prune(unused=0)
    assert done.busy == (held[("one==1.0",)].key,)
    assert done.packages == ("two",)
    with pytest.raises(EngineError, match=job.id):
        cache.clear()
    tracker.close()
    lab.backend.stop(job.id, 0)
    lab.finish(job)
    assert lab.run("import one", dependencies=["one"]).phase("python").hit is True


def test_leftovers_of_dead_builds_are_removed(lab: Lab, cache: Cache, index: PackageIndex) -> None:
    lab.run("import one", dependencies=["one"])
    left = cache.folder / "venvs" / ("a" * 32 + ".tmp")
    left.mkdir()
    (left / "big").write_bytes(b"x" * 1_000_000)
    done = cache.prune(max_bytes=1 << 40)
    assert done.bytes >= 1_000_000 and done.environments == ()
    assert not left.exists()


def test_a_fresh_lock_keeps_its_packages(lab: Lab, cache: Cache, index: PackageIndex) -> None:
    lab.run("import one", dependencies=["one"])
    lab.run("import two", dependencies=["two"])
    # As between a job's lock and its environment.
    (environment,) = [
        one.key for one in cache.usage().environments if one.packages == ("one==1.0",)
    ]
    subprocess.run(["rm", "-rf", str(cache.folder / "venvs" / environment)], check=True)
    done = cache.prune(unused=0)
    assert done.packages == ("two",)


def test_jobs_go_on_under_pruning_and_clearing(lab: Lab, cache: Cache, index: PackageIndex) -> None:
    """A stream of jobs from several clients, and housekeeping all the while."""
    code = (
        "import {0}, os; ballast = os.path.join(os.path.dirname({0}.__file__), 'ballast.bin');"
        "assert len(open(ballast, 'rb').read()) > 999_999; print('whole')"
    )
    names = ["one", "two", "most"]
    count = {"local": 100, "docker": 40, "argo": 8}[lab.backend.name]
    failed: list[object] = []
    todo = iter(range(count))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                number = next(todo, None)
            if number is None:
                return
            name = names[number % 3]
            done = lab.run(code.format(name), dependencies=[name])
            if done.stdout != b"whole\n" or done.job.exit_code != 0:
                failed.append((done.job, done.stderr, done.events))

    lab.run(code.format("one"), dependencies=["one"])
    prune_while_jobs_run(cache, client)
    assert not failed, "\n".join(map(str, failed))


def test_a_damaged_environment_is_built_again_once(
    lab: Lab, cache: Cache, index: PackageIndex
) -> None:
    lab.run("import one", dependencies=["one"])
    for damage in ("stoke-environment.json", "bin/python"):
        (environment,) = [one for one in (cache.folder / "venvs").iterdir() if one.is_dir()]
        (environment / damage).unlink()
        assert cache.usage().bytes > 0
        assert lab.run("import one", dependencies=["one"]).phase("python").hit is False
        assert lab.run("import one", dependencies=["one"]).phase("python").hit is True


# ---------------------------------------------------------------------------- warm, budget


def test_a_warm_environment_is_compiled(lab: Lab, cache: Cache, index: PackageIndex) -> None:
    code = "import alpha; print(alpha.__cached__)"
    lab.run("pass", dependencies=["alpha"], compile_bytecode=True)
    compiled = list(cache.folder.glob("venvs/*/lib/*/site-packages/alpha/__pycache__/*.pyc"))
    assert len(compiled) == 1
    assert lab.run(code, dependencies=["alpha"]).phase("python").hit is True


def test_a_budget_is_kept_after_a_job(lab: Lab, cache: Cache, index: PackageIndex) -> None:
    lab.run("import three", dependencies=["three"])
    limit = cache.du() + 2_000_000
    Path(os.environ["STOKE_CONFIG"]).write_text(f'[scopes."{lab.scope}"]\nmax_size = {limit}\n')
    lab.run("import four", dependencies=["four"])
    until(lambda: cache.volume.bytes is not None, "the volume is measured")
    until(lambda: not (cache.folder / "trash").exists() or cache.du() <= limit, "the budget kept")
    assert cache.du() <= limit
    assert lab.run("import four", dependencies=["four"]).phase("python").hit is True
    assert lab.run("import three", dependencies=["three"]).phase("python").hit is False


@pytest.mark.parametrize(
    "thing", [hostile.fifo, hostile.closed_folder, hostile.nested_json, hostile.deep]
)
def test_a_volume_that_a_job_damaged_is_cleaned_and_usable_again(
    lab: Lab, cache: Cache, index: PackageIndex, thing: Callable[[str], None]
) -> None:
    lab.run("import one", dependencies=["one"])
    (key,) = [one.key for one in cache.usage().environments]
    places = ["housekeeping.json", "housekeeping.json.1", "trash", "housekeeping.lock"]
    places += [f"venvs/{key}.lock", f"venvs/{key}/stoke-environment.json", "locks", "requests"]

    def spoil() -> None:
        for place in [*places, "in-use.lock"]:
            remove_tree(str(cache.folder / place))
            hostile.put(cache.folder, place, thing)

    spoil()
    assert [one.key for one in cache.usage().environments] == [key]
    assert lab.run("import one; print('ran')", dependencies=["one"]).stdout == b"ran\n"
    spoil()
    assert cache.prune(unused=0).environments == (key,)
    spoil()
    assert cache.clear().trouble is None
    assert cache.usage().environments == ()
    assert lab.run("import one; print('ran')", dependencies=["one"]).stdout == b"ran\n"


def test_a_folder_that_is_no_cache_is_not_changed(lab: Lab, cache: Cache, tmp_path: Path) -> None:
    if lab.backend.name != "local":
        pytest.skip("volumes are refused by their labels: test_bad_days")
    lab.run("pass")
    mine = tmp_path / "scopes" / lab.scope / "python"
    untagged = cache.folder.parent.with_name("other") / "python"
    for folder in (mine, untagged):
        folder.mkdir(parents=True)
        (folder / "precious").write_text("x")
        volume = Volume("local", lab.scope, "python", str(folder))
        with pytest.raises(EngineError, match="not a cache of stoke"):
            cache.housekeeper.prune(lab.backend, volume, lambda _: None, unused=0)
        assert [one.name for one in folder.iterdir()] == ["precious"]
    assert str(untagged) not in [one.name for one in lab.backend.volumes()]
