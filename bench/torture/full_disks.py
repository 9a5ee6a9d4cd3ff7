"""Attacks that fill the disk of the state, of a cache and of a Docker volume."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network

from bench.torture.arena import FULL_DISK, USES_DOCKER, Arena, docker_engine, flood, small_disk


def fill_the_disk(arena: Arena) -> None:
    """The state is on a file system that the job's log fills: the job succeeds all the same."""
    state = arena.folder / "state"
    with small_disk(state):
        code, _ = flood(arena.random.randrange(40_000, 80_000))
        status, _ = arena.run("run", "-c", code)
        assert status == 0, f"stoke run ends with {status}"
        (job,) = arena.until_finished()
        assert job["state"] == "succeeded", f"the job is {job['state']}"


def fill_the_cache(arena: Arena) -> None:
    """Packages do not fit on the cache's disk: the job runs without the cache, the next one with it."""
    with small_disk(arena.folder / "cache"), _index(arena, "127.0.0.1") as url:
        _fill_a_cache(arena, url)


def fill_a_docker_volume(arena: Arena) -> None:
    """The same with a Docker volume."""
    engine = docker_engine()
    (arena.folder / USES_DOCKER).touch()
    from backends.common.names import SCOPE
    from backends.docker.names import volume_labels, volume_name

    engine.create_volume(
        volume_name(arena.scope, "python"),
        labels=volume_labels(arena.scope, "python"),
        driver_opts={"type": "tmpfs", "device": "tmpfs", "o": f"size={FULL_DISK}"},
    )
    (subnet,) = engine.inspect_network("bridge")["IPAM"]["Config"][:1]
    address = subnet.get("Gateway") or str(next(ip_network(subnet["Subnet"]).hosts()))
    image = os.environ.get("STOKE_TEST_IMAGE", "stoke-test/full:latest")
    volume = f"{volume_name(arena.scope, 'python')}:/cache"
    # Docker empties such a volume when no container has it.
    holder = ["docker", "run", "-d", "-v", volume, "--label", f"{SCOPE}={arena.scope}", image]
    subprocess.run([*holder, "sleep", "600"], check=True, capture_output=True)
    with _index(arena, address) as url:
        _fill_a_cache(arena, url, STOKE_BACKEND="docker", STOKE_DOCKER__IMAGE=image)


def _fill_a_cache(arena: Arena, url: str, **more: str) -> None:
    heavy = "import heavy; print(heavy.version)"
    for _ in range(2):
        status, out = arena.run("run", "-w", "heavy", "--index", url, "-c", heavy, **more)
        assert (status, out) == (0, b"1.0\n"), f"with heavy packages: {status}, {out!r}"
    light = ("--json", "-w", "light", "--index", url, "-c", "import light")
    hits = []
    for _ in range(2):
        status, out = arena.run("run", *light, **more)
        assert status == 0, f"with light packages: {status}"
        hits += [one["hit"] for one in json.loads(out)["phases"] if one["name"] == "python"]
    assert hits == [False, True], f"hits {hits} instead of a miss and a hit"


@contextmanager
def _index(arena: Arena, address: str) -> Iterator[str]:
    from tests.package_index import PackageIndex

    index = PackageIndex(address)
    index.add("light", "1.0")
    index.add("heavy", "1.0", size=arena.random.randrange(FULL_DISK, 4 * FULL_DISK))
    try:
        yield index.url
    finally:
        index.stop()
