"""The system volume, kept in bounds by a real Nix: pruned as promised, never under a running job.

On Docker, where this machine sees into a volume and can spoil it. On a cluster the same program looks
after the volume; `test_system_contract` and `test_cache_contract` have it run there.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backends.docker.names import volume_labels, volume_name
from stoke.backend.api import Volume
from stoke.cache.volumes import Housekeeper, Pruned, Usage
from stoke.errors import EngineError
from stoke.history.database import History
from tests.contract.conftest import DOCKER, open_lab
from tests.lab import Lab, Outcome, prune_while_jobs_run, until
from tests.nix_cache import NixCache
from tests.package_index import PackageIndex

CALL = "import subprocess, sys; print(subprocess.check_output(sys.argv[1], text=True), end='')"
HOLD = CALL + "; import time; print('holding', flush=True); time.sleep(600)"


class SystemCache:
    """The system volume of a laboratory's scope. `folder` is where this machine sees /nix."""

    def __init__(self, lab: Lab, engine: Any) -> None:
        self._lab = lab
        self._engine = engine
        self.history = History()
        self.housekeeper = Housekeeper(self.history, lock_ttl=3600)

    @property
    def volume(self) -> Volume:
        name = volume_name(self._lab.scope, "system")
        (found,) = [one for one in self._lab.backend.volumes() if one.name == name]
        return found

    @property
    def folder(self) -> Path:
        return Path(self._engine.inspect_volume(self.volume.name)["Mountpoint"])

    def usage(self) -> Usage:
        return self.housekeeper.usage(self._lab.backend, self.volume, lambda _: None)

    def prune(self, **limits: Any) -> Pruned:
        return self.housekeeper.prune(self._lab.backend, self.volume, lambda _: None, **limits)

    def clear(self) -> Pruned:
        return self.housekeeper.clear(self._lab.backend, self.volume, lambda _: None)

    def du(self) -> int:
        done = subprocess.run(
            ["du", "-s", "--block-size=1", str(self.folder)], capture_output=True, check=True
        )
        return int(done.stdout.split()[0])

    def store(self) -> set[str]:
        """Return the names in the store without hashes, and without derivations."""
        names = {path.name[33:] for path in (self.folder / "store").iterdir()}
        return {name for name in names if name and not name.endswith(".drv")}

    def key(self, *packages: str) -> str:
        (key,) = [one.key for one in self.usage().environments if one.packages == packages]
        return key

    def age(self, *packages: str) -> None:
        """As if the set had been made and used long ago."""
        key = self.key(*packages)
        mark = self.folder / "var/nix/gcroots/jobs" / key / "stoke-environment.json"
        mark.write_text(json.dumps({**json.loads(mark.read_text()), "built_at": 1e9}))
        os.utime(self.folder / "var/stoke" / f"{key}.lock", (1e9, 1e9))

    @contextmanager
    def locked(self, name: str, kind: int) -> Iterator[None]:
        """Holds a lock of the volume's, as a job or a collector would."""
        with open(self.folder / "var/stoke" / f"{name}.lock", "a") as lock:
            fcntl.flock(lock, kind)
            yield


@pytest.fixture(params=[DOCKER])
def system_lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    yield from open_lab(request.param, request, monkeypatch)


@pytest.fixture
def cache(system_lab: Lab, docker_engine: Any) -> Iterator[SystemCache]:
    cache = SystemCache(system_lab, docker_engine)
    yield cache
    cache.history.close()


def call(lab: Lab, program: str, **fields: Any) -> Outcome:
    return lab.run(CALL, args=[program], **{"system": [program], **fields})


def notes(done: Outcome) -> list[str]:
    return [str(event["text"]) for event in done.events if event["event"] == "note"]


# ------------------------------------------------------------------------------ measuring


def test_usage_equals_du(system_lab: Lab, cache: SystemCache, nix: NixCache) -> None:
    call(system_lab, "tree")
    call(system_lab, "tree")
    call(system_lab, "bush")
    for _ in range(2):  # measured, and then most of it remembered
        usage = cache.usage()
        assert usage.bytes == pytest.approx(cache.du(), rel=0.01)
    by_packages = {one.packages: one for one in usage.environments}
    tree, bush = by_packages["tree",], by_packages["bush",]
    assert (tree.uses, bush.uses) == (2, 1)
    assert tree.bytes > tree.reclaimable > 0, "the other set needs leaf too"
    assert 0 < usage.garbage < usage.bytes


# ------------------------------------------------------------------------------ pruning


@pytest.mark.parametrize("how", ["unused", "size"])
def test_prune_frees_as_many_bytes_as_predicted(
    system_lab: Lab, cache: SystemCache, nix: NixCache, how: str
) -> None:
    system_lab.run("pass", system=["heavy", "tree"])
    call(system_lab, "bush")
    call(system_lab, "leaf")
    cache.age("heavy", "tree")
    limits = {"unused": 3600.0} if how == "unused" else {"max_bytes": cache.du() - 20_000_000}
    before = cache.du()
    promised = cache.prune(**limits, dry_run=True)
    assert cache.du() == pytest.approx(before, abs=20_000), "a dry run touches nothing"
    done = cache.prune(**limits)
    freed = before - cache.du()
    assert freed > 40_000_000
    assert freed == pytest.approx(promised.bytes, rel=0.05)
    assert done.bytes == pytest.approx(promised.bytes, rel=0.05)
    assert done.left == pytest.approx(cache.du(), rel=0.05)
    assert (done.environments, done.trouble) == (promised.environments, None)
    assert done.packages == promised.packages == ("heavy-1.0", "tree-1.0")
    assert cache.store() == {"bush-1.0", "leaf-1.0", "source"}
    # Remaining sets work without being built again, and removed ones are built again.
    assert call(system_lab, "bush").phase("system").hit is True
    assert call(system_lab, "leaf").phase("system").hit is True
    again = call(system_lab, "tree", system=["heavy", "tree"])
    assert (again.stdout, again.phase("system").hit) == (b"a tree of leaf\n", False)


def test_nixpkgs_is_not_removed_while_a_set_uses_it(
    system_lab: Lab, cache: SystemCache, nix: NixCache
) -> None:
    call(system_lab, "leaf")
    call(system_lab, "bush")
    cache.age("bush")
    cache.prune(unused=3600.0)
    asked = nix.requests.count("/nixpkgs.tar.gz")
    call(system_lab, "tree")
    assert nix.requests.count("/nixpkgs.tar.gz") == asked
    done = cache.prune(unused=0.0)
    assert "source" in done.packages
    assert cache.store() == set()
    assert cache.du() < 1_000_000


def test_only_as_much_as_needed_is_pruned_least_recently_used_first(
    system_lab: Lab, cache: SystemCache, nix: NixCache
) -> None:
    for name in ("heavy", "leaf", "bush"):
        system_lab.run("pass", system=[name])
    system_lab.run("pass", system=["heavy"])
    garbage = cache.usage().garbage
    done = cache.prune(max_bytes=cache.du() - garbage)
    assert done.environments == (), "garbage is enough, and Nix's reserve"
    leaf = cache.key("leaf")
    assert cache.prune(max_bytes=cache.du() - 1).environments == (leaf,)
    assert cache.prune(max_bytes=cache.du()).bytes == 0


def test_sets_in_use_are_not_removed(system_lab: Lab, cache: SystemCache, nix: NixCache) -> None:
    job = system_lab.submit(HOLD + "; " + CALL, args=["tree"], system=["tree"])
    tracker = system_lab.track(job)
    system_lab.until_output(job, b"holding\n")
    call(system_lab, "bush")
    held = {one.packages: one for one in cache.usage().environments}
    assert held["tree",].busy and not held["bush",].busy
    assert (held["tree",].in_use_by, held["bush",].in_use_by) == ((job.id,), ())
    done = cache.prune(unused=0.0)
    assert (done.environments, done.busy) == ((held["bush",].key,), (held["tree",].key,))
    assert done.packages == ("bush-1.0",)
    assert cache.store() == {"tree-1.0", "leaf-1.0", "source"}
    with pytest.raises(EngineError, match=job.id):
        cache.clear()
    tracker.close()
    system_lab.backend.stop(job.id, 0)
    system_lab.finish(job)
    assert call(system_lab, "tree").phase("system").hit is True


def test_a_warm_job_does_not_wait_for_a_collection_and_a_cold_one_does(
    system_lab: Lab, cache: SystemCache, nix: NixCache
) -> None:
    call(system_lab, "tree")
    with cache.locked("gc", fcntl.LOCK_EX):
        warm = call(system_lab, "tree")
        assert (warm.stdout, notes(warm)) == (b"a tree of leaf\n", [])
        cold = system_lab.submit(CALL, args=["bush"], system=["bush"])
        outcome: list[Outcome] = []
        thread = threading.Thread(target=lambda: outcome.append(system_lab.finish(cold)))
        thread.start()
        lock = str((cache.folder / "var/stoke/gc.lock").stat().st_ino)
        until(lambda: waits_for(lock), "the cold job waiting for the collection")
    thread.join()
    assert outcome[0].stdout == b"a bush of leaf\n"
    assert any("garbage is being collected" in note for note in notes(outcome[0]))


def waits_for(inode: str) -> bool:
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(row[1] == "->" and row[6].endswith(f":{inode}") for row in rows)


def test_while_something_is_made_the_store_is_left_for_later(
    system_lab: Lab, cache: SystemCache, nix: NixCache
) -> None:
    system_lab.run("pass", system=["heavy"])
    call(system_lab, "leaf")
    cache.age("heavy")
    with cache.locked("gc", fcntl.LOCK_SH):
        done = cache.prune(unused=3600.0)
    assert len(done.environments) == 1
    assert "making system packages" in (done.trouble or "")
    assert done.bytes < 1_000_000
    assert "heavy-1.0" in cache.store()
    later = cache.prune(unused=3600.0)
    assert later.bytes > 40_000_000 and later.trouble is None
    assert cache.store() == {"leaf-1.0", "source"}


def test_leftovers_of_dead_builds_are_removed_and_running_builds_are_kept(
    system_lab: Lab, cache: SystemCache, nix: NixCache
) -> None:
    system_lab.run("pass", system=["heavy"])
    call(system_lab, "leaf")
    (heavy,) = (cache.folder / "store").glob("*-heavy-1.0")
    for letter in "ab":
        folder = cache.folder / "var/nix/gcroots/jobs" / (letter * 32 + ".tmp")
        folder.mkdir()
        (folder / "heavy").symlink_to(f"/nix/store/{heavy.name}")
    cache.age("heavy")
    with cache.locked("b" * 32, fcntl.LOCK_EX):
        promised = cache.prune(unused=3600.0, dry_run=True)
        cache.prune(unused=3600.0)
    assert promised.bytes < 40_000_000
    assert "heavy-1.0" in cache.store(), "a job is making a set of it"
    left = [path.name for path in (cache.folder / "var/nix/gcroots/jobs").glob("*.tmp")]
    assert left == ["b" * 32 + ".tmp"]
    assert cache.prune(unused=3600.0).bytes > 40_000_000
    assert cache.store() == {"leaf-1.0", "source"}


def test_paths_with_foreign_roots_are_kept_and_not_promised(
    system_lab: Lab, cache: SystemCache, nix: NixCache
) -> None:
    roots = """
import glob, subprocess
(heavy,) = glob.glob("/nix/store/*-heavy-1.0")
subprocess.run(["nix-store", "--add-root", "/nix/var/nix/gcroots/mine", "-r", heavy], check=True)
"""
    assert system_lab.run(roots, system=["heavy"]).job.exit_code == 0
    promised = cache.prune(unused=0.0, dry_run=True)
    done = cache.prune(unused=0.0)
    assert "heavy-1.0" in cache.store()
    assert "heavy-1.0" not in promised.packages + done.packages
    assert done.bytes == pytest.approx(promised.bytes, rel=0.05)


def test_a_damaged_set_is_removed_first_and_counted_as_reclaimable(
    system_lab: Lab, cache: SystemCache, nix: NixCache
) -> None:
    system_lab.run("pass", system=["heavy"])
    call(system_lab, "leaf")
    root = cache.folder / "var/nix/gcroots/jobs" / cache.key("heavy")
    (root / "stoke-environment.json").write_text("{")
    assert {one.packages for one in cache.usage().environments} == {(), ("leaf",)}
    promised = cache.prune(max_bytes=cache.du() - 20_000_000, dry_run=True)
    done = cache.prune(max_bytes=cache.du() - 20_000_000)
    assert promised.environments == done.environments == (root.name,)
    assert done.bytes == pytest.approx(promised.bytes, rel=0.05)
    assert cache.store() == {"leaf-1.0", "source"}


def test_an_image_without_nix_touches_nothing_and_names_one_that_has_it(
    system_lab: Lab,
    cache: SystemCache,
    nix: NixCache,
    bare_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config

    call(system_lab, "tree")
    monkeypatch.setenv("STOKE_DOCKER__IMAGE", bare_image)
    backends = Backends(load_config())
    for dry_run in (True, False):
        with pytest.raises(EngineError, match="no Nix") as refused:
            cache.housekeeper.prune(
                backends.get("docker"), cache.volume, lambda _: None, unused=0.0, dry_run=dry_run
            )
        assert "stoke setup image" in (refused.value.hint or "")
    # Of the scope's two volumes the other is pruned all the same.
    volumes = [one for one in system_lab.backend.volumes() if one.scope == system_lab.scope]
    assert [one.kind for one in volumes] == ["python", "system"]
    python, system = cache.housekeeper.prune_together(
        backends.get("docker"), volumes, lambda _: None, unused=0.0
    )
    backends.close()
    assert isinstance(python, Pruned) and isinstance(system, EngineError)
    assert call(system_lab, "tree").phase("system").hit is True


@pytest.mark.parametrize("harm", ["gone", "nonsense"])
def test_a_damaged_database_is_named_and_nothing_is_dropped(
    system_lab: Lab, cache: SystemCache, nix: NixCache, harm: str
) -> None:
    call(system_lab, "tree")
    database = cache.folder / "var/nix/db/db.sqlite"
    database.unlink()
    if harm == "nonsense":
        database.write_bytes(b"not a database" * 1000)
    for dry_run in (True, False):
        with pytest.raises(EngineError, match="Nix database") as refused:
            cache.prune(unused=0.0, dry_run=dry_run)
        assert "stoke cache clear --kind system" in (refused.value.hint or "")
    assert call(system_lab, "tree").phase("system").hit is True
    assert cache.clear().bytes > 0
    assert call(system_lab, "tree").phase("system").hit is False


def test_an_empty_volume_needs_no_nix(
    system_lab: Lab, cache: SystemCache, nix: NixCache, docker_engine: Any
) -> None:
    labels = volume_labels(system_lab.scope, "system")
    docker_engine.create_volume(volume_name(system_lab.scope, "system"), labels=labels)
    done = cache.prune(unused=0.0)
    assert (done.bytes, done.entries, done.trouble) == (0, 0, None)
    assert cache.clear().bytes == 0


def test_jobs_go_on_under_pruning_and_clearing(
    system_lab: Lab, cache: SystemCache, nix: NixCache
) -> None:
    """A stream of jobs from several clients, and housekeeping all the while."""
    call(system_lab, "leaf")
    failed: list[object] = []
    numbers = itertools.count()
    said = {"leaf": b"leaf\n", "tree": b"a tree of leaf\n", "bush": b"a bush of leaf\n"}
    # At its end as at its beginning: nothing was taken from under it.
    code = CALL + "; import time; time.sleep(0.1); " + CALL

    def client() -> None:
        while (number := next(numbers)) < 32:
            name = list(said)[number % 3]
            done = call(system_lab, name) if number % 2 else system_lab.run(
                code, args=[name], system=[name]
            )  # fmt: skip
            if set(done.stdout.splitlines(keepends=True)) != {said[name]}:
                failed.append((done.job, done.stdout, done.stderr, done.events))

    prune_while_jobs_run(cache, client)
    assert not failed, "\n".join(map(str, failed))


# ------------------------------------------------------------------------------ a scope's budget


def test_a_budget_is_one_for_both_kinds(
    system_lab: Lab, cache: SystemCache, nix: NixCache, docker_engine: Any
) -> None:
    """The least recently used entries are removed first, on any volume."""
    index = PackageIndex(system_lab.address)
    index.add("three", "1.0", size=3_000_000)
    system_lab.defaults["index"]["url"] = index.url
    system_lab.run("pass", system=["heavy"])
    system_lab.run("import three", dependencies=["three"])
    Path(os.environ["STOKE_CONFIG"]).write_text(
        f'[scopes."{system_lab.scope}"]\nmax_size = "30m"\n'
        f"[docker]\nimage = {json.dumps(system_lab.config.docker.image)}\n"
    )
    call(system_lab, "leaf")
    until(lambda: "heavy-1.0" not in cache.store(), "the budget kept")
    assert system_lab.run("import three", dependencies=["three"]).phase("python").hit is True
    assert call(system_lab, "leaf").phase("system").hit is True
    index.stop()


# ------------------------------------------------------------------------------ bad days


@pytest.fixture
def read_only(
    system_lab: Lab, cache: SystemCache, nix: NixCache, docker_engine: Any
) -> dict[str, Any]:
    """Fields for jobs in another scope, whose system volume is this one's, read-only. It holds
    `tree`."""
    call(system_lab, "tree")
    scope = f"{system_lab.scope}-b"
    docker_engine.create_volume(
        volume_name(scope, "system"),
        labels=volume_labels(scope, "system"),
        driver_opts={"type": "none", "device": str(cache.folder), "o": "bind,ro"},
    )
    return {"scope": scope}


def test_a_read_only_volume_serves_its_sets(
    system_lab: Lab, cache: SystemCache, read_only: dict[str, Any]
) -> None:
    code = CALL + "; open('/nix/x', 'w')"
    assert (
        b"Read-only file system"
        in system_lab.run(code, args=["tree"], system=["tree"], **read_only).stderr
    )
    job = system_lab.submit(HOLD, args=["tree"], system=["tree"], **read_only)
    tracker = system_lab.track(job)
    system_lab.until_output(job, b"a tree of leaf\nholding\n")
    # Every user who may write to the volume sees that it is in use.
    assert cache.prune(unused=0.0).busy == (cache.key("tree"),)
    tracker.close()
    system_lab.backend.stop(job.id, 0)
    assert system_lab.finish(job).phase("system").hit is True


@pytest.mark.parametrize("trouble", ["uncached", "fail"])
def test_a_missing_set_on_a_read_only_volume_is_an_error(
    system_lab: Lab, read_only: dict[str, Any], trouble: str
) -> None:
    done = system_lab.run("pass", system=["bush"], on_cache_trouble=trouble, **read_only)
    assert done.job.exit_code == 125
    assert done.error["text"] == "the system volume is read-only and does not hold bush"
    assert "--no-cache" in done.error["hint"]
    assert call(system_lab, "bush", use_cache=False).stdout == b"a bush of leaf\n"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("ro", "the system volume is read-only"),
        ("uid=1234,mode=700", "the system volume belongs to user 1234"),
    ],
)
def test_a_volume_that_cannot_be_written_to_is_named(
    system_lab: Lab, nix: NixCache, docker_engine: Any, flags: str, told: str
) -> None:
    docker_engine.create_volume(
        volume_name(system_lab.scope, "system"),
        labels=volume_labels(system_lab.scope, "system"),
        driver_opts={"type": "tmpfs", "device": "tmpfs", "o": flags},
    )
    done = system_lab.run("pass", system=["leaf"])
    assert (done.job.exit_code, done.error["phase"]) == (125, "system")
    assert told in done.error["text"]
    assert "--no-cache" in done.error["hint"]


def test_a_full_volume_serves_its_sets_and_can_be_pruned(
    system_lab: Lab, cache: SystemCache, nix: NixCache, docker_engine: Any, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=70m", "none", str(disk)], check=True)
    try:
        docker_engine.create_volume(
            volume_name(system_lab.scope, "system"),
            labels=volume_labels(system_lab.scope, "system"),
            driver_opts={"type": "none", "device": str(disk), "o": "bind"},
        )
        system_lab.run("pass", system=["heavy"])
        call(system_lab, "tree")
        fills = (
            "import contextlib\nwith contextlib.suppress(OSError), open('/nix/big', 'wb') as f:\n"
        )
        # Bounded: were the small disk ever not mounted, the machine's own would be filled.
        fills += "    for _ in range(50_000): f.write(b'x' * 4096)"
        system_lab.run(fills, system=["tree"])
        assert call(system_lab, "tree").phase("system").hit is True
        full = system_lab.run("pass", system=["bush"])
        assert full.job.exit_code == 125 and "stoke cache prune" in full.error["hint"]
        done = cache.housekeeper.prune(
            system_lab.backend, cache.volume, lambda _: None, max_bytes=40 * 1024**2
        )
        assert (done.trouble, done.packages) == (None, ("heavy-1.0",))
        assert call(system_lab, "tree").phase("system").hit is True
        assert call(system_lab, "bush").stdout == b"a bush of leaf\n"
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
