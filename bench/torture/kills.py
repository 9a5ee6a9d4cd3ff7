"""Attacks that kill clients, followers, jobs and an engine."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time

from bench.torture.arena import PATIENCE, Arena, SkippedError, docker_engine, flood

DEAF = """import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


def kill_the_client(arena: Arena) -> None:
    """`stoke run` gets SIGKILL at a random moment: its job ends, and its log is whole."""
    code, wanted = flood(2_000)
    client = arena.start("run", "-c", code)
    try:
        client.communicate(timeout=arena.random.uniform(0, 3))
    except subprocess.TimeoutExpired:
        client.kill()
        client.communicate()
    for job in arena.until_finished():
        if job["state"] != "lost":
            assert job["state"] == "succeeded", f"{job['id']} is {job['state']}"
            _, log = arena.run("logs", job["id"])
            assert hashlib.sha256(log).hexdigest() == wanted, f"{job['id']}: the log differs"


def cut_a_flood(arena: Arena) -> None:
    """Followers of a large log are killed one after the other; the log is whole in the end."""
    code, wanted = flood(arena.random.randrange(20_000, 200_000))
    status, out = arena.run("run", "--detach", "-c", code)
    assert status == 0, "stoke run --detach fails"
    job = out.decode().split()[-1]
    for _ in range(3):
        follower = arena.start("logs", "--follow", job)
        try:
            follower.communicate(timeout=arena.random.uniform(0.2, 1.5))
        except subprocess.TimeoutExpired:
            follower.kill()
            follower.communicate()
    arena.until_finished()
    _, log = arena.run("logs", job)
    assert hashlib.sha256(log).hexdigest() == wanted, "the log differs"


def stop_a_deaf_job(arena: Arena) -> None:
    """A job that ignores SIGTERM and SIGINT ends with its grace."""
    status, out = arena.run("run", "--detach", "-c", DEAF)
    assert status == 0, "stoke run --detach fails"
    job = out.decode().split()[-1]
    deadline = time.monotonic() + PATIENCE
    while b"deaf" not in arena.run("logs", job)[1]:
        assert time.monotonic() < deadline, "the job never began"
    how = arena.random.choice([("--now",), ()])
    assert arena.run("stop", *how, job)[0] == 0, "stoke stop fails"
    (ended,) = arena.until_finished()
    assert ended["state"] == "stopped", f"the job is {ended['state']}"


def kill_an_engine(arena: Arena) -> None:
    """A Docker engine gets SIGKILL while jobs run, and starts again: jobs end, no line comes twice."""
    from stoke.jobs.tracker import FOREIGN_SIGNAL
    from tests.backends.docker.test_engine_restart import PrivateEngine, remove_mounts

    if os.geteuid() != 0 or not shutil.which("dockerd"):
        raise SkippedError("needs root and dockerd")
    image = os.environ.get("STOKE_TEST_IMAGE_BARE", "stoke-test/bare:latest")
    if not docker_engine().images(image):
        raise SkippedError(f"the engine has no image {image}")
    engine = PrivateEngine(arena.folder)
    engine.start()
    try:
        engine.load(image)
        docker = {
            "STOKE_BACKEND": "docker",
            "STOKE_DOCKER__HOST": engine.host,
            "STOKE_DOCKER__IMAGE": image,
            "STOKE_DOCKER__NETWORK": "none",
        }
        code = "import time\nfor n in range(300): print(n, flush=True); time.sleep(0.01)"
        clients = [arena.start("run", "-c", code, **docker) for _ in range(3)]
        time.sleep(arena.random.uniform(0, 6))
        engine.stop(signal.SIGKILL)
        time.sleep(arena.random.uniform(0, 2))
        engine.start()
        for client in clients:
            arena.end(client)
        lost = 0
        for job in arena.until_finished(**docker):
            if job["state"] == "lost":
                continue
            # An engine that dies while it starts a container reports an end of the container, and one
            # that finds a container at its own start stops it.
            by_engine = job["state"] == "stopped" and job["reason"] == FOREIGN_SIGNAL
            right = by_engine or job["state"] in ("succeeded", "failed")
            assert right, f"{job['id']} is {job['state']}: {job['reason']}"
            status, log = arena.run("logs", job["id"], **docker)
            assert status == 0, "stoke logs fails"
            # The engine loses what it has read and not written, and what it cannot read back.
            lines = [int(line) for line in log.split(b"\n")[:-1] if line.isdigit()]
            assert lines == sorted({*lines}), f"{job['id']}: lines twice or out of order"
            lost += 300 - len(lines)
        arena.found = f"3 jobs; {lost} lines lost by the engine"
    finally:
        engine.stop()
        remove_mounts(arena.folder)
