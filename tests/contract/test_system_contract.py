"""System packages, on every backend that brings them: a real Nix, with packages of our own."""

from __future__ import annotations

import os
import threading

import pytest

from backends.docker.names import volume_labels, volume_name
from stoke.cache.volumes import Housekeeper
from stoke.errors import RequestError
from stoke.history.database import History
from stoke.history.job import JobState
from tests.lab import Lab, Outcome
from tests.nix_cache import NixCache
from tests.package_index import PackageIndex

CALLS = """
import shutil, subprocess, sys
for name in sys.argv[1:]:
    print(subprocess.run([name], capture_output=True, text=True).stdout.strip())
"""
BUILT = "print(open('/nix/built').read().split())"


def call(lab: Lab, *programs: str, **fields: object) -> Outcome:
    """A job that runs programs and prints what they say."""
    return lab.run(CALLS, args=list(programs), **fields)


def built(lab: Lab) -> list[str]:
    """The packages that were built, not fetched, on the scope's volume, in order."""
    done = lab.run(BUILT, system=["leaf"])
    names: list[str] = done.stdout.decode().strip("[]\n").replace("'", "").split(", ")
    return names


def listed(done: Outcome, kind: str) -> list[str]:
    told = [e for e in done.events if e["event"] == "packages" and e["phase"] == "system"]
    return sorted(name for event in told for name in event[kind])


def notes(done: Outcome) -> list[str]:
    return [str(event["text"]) for event in done.events if event["event"] == "note"]


def together(lab: Lab, wanted: list[list[str]]) -> list[Outcome]:
    """One job for each list of packages, all at once."""
    jobs = [lab.submit("print('done')", system=system) for system in wanted]
    done: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda job=job: done.append(lab.finish(job))) for job in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


# ------------------------------------------------------------------------------ cold, warm


def test_the_first_job_builds_and_the_second_finds(system_lab: Lab, nix: NixCache) -> None:
    cold = call(system_lab, "tree", system=["tree"])
    assert cold.stdout == b"a tree of leaf\n"
    assert cold.job.predicted.system == "miss"
    phase = cold.phase("system")
    assert (phase.hit, phase.packages, phase.cached) == (False, 2, 0)
    assert listed(cold, "miss") == ["leaf-1.0", "tree-1.0"]
    assert "these 2 derivations will be built" in notes(cold)
    assert (phase.bytes or 0) > 0
    asked = len(nix.requests)

    warm = call(system_lab, "tree", system=["tree"])
    assert warm.stdout == b"a tree of leaf\n"
    assert warm.job.predicted.system == "hit"
    phase = warm.phase("system")
    assert (phase.hit, phase.packages, phase.cached) == (True, 2, 2)
    assert len(nix.requests) == asked
    assert built(system_lab) == ["leaf-1.0", "tree-1.0"]


def test_a_path_that_another_set_brought_is_a_partial_hit(system_lab: Lab, nix: NixCache) -> None:
    call(system_lab, "leaf", system=["leaf"])
    partly = call(system_lab, "tree", "bush", system=["tree", "bush"])
    assert partly.stdout == b"a tree of leaf\na bush of leaf\n"
    phase = partly.phase("system")
    assert (phase.hit, phase.packages, phase.cached) == (False, 3, 1)
    assert listed(partly, "hit") == ["leaf-1.0"]


def test_the_order_and_repetition_of_names_do_not_matter(system_lab: Lab, nix: NixCache) -> None:
    call(system_lab, "leaf", system=["leaf", "bush"])
    again = call(system_lab, "bush", system=["bush", "leaf", "bush"])
    assert (again.stdout, again.phase("system").hit) == (b"a bush of leaf\n", True)


def test_packages_of_a_binary_cache_are_fetched_and_not_built(
    system_lab: Lab, nix: NixCache
) -> None:
    system_lab.defaults["nix"] = nix.settings(substitute=True)
    done = call(system_lab, "tree", system=["tree"])
    assert done.stdout == b"a tree of leaf\n"
    assert len(nix.fetched()) == 2
    exists = system_lab.run("import os; print(os.path.exists('/nix/built'))", system=["tree"])
    assert exists.stdout == b"False\n"


def test_a_path_without_a_trusted_signature_is_built(system_lab: Lab, nix: NixCache) -> None:
    system_lab.defaults["nix"] = nix.settings(substitute=True, trust=False)
    done = call(system_lab, "tree", system=["tree"])
    assert done.stdout == b"a tree of leaf\n"
    assert nix.fetched() == []
    assert built(system_lab) == ["leaf-1.0", "tree-1.0"]
    assert any("not signed" in note for note in notes(done))


def test_of_several_outputs_the_programs_are_on_the_path(system_lab: Lab, nix: NixCache) -> None:
    system_lab.defaults["nix"] = nix.settings(substitute=True)
    done = call(system_lab, "forest", system=["forest"])
    assert done.stdout == b"trees\n"
    assert len(nix.fetched()) == 1  # neither `out` nor the manual


def test_a_package_inside_a_set(system_lab: Lab, nix: NixCache) -> None:
    assert call(system_lab, "oak", system=["sets.oak"]).stdout == b"oak\n"


def test_system_programs_come_first_on_the_path_except_python(
    system_lab: Lab, nix: NixCache
) -> None:
    index = PackageIndex(system_lab.address)
    index.add("alpha", "1.0")
    system_lab.defaults["index"]["url"] = index.url
    code = """
import alpha, os, shutil, subprocess, sys
print(subprocess.run(["gcc"], capture_output=True, text=True).stdout.strip())
print(shutil.which("gcc"), shutil.which("ls"))
print(os.path.dirname(shutil.which("python3")) == os.path.dirname(sys.executable))
"""
    done = system_lab.run(code, dependencies=["alpha"], system=["gcc", "python3"])
    index.stop()
    first, second, third = done.stdout.decode().splitlines()
    assert first == "gcc of our own"
    assert second.startswith("/nix/store/") and second.endswith("/bin/ls")
    assert third == "True"
    names = [phase.name for phase in done.job.phases]
    assert names[names.index("lock") :] == ["lock", "system", "python", "run"]


def test_without_python_packages_too_they_come_before_the_images(
    system_lab: Lab, nix: NixCache
) -> None:
    code = CALLS + "print(sys.executable.startswith('/usr'))"
    done = system_lab.run(code, args=["python3"], system=["python3"])
    assert done.stdout == b"a python of Nix\nTrue\n"


def test_a_warm_job_needs_neither_nix_nor_network(
    system_lab: Lab, nix: NixCache, bare_image: str
) -> None:
    call(system_lab, "tree", system=["tree"])
    nix.stop()
    warm = call(system_lab, "tree", system=["tree"], image=bare_image)
    assert (warm.stdout, warm.phase("system").hit) == (b"a tree of leaf\n", True)


def test_scopes_are_apart(system_lab: Lab, nix: NixCache) -> None:
    call(system_lab, "leaf", system=["leaf"])
    other = call(system_lab, "leaf", system=["leaf"], scope=system_lab.scope + "-b")
    assert (other.stdout, other.phase("system").hit) == (b"leaf\n", False)
    kinds = {(volume.scope, volume.kind) for volume in system_lab.backend.volumes()}
    assert {(system_lab.scope, "system"), (system_lab.scope + "-b", "system")} <= kinds


def test_without_a_cache_every_job_builds_and_stores_nothing(
    system_lab: Lab, nix: NixCache
) -> None:
    for _ in range(2):
        done = call(system_lab, "leaf", system=["leaf"], use_cache=False)
        assert (done.stdout, done.phase("system").hit) == (b"leaf\n", False)
        assert done.job.predicted.system == "miss"
    assert [v for v in system_lab.backend.volumes() if v.scope == system_lab.scope] == []


def test_a_job_without_system_packages_has_none(system_lab: Lab) -> None:
    done = system_lab.run("import os; print(os.path.exists('/nix'))")
    assert done.stdout == b"False\n"
    assert "system" not in [phase.name for phase in done.job.phases]


# ------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("names", "told", "near"),
    [
        (["ffmpge"], "no package called ffmpge", "ffmpeg"),
        (["FFmpeg"], "no package called FFmpeg", "ffmpeg"),
        (["leaf", "sets.aok"], "no package called sets.aok", "sets.oak"),
        (["sets"], "sets is not a package", None),
        (["leaf.bin"], "no package called leaf.bin", None),
        (["leaf'or'1", "_"], "no package called _; there is no package called leaf'or'1", None),
    ],
)
def test_a_name_that_does_not_exist_is_named_with_those_near_it(
    system_lab: Lab, nix: NixCache, names: list[str], told: str, near: str | None
) -> None:
    done = system_lab.run("print('never')", system=names)
    assert (done.job.state, done.job.exit_code) == (JobState.FAILED, 125)
    assert done.stdout == b""
    assert done.error["phase"] == "system"
    assert told in done.error["text"]
    if near:
        assert near in done.error["hint"]


@pytest.mark.parametrize(
    "names",
    [
        ["gcc; rm -rf /"],
        ["../x"],
        ["-rf"],
        ["--option"],
        ["a b"],
        ["${builtins.currentTime}"],
        ['"; abort "x'],
        ["gcc\nleaf"],
        ["."],
        [".."],
        [""],
        ["x" * 201],
        [f"package{number}" for number in range(10_000)],
    ],
    ids=lambda names: ascii(names[0][:20]) + str(len(names)),
)
def test_hostile_names_are_refused_before_submission(lab: Lab, names: list[str]) -> None:
    with pytest.raises(RequestError) as refused:
        lab.submit("print('never')", system=names)
    assert refused.value.field == "system"
    with History() as history:
        assert history.list() == []


def test_many_names_are_no_trouble(system_lab: Lab, nix: NixCache) -> None:
    names = [f"crowd.own{number}" for number in range(500)]
    done = system_lab.run("print('never')", system=names)
    assert done.job.exit_code == 125
    assert "there is no package called crowd.own0;" in done.error["text"]
    assert "and 490 more" in done.error["text"]
    assert "crowd.one0" in done.error["hint"]


# ------------------------------------------------------------------------------ many at once


def test_ten_clients_at_once_make_one_set_once(system_lab: Lab, nix: NixCache) -> None:
    done = together(system_lab, [["tree"]] * 10)
    assert [outcome.stdout for outcome in done] == [b"done\n"] * 10
    assert [outcome.phase("system").hit for outcome in done].count(False) == 1
    assert sorted(built(system_lab)) == ["leaf-1.0", "tree-1.0"]


def test_ten_clients_with_different_sets_build_every_path_once(
    system_lab: Lab, nix: NixCache
) -> None:
    sets = [
        ["leaf"], ["tree"], ["bush"], ["tree", "bush"], ["leaf", "tree"], ["forest"],
        ["forest", "tree"], ["gcc", "leaf"], ["gcc", "bush"], ["ffmpeg", "tree", "slow"],
    ]  # fmt: skip
    done = together(system_lab, sets)
    assert [outcome.stdout for outcome in done] == [b"done\n"] * 10
    assert sorted(built(system_lab)) == [
        "bush-1.0", "ffmpeg-1.0", "forest-1.0", "gcc-1.0", "leaf-1.0", "slow-1.0", "tree-1.0",
    ]  # fmt: skip


def test_garbage_collection_removes_only_unreferenced_paths(system_lab: Lab, nix: NixCache) -> None:
    call(system_lab, "tree", system=["tree"])
    collects = """
import glob, os, shutil, subprocess
subprocess.run(["nix-collect-garbage"], check=True, capture_output=True)
print(len(glob.glob("/nix/store/*-tree-1.0")), len(glob.glob("/nix/store/*-leaf-1.0")))
"""
    assert system_lab.run(collects, system=["bush"]).stdout == b"1 1\n"
    warm = call(system_lab, "tree", system=["tree"])
    assert (warm.stdout, warm.phase("system").hit) == (b"a tree of leaf\n", True)

    drops = "import glob, shutil\nfor one in glob.glob('/nix/var/nix/gcroots/jobs/*'):\n"
    drops += "    if glob.glob(one + '/tree'): shutil.rmtree(one)\n"
    assert system_lab.run(drops + collects, system=["bush"]).stdout == b"0 1\n"
    again = call(system_lab, "tree", system=["tree"])
    assert (again.stdout, again.phase("system").hit) == (b"a tree of leaf\n", False)


def test_a_collector_can_tell_that_a_set_is_in_use(system_lab: Lab, nix: NixCache) -> None:
    code = """
import fcntl, glob
for path in sorted(glob.glob("/nix/var/stoke/*.lock")):
    try:
        fcntl.flock(open(path, "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("free")
    except BlockingIOError:
        print("held")
"""
    # The set's own, gc.lock and init.lock: in use is not being made.
    assert system_lab.run(code, system=["leaf"]).stdout == b"held\nfree\nfree\n"


# ------------------------------------------------------------------------------ bad days


def test_an_image_without_nix_is_refused_with_the_one_that_has_it(
    system_lab: Lab, nix: NixCache, bare_image: str
) -> None:
    done = system_lab.run("print('never')", system=["leaf"], image=bare_image)
    assert (done.job.exit_code, done.stdout) == (125, b"")
    assert "no Nix" in done.error["text"]
    assert "stoke setup image" in done.error["hint"]


@pytest.mark.parametrize(
    ("name", "told"),
    [("broken", "there is no way on"), ("removed", "removed was taken out of the collection")],
)
def test_a_package_that_fails_to_build_reports_why_and_leaves_nothing(
    system_lab: Lab, nix: NixCache, name: str, told: str
) -> None:
    for _ in range(2):
        done = system_lab.run("print('never')", system=["leaf", name])
        assert (done.job.exit_code, done.stdout) == (125, b"")
        told_in = done.error["tail"] if name == "broken" else done.error["text"]
        assert told in told_in
        assert "\x1b" not in done.error["text"]
        assert done.error["hint"] is None
        if name == "broken":
            # All of the build's output is in the log, and none of its words is taken for Nix's.
            lines = [f"line {number}" for number in range(60)]
            assert [line for line in done.stderr.decode().splitlines() if line in lines] == lines
            assert done.error["text"].startswith("builder for '/nix/store/")
            assert done.error["text"].endswith("failed with exit code 3")
    left = system_lab.run(
        "import glob; print(len(glob.glob('/nix/var/nix/gcroots/jobs/*')))", system=["leaf"]
    )
    assert left.stdout == b"1\n"


@pytest.fixture(params=["1m", "30m"])
def small_volume(system_lab: Lab, request: pytest.FixtureRequest) -> None:
    """The scope's system volume on a small disk."""
    if system_lab.backend.name != "docker":
        pytest.skip("a node's folder is no disk of its own")
    request.getfixturevalue("docker_engine").create_volume(
        volume_name(system_lab.scope, "system"),
        labels=volume_labels(system_lab.scope, "system"),
        driver_opts={"type": "tmpfs", "device": "tmpfs", "o": f"size={request.param}"},
    )


@pytest.mark.usefixtures("small_volume")
def test_a_full_disk_is_reported_with_a_hint_that_frees_space(
    system_lab: Lab, nix: NixCache
) -> None:
    full = system_lab.run("print('never')", system=["leaf", "heavy"])
    assert (full.job.exit_code, full.stdout) == (125, b"")
    assert full.error["phase"] == "system"
    assert "stoke cache" in full.error["hint"]


def test_a_collection_that_cannot_be_reached_is_named(system_lab: Lab, nix: NixCache) -> None:
    nix.stop()
    done = system_lab.run("print('never')", system=["leaf"])
    assert done.job.exit_code == 125
    assert nix.url in done.error["text"]
    assert "nix.url" in done.error["hint"]


def test_a_collection_with_another_hash_is_refused(system_lab: Lab, nix: NixCache) -> None:
    system_lab.defaults["nix"] = {**nix.settings(), "sha256": "0" * 52}
    done = system_lab.run("print('never')", system=["leaf"])
    assert done.job.exit_code == 125
    assert "hash mismatch" in done.error["text"]
    assert "nix.sha256" in done.error["hint"]


@pytest.mark.parametrize(
    "harm",
    [
        "store('leaf')",
        "store('tree')",
        "shutil.rmtree(root)",
        "os.unlink(root + '/tree')",
        "open(root + '/stoke-environment.json', 'w').write('{')",
    ],
)
def test_a_damaged_set_is_built_again_once(system_lab: Lab, nix: NixCache, harm: str) -> None:
    call(system_lab, "tree", system=["tree"])
    damages = f"""
import glob, os, shutil, subprocess
(root,) = glob.glob("/nix/var/nix/gcroots/jobs/*")
def store(name):
    (path,) = glob.glob("/nix/store/*-" + name + "-1.0")
    subprocess.run(["chmod", "-R", "u+w", path], check=True)
    shutil.rmtree(path)
{harm}
"""
    assert system_lab.run(damages, system=["tree"]).job.exit_code == 0
    mended = call(system_lab, "tree", system=["tree"])
    assert (mended.stdout, mended.phase("system").hit) == (b"a tree of leaf\n", False)
    assert call(system_lab, "tree", system=["tree"]).phase("system").hit is True


@pytest.mark.parametrize(
    "harm",
    [
        "open(db, 'wb').write(b'not a database' * 1000)",
        "os.unlink(db)",
    ],
)
def test_a_damaged_database_hurts_no_warm_job_and_is_named_by_the_next_cold_one(
    system_lab: Lab, nix: NixCache, harm: str
) -> None:
    call(system_lab, "tree", system=["tree"])
    damages = f"import os; db = '/nix/var/nix/db/db.sqlite'; {harm}"
    system_lab.run(damages, system=["tree"])
    warm = call(system_lab, "tree", system=["tree"])
    assert (warm.stdout, warm.phase("system").hit) == (b"a tree of leaf\n", True)
    cold = system_lab.run("print('never')", system=["bush"])
    assert cold.job.exit_code == 125
    assert "Nix database" in cold.error["text"]
    place = f"-b {system_lab.backend.name} --scope {system_lab.scope}"
    assert f"stoke cache clear --kind system {place}" in cold.error["hint"]

    (volume,) = [
        one
        for one in system_lab.backend.volumes()
        if (one.scope, one.kind) == (system_lab.scope, "system")
    ]
    with History() as history:
        housekeeper = Housekeeper(history, lock_ttl=3600)
        usage = housekeeper.usage(system_lab.backend, volume, lambda _: None)
        assert [one.packages for one in usage.environments] == [("tree",)]
        assert usage.bytes > usage.environments[0].reclaimable > 0
        assert housekeeper.clear(system_lab.backend, volume, lambda _: None).bytes > 0
        assert housekeeper.usage(system_lab.backend, volume, lambda _: None).environments == ()
    assert call(system_lab, "bush", system=["bush"]).stdout == b"a bush of leaf\n"


def test_a_job_that_is_stopped_while_it_builds_leaves_no_half_set(
    system_lab: Lab, nix: NixCache
) -> None:
    late = system_lab.run("print('never')", system=["slow", "leaf"], timeout=0.7)
    assert (late.job.exit_code, late.stdout) == (124, b"")
    done = call(system_lab, "leaf", system=["slow", "leaf"])
    assert (done.stdout, done.phase("system").hit) == (b"leaf\n", False)


def test_system_packages_add_no_rights_to_a_container(system_lab: Lab, nix: NixCache) -> None:
    code = "print([line for line in open('/proc/self/status') if line.startswith('CapEff')])"
    assert b"0000000000000000" in system_lab.run(code, system=["leaf"]).stdout


def test_the_pin_travels_with_the_job(system_lab: Lab, nix: NixCache) -> None:
    done = call(system_lab, "leaf", system=["leaf"])
    with History() as history:
        spec = history.spec(done.job.id) or ""
    assert nix.settings()["sha256"] in spec
    assert os.environ.get("STOKE_NIX__SHA256") is None
