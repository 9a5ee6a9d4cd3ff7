"""Follow the logs of 32 containers in one process: exact logs, and seconds until it closes."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from backends.docker.engine import find_address
from bench.docker import docker
from bench.log_tail import waiting_container
from stoke.backend.registry import load_backend
from stoke.config.model import Config, DockerConfig
from stoke.logs.follower import Follower

JOBS = 32
LINES = 20_000


def main() -> None:
    host = find_address(None, os.environ).url
    backend = load_backend("docker", Config(docker=DockerConfig(host=host)))
    expected = b"".join(b"%099d\n" % n for n in range(LINES))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stoke-bench-")))
        names = [stack.enter_context(waiting_container(LINES)) for _ in range(JOBS)]
        threads_before, sockets_before = threading.active_count(), _sockets()

        def follow() -> tuple[list[Follower], list[threading.Thread]]:
            followers = [_follower(backend, name, folder / name) for name in names]
            threads = [threading.Thread(target=one.run) for one in followers]
            for thread in threads:
                thread.start()
            return followers, threads

        quiet = _leave(*follow())
        followers, threads = follow()
        docker("kill", "--signal", "USR1", *names)
        while not all(one.spool.lines for one in followers[:4]):
            time.sleep(0.01)
        busy = _leave(followers, threads)
        began = time.perf_counter()
        _, threads = follow()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - began
        exact = sum((folder / name / "log").read_bytes() == expected for name in names)
        backend.close()
        left = threading.active_count() - threads_before, _sockets() - sockets_before
    slowest = max(quiet, busy)
    good = exact == JOBS and slowest <= 1 and left == (0, 0)
    print(
        f"{JOBS} jobs at once: {exact} exact, {JOBS * LINES / seconds:.0f} lines/s together; left "
        f"within {quiet:.2f} s while quiet, {busy:.2f} s while busy (<= 1); threads and sockets "
        f"left: {left} {'ok' if good else 'NOT REACHED'}",
        flush=True,
    )


def _follower(backend: object, name: str, folder: Path) -> Follower:
    return Follower(
        backend,  # type: ignore[arg-type]
        name,
        "",
        folder,
        lambda _: None,
        lambda: None,
        lambda _: None,
    )


def _leave(followers: list[Follower], threads: list[threading.Thread]) -> float:
    began = time.perf_counter()
    for one in followers:
        one.close()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _sockets() -> int:
    """Return the number of open sockets, without those in the client's connection pool."""
    count = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
        except OSError:
            continue
    return count


if __name__ == "__main__":
    main()
