"""A hundred jobs from four clients while everything unused is pruned and cleared, again and again."""

from __future__ import annotations

import subprocess
import threading
import time

from bench.measure import STOKE, own_home
from tests.package_index import PackageIndex

JOBS = 100
CLIENTS = 4
NAMES = ("one", "two", "three")
# Every file has to be there, to its last byte.
CODE = (
    "import {0}, os; path = os.path.join(os.path.dirname({0}.__file__), 'ballast.bin');"
    "assert len(open(path, 'rb').read()) == 3_000_000"
)


def main() -> None:
    index = PackageIndex("127.0.0.1")
    for name in NAMES:
        index.add(name, "1.0", size=3_000_000)
    with own_home() as env:
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
                command = [STOKE, "run", "-q", "--with", name, "-c", CODE.format(name)]
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
                done = subprocess.run([STOKE, "cache", *command], env=env, capture_output=True)
                runs += 1
                did += b"freed" in done.stderr
        taken = time.perf_counter() - start
    index.stop()
    print(
        f"{JOBS} jobs in {taken:.1f} s under {runs} prunes and clears, {did} of which freed "
        f"something: {len(failed)} failed (0) " + ("NOT REACHED" if failed else "ok"),
        flush=True,
    )
    for stderr in failed[:3]:
        print(stderr.decode(errors="replace"))
