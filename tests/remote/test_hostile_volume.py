"""Housekeeping and later jobs on a cache volume that a hostile job wrote to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoke.remote.bundle import runner_source
from stoke.remote.common.seal import sealed, unsealed
from stoke.remote.common.trees import remove_tree
from stoke.remote.housekeeping.job_folders import JOB_FOLDERS
from stoke.remote.protocol import METADATA
from tests.package_index import PackageIndex
from tests.remote.programs import housekeeping_file
from tests.remote.test_runner_pythons import NO_INDEX, Runner

BOUND = 60
"""Seconds that a step may take on a busy machine; each takes about 0.1."""
MEMORY = 1 << 30
KEY = "0" * 32
REQUEST = "1" * 64
# As in the container that looks after a volume: root without a capability, so modes matter.
POWERLESS = ["setpriv", "--bounding-set=-all", "--"] if os.geteuid() == 0 else []


def housekeep(top: Path, kind: str = "python", **operation: Any) -> dict[str, Any]:
    """Return the last line that housekeeping prints, within limits of time and memory."""
    whole = {"kind": kind, "lock_ttl": 3600, **operation}
    if whole["do"] == "prune":
        whole = {"unused": 0, "max_bytes": None, "dry_run": False, **whole}
    limit = f"import resource as r, runpy, sys; r.setrlimit(r.RLIMIT_AS, ({MEMORY}, {MEMORY})); "
    limit += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-I", "-S", "-c", limit, housekeeping_file(kind)]
    done = subprocess.run(
        [*POWERLESS, *command, str(top), json.dumps(whole)],
        capture_output=True,
        timeout=BOUND,
        env={"PATH": "/nowhere"} if not POWERLESS else {"PATH": os.path.dirname(_setpriv())},
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    said: dict[str, Any] = json.loads(lines[-1])
    assert "result" in said or "error" in said
    return said


def _setpriv() -> str:
    return shutil.which("setpriv") or pytest.skip("no setpriv")


# ---------------------------------------------------------------------------- what a job can make


def write(path: str, data: bytes) -> None:
    """Write only to a new file, because an old one may be a pipe."""
    with open(path, "xb") as file:
        file.write(data)


def fifo(path: str) -> None:
    os.mkfifo(path)


def unix_socket(path: str) -> None:
    folder, name = os.path.split(path)
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(folder)  # an address is at most 108 bytes long
            with contextlib.suppress(OSError):
                made.bind(name)
        finally:
            os.fchdir(here)
            os.close(here)


def link_out(path: str) -> None:
    os.symlink(_outside(path), path)


def _outside(path: str) -> str:
    while not os.path.isdir(os.path.join(path, "outside")):
        path = os.path.dirname(path)
    return os.path.join(path, "outside")


def link_to_file_outside(path: str) -> None:
    os.symlink(os.path.join(_outside(path), "precious"), path)


def dangling_link_out(path: str) -> None:
    os.symlink(os.path.join(_outside(path), "not-there"), path)


def link_to_itself(path: str) -> None:
    os.symlink(path, path)


def hard_link_to_outside(path: str) -> None:
    os.link(os.path.join(_outside(path), "precious"), path)


def device(path: str) -> None:
    if os.geteuid() == 0:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    else:
        fifo(path)


def folder(path: str) -> None:
    os.mkdir(path)
    os.mkdir(os.path.join(path, "inside"))


def closed_folder(path: str) -> None:
    folder(path)
    os.chmod(path, 0)


def closed_file(path: str) -> None:
    write(path, b"{}")
    os.chmod(path, 0)


def endless_file(path: str) -> None:
    write(path, b"")
    os.truncate(path, 1 << 40)


def text(path: str) -> None:
    write(path, b"\xff\n{")


def nested_json(path: str) -> None:
    write(path, b"[" * 200_000)


def many_values(path: str) -> None:
    write(path, b'{"packages": [' + b"[]," * 5_000_000 + b'[]], "built_at": 1, "lock": ""}')


def strange_mark(path: str) -> None:
    write(path, b'{"packages": ["\\ud800", "a\\nb"], "built_at": 1e999, "lock": "", "paths": 3}')


def deep(path: str, depth: int = 1200) -> None:
    """Make nested folders, deeper than a path can name."""
    os.mkdir(path)
    here = os.open(path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


THINGS = [
    fifo, unix_socket, link_out, link_to_file_outside, dangling_link_out, link_to_itself,
    hard_link_to_outside, device, folder, closed_folder, closed_file, endless_file, text,
    nested_json, many_values, strange_mark, deep,
]  # fmt: skip

PYTHON_PLACES = [
    "trash", "trash/1-1-1", "housekeeping.lock", "in-use.lock", "housekeeping.json",
    "housekeeping.json.1", "CACHEDIR.TAG", "venvs", f"venvs/{KEY}", f"venvs/{KEY}.lock",
    f"venvs/{KEY}.tmp", f"venvs/{KEY}/{METADATA}", "venvs/x.new", "locks",
    f"locks/{REQUEST}.txt", f"locks/{REQUEST}.lock", "requests", f"requests/{REQUEST}", "uv",
    "uv/archive-v0", "uv/archive-v0/a", "uv/wheels-v5/pypi", "uv/wheels-v5/pypi/numpy",
    "uv/wheels-v5/pypi/numpy/1.0", "bin", "bin/uv-1-x86_64", "pythons", "snapshots",
    "snapshots.lock", "snapshots/objects", "snapshots/objects/11", "snapshots/objects/x",
    f"snapshots/objects/11/{REQUEST[2:]}", f"snapshots/objects/11/{'a' * 16}.new",
    "snapshots/used", f"snapshots/used/{REQUEST}", "snapshots/used/x", "x" * 255, "new\nline",
    "\udcff\udcfe", "-rf",
]  # fmt: skip
SYSTEM_PLACES = [
    "trash", "housekeeping.lock", "housekeeping.json", "housekeeping.json.1", "store",
    f"store/{'0' * 32}-gcc", "store/.links", "var", "var/nix", "var/nix/gcroots",
    "var/nix/gcroots/jobs", f"var/nix/gcroots/jobs/{KEY}", f"var/nix/gcroots/jobs/{KEY}.tmp",
    f"var/nix/gcroots/jobs/{KEY}/{METADATA}", "var/nix/db", "var/stoke",
    "var/stoke/gc.lock", f"var/stoke/{KEY}.lock", "var/stoke/x.lock", "var/stoke/requests",
    f"var/stoke/requests/{REQUEST}", "var/stoke/cache", "x" * 255, "\udcff",
]  # fmt: skip
PLACES = {"python": PYTHON_PLACES, "system": SYSTEM_PLACES}


def put(top: Path, place: str, thing: Any) -> None:
    """Make `thing` at a path, unless an earlier one prevents that."""
    path = os.path.join(top, place)
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.realpath(os.path.dirname(path)).startswith(os.path.realpath(top)):
            thing(path)


@contextlib.contextmanager
def volume() -> Iterator[tuple[Path, Path]]:
    """Return (an empty volume, a folder outside of it that must not change)."""
    with tempfile.TemporaryDirectory(prefix="stoke-") as made:
        outside = Path(made) / "outside"
        (outside / "folder").mkdir(parents=True)
        (outside / "precious").write_text("precious")
        (outside / "folder" / "precious").write_text("precious")
        (outside / "gc.lock").write_text("")
        top = Path(made) / "volume"
        top.mkdir()
        before = list(all_below(outside))
        try:
            yield top, outside
            assert list(all_below(outside)) == before
        finally:
            remove_tree(str(top))


def all_below(folder: Path) -> list[tuple[str, int, bytes]]:
    return sorted(
        (str(path), path.stat().st_mode, b"" if path.is_dir() else path.read_bytes())
        for path in folder.rglob("*")
    )


def check(top: Path, kind: str) -> None:
    """Every operation ends, and clearing leaves the volume as new."""
    housekeep(top, kind, do="usage")
    housekeep(top, kind, do="prune")
    cleared = housekeep(top, kind, do="clear")
    assert cleared["result"]["trouble"] is None
    for path in top.rglob("*"):
        known = path.name in ("CACHEDIR.TAG", "in-use.lock", "housekeeping.lock", "gc.lock")
        assert known if path.is_file() else path.name in ("trash", "var", "stoke")
    usage = housekeep(top, kind, do="usage")["result"]
    assert usage["environments"] == []
    assert usage["bytes"] < 1_000_000


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.__name__)
@pytest.mark.parametrize("kind", PLACES)
def test_one_kind_of_file_in_every_place(kind: str, thing: Any) -> None:
    with volume() as (top, _):
        heavy = thing in (many_values, deep)
        # From the bottom up, so that there is room for all; some in one another's place.
        for place in sorted(PLACES[kind], key=len, reverse=True)[:: 6 if heavy else 1]:
            put(top, place, thing)
        check(top, kind)


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.__name__)
@pytest.mark.parametrize("operation", ["prune", "clear"])
def test_what_every_pod_mounts_is_a_folder_again(operation: str, thing: Any) -> None:
    """The kubelet refuses to start a pod whose folder in the volume is anything else."""
    with volume() as (top, _):
        for name in JOB_FOLDERS:
            put(top, name, thing)
        assert housekeep(top, do=operation)["result"]["trouble"] is None
        for name in JOB_FOLDERS:
            path = top / name
            if os.path.lexists(path):
                assert stat.S_ISDIR(path.lstat().st_mode) and path.stat().st_mode & 0o700 == 0o700


light = st.sampled_from([thing for thing in THINGS if thing not in (many_values, deep)])
hostile = st.lists(st.tuples(st.integers(0, 50), light), min_size=1, max_size=8)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(PLACES)), hostile, st.sampled_from([0o700, 0o000, 0o500]))
def test_any_kinds_of_files_in_any_places(
    kind: str, made: list[tuple[int, Any]], mode: int
) -> None:
    with volume() as (top, _):
        places = PLACES[kind]
        for number, thing in made:
            put(top, places[number % len(places)], thing)
        top.chmod(mode)
        housekeep(top, kind, do="prune", dry_run=True)
        check(top, kind)


def test_forty_huge_metadata_files_cost_neither_memory_nor_time() -> None:
    with volume() as (top, _):
        packages = json.dumps({"packages": ["aa"] * 4_000_000, "built_at": 1, "lock": ""})
        for number in range(40):
            folder = top / "venvs" / f"{number:032x}"
            folder.mkdir(parents=True)
            if number == 0:
                (folder / METADATA).write_text(packages)
            else:
                os.link(top / "venvs" / KEY / METADATA, folder / METADATA)
        usage = housekeep(top, do="usage")["result"]
        assert [one["packages"] for one in usage["environments"]] == [[]] * 40
        check(top, "python")


def test_clearing_a_system_volume_needs_no_descriptor_for_every_lock() -> None:
    with volume() as (top, _):
        (top / "var/stoke").mkdir(parents=True)
        for number in range(3000):
            (top / "var/stoke" / f"{number:032x}.lock").touch()
        check(top, "system")


def test_files_at_any_depth_are_measured() -> None:
    with volume() as (top, _):
        deep(str(top / "deep"), depth=1200)
        here = os.open(top / "deep", os.O_RDONLY)
        for _ in range(1200):
            below = os.open("deeper", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        file = os.open("big", os.O_WRONLY | os.O_CREAT, dir_fd=here)
        os.write(file, b"x" * 3_000_000)
        os.close(file)
        os.close(here)
        used = housekeep(top, do="usage")["result"]["bytes"]
        assert used >= 3_000_000
        assert housekeep(top, do="clear")["result"]["bytes"] == pytest.approx(used, rel=0.01)


# ---------------------------------------------------------------------------- the next job


def test_the_next_job_runs_when_our_files_were_replaced(tmp_path: Path) -> None:
    """Replace environments, lockfiles and requests of another job by other kinds of files."""
    index = PackageIndex("127.0.0.1")
    index.add("alpha", "1.0")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").write_text("precious")
    one = Runner(sys.executable, tmp_path)
    cache = tmp_path / "cache"

    def run() -> list[Any]:
        code, out, err, events = one.run(
            "import alpha; print(alpha.version)",
            requirements=["alpha"],
            index={**NO_INDEX, "url": index.url},
            request=REQUEST,
            on_cache_trouble="fail",
        )
        assert (code, out, err) == (0, b"1.0\n", b""), events
        return [event["hit"] for event in events if event["event"] == "phase"]

    try:
        run()
        assert run() == [True, True, None]
        made = [*cache.glob("venvs/*.lock"), *cache.glob("locks/*"), *cache.glob("requests/*")]
        made += [*cache.glob(f"venvs/*/{METADATA}"), cache / "in-use.lock"]
        made += [path.parent for path in cache.glob(f"venvs/*/{METADATA}")]
        assert len(made) == 7
        for thing in THINGS:
            if thing in (closed_file, closed_folder, deep, many_values):
                continue
            for path in made:
                remove_tree(str(path))
                path.parent.mkdir(exist_ok=True)
                thing(str(path))
            run()
            assert run() == [True, True, None], thing.__name__
            assert (tmp_path / "outside/precious").read_text() == "precious"
            assert os.listdir(tmp_path / "outside") == ["precious"]
    finally:
        index.stop()


def test_a_lockfile_that_a_crash_cut_short_is_resolved_again(tmp_path: Path) -> None:
    """With less in it, it would be a valid lockfile of fewer packages."""
    index = PackageIndex("127.0.0.1")
    index.add("alpha", "1.0")
    index.add("beta", "1.0")
    one = Runner(sys.executable, tmp_path)

    def run() -> bool:
        code, _, err, events = one.run(
            "import alpha, beta",
            requirements=["alpha", "beta"],
            index={**NO_INDEX, "url": index.url},
            request=REQUEST,
            on_cache_trouble="fail",
        )
        assert (code, err) == (0, b""), events
        (hit,) = [one["hit"] for one in events if one.get("phase") == "lock" and "hit" in one]
        return bool(hit)

    try:
        assert not run()
        (lockfile,) = (tmp_path / "cache/locks").glob("*.txt")
        whole = lockfile.read_bytes()
        for size in (0, whole.index(b"beta"), len(whole) - 1):
            lockfile.write_bytes(whole[:size])
            assert [run(), run()] == [False, True], size
            assert lockfile.read_bytes() == whole
    finally:
        index.stop()


@given(st.text(), st.integers(0, 400))
def test_only_a_complete_sealed_lockfile_is_read(text: str, size: int) -> None:
    whole = sealed(text)
    assert unsealed(whole) == text
    assert unsealed(sealed(whole)) == whole
    if size < len(whole):
        assert unsealed(whole[:size]) is None
    assert unsealed(None) is None and unsealed(text) is None


def test_an_environment_that_is_damaged_after_each_build_ends_the_job(tmp_path: Path) -> None:
    """Another job may damage each environment that this one builds."""
    index = PackageIndex("127.0.0.1")
    index.add("alpha", "1.0")
    one = Runner(sys.executable, tmp_path)
    source = runner_source().decode()
    changed = source.replace(
        '        os.stat(os.path.join(folder, "bin", "python"))\n', "        return None\n"
    )
    assert changed != source
    try:
        one.program = str(tmp_path / "runner.py")
        Path(one.program).write_text(changed)
        code, _, _, events = one.run(
            "pass", requirements=["alpha"], index={**NO_INDEX, "url": index.url}
        )
    finally:
        index.stop()
    (error,) = [event for event in events if event["event"] == "error"]
    assert code == 125
    assert "each time it was built" in error["text"]


# ---------------------------------------------------------------------------- deleting


def test_any_depth_is_deleted_and_no_link_followed(tmp_path: Path) -> None:
    tmp_path = tmp_path / "here"
    (tmp_path / "outside").mkdir(parents=True)
    (tmp_path / "outside/precious").write_text("precious")
    top = tmp_path / "top"
    deep(str(top), depth=3000)
    (top / "link").symlink_to(tmp_path / "outside")
    (top / "link to file").symlink_to(tmp_path / "outside/precious")
    (top / ("x" * 255)).mkdir()
    (top / ("x" * 255)).chmod(0)
    remove_tree(str(top))
    assert not top.exists()
    remove_tree(str(tmp_path / "nothing"))
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "outside")
    remove_tree(str(link))
    assert [path.name for path in tmp_path.rglob("*")] == ["outside", "precious"]
