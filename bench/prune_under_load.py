"""A hundred jobs from four clients while unused entries are pruned and cleared repeatedly: on this
machine with Python packages, and in Docker with system packages as well."""

from __future__ import annotations

import json
import subprocess
import threading
import time

from bench.docker import IMAGE, RUN, bridge_address, docker_home
from bench.measure import STOKE, own_home
from tests.nix_cache import NixCache, make_files
from tests.package_index import PackageIndex

JOBS = 100
CLIENTS = 4
NAMES = ("one", "two", "three")
PROGRAMS = {"leaf": "leaf", "tree": "a tree of leaf", "bush": "a bush of leaf"}
# Every file must be complete at the job's beginning and at its end.
CODE = """
import {0}, os, subprocess, sys, time
path = os.path.join(os.path.dirname({0}.__file__), "ballast.bin")
for _ in range(2):
    assert len(open(path, "rb").read()) == 3_000_000
    for program, says in zip(sys.argv[1::2], sys.argv[2::2]):
        assert subprocess.check_output([program], text=True).strip() == says
    time.sleep(0.1)
"""


def main() -> None:
    index = PackageIndex("127.0.0.1")
    with own_home() as env:
        _load("local", index, env, [STOKE, "run", "-b", "local"], ["-b", "local"], {})
    index.stop()

    from backends.docker.engine import Engine

    address = bridge_address()
    index = PackageIndex(address)
    engine = Engine(None)
    with engine.call("make the packages") as api:
        nix = NixCache(address, make_files(api, IMAGE))
    engine.close()
    with docker_home() as (env, scope):
        env["STOKE_NIX"] = json.dumps(nix.settings())
        env["STOKE_DOCKER__IMAGE"] = IMAGE
        place = ["-b", "docker", "--scope", scope]
        _load("docker", index, env, [*RUN, "--scope", scope], place, PROGRAMS)
    index.stop()
    nix.stop()


def _load(
    where: str,
    index: PackageIndex,
    env: dict[str, str],
    run: list[str],
    place: list[str],
    programs: dict[str, str],
) -> None:
    for name in NAMES:
        index.add(name, "1.0", size=3_000_000)
    env["STOKE_INDEX__URL"] = index.url
    failed: list[bytes] = []
    todo = iter(range(JOBS))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                number = next(todo, None)
            if number is None:
                return
            name = NAMES[number % len(NAMES)]
            command = [*run, "-q", "--with", name, "-c", CODE.format(name)]
            if programs:
                program = list(programs)[number % len(programs)]
                command += ["--system", program, "--", program, programs[program]]
            done = subprocess.run(command, env=env, capture_output=True)
            if done.returncode != 0:
                failed.append(done.stderr)

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    start = time.perf_counter()
    for thread in clients:
        thread.start()
    runs, did = 0, 0
    while any(thread.is_alive() for thread in clients):
        for command in (["prune", "--unused", "0s", "--yes"], ["clear", "--yes"]):
            words = [STOKE, "cache", *command, *place]
            done = subprocess.run(words, env=env, capture_output=True)
            runs += 1
            did += b"freed" in done.stderr
    taken = time.perf_counter() - start
    print(
        f"{where}: {JOBS} jobs in {taken:.1f} s under {runs} prunes and clears, {did} of which freed "
        f"something: {len(failed)} failed (0) " + ("NOT REACHED" if failed else "ok"),
        flush=True,
    )
    for stderr in failed[:3]:
        print(stderr.decode(errors="replace"))
