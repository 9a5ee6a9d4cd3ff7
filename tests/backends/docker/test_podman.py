"""Jobs on a real Podman, through its Docker-compatible socket.

Skipped unless STOKE_TEST_PODMAN is set; then `podman` has to be installed. The image comes from the
Docker engine of the other tests.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from backends.docker import DockerBackend
from backends.docker.check import look
from backends.docker.engine import Engine
from stoke.backend.pool import Backends
from stoke.config.loader import load_config
from stoke.errors import EngineError
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.jobs.control import stop
from tests.contract.test_job_contract import WAITS
from tests.lab import Lab, until

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Podman service of this test's own."""
    if not os.environ.get("STOKE_TEST_PODMAN"):
        pytest.skip("STOKE_TEST_PODMAN is not set")
    program = shutil.which("podman")
    assert program, "STOKE_TEST_PODMAN is set and podman is not installed"
    folder = tmp_path_factory.mktemp("podman")
    url = f"unix://{folder}/podman.sock"
    command = [program, "system", "service", "--time", "0", url]
    # conmon leaves files in its working directory.
    with subprocess.Popen(command, cwd=folder) as service:
        try:
            until(lambda: _answers(url), "an answer of the Podman service")
            yield url
        finally:
            service.terminate()


def _answers(url: str) -> bool:
    engine = Engine(url)
    try:
        with engine.call("ask") as api:
            api.ping()
    except EngineError:
        return False
    finally:
        engine.close()
    return True


@pytest.fixture(scope="module")
def podman_image(podman: str, docker_engine: Any, bare_image: str) -> str:
    """The id of the bare image on Podman."""
    engine = Engine(podman)
    with engine.call("load the image") as api:
        before = {one["Id"] for one in api.images()}
        image: str = docker_engine.inspect_image(bare_image)["Id"]
        if image not in before:
            for _ in api.load_image(docker_engine.get_image(bare_image)) or ():
                pass
        assert api.inspect_image(image)["Id"]
    engine.close()
    return image


@pytest.fixture
def lab(podman: str, podman_image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("DOCKER_HOST", podman)
    monkeypatch.setenv("STOKE_DOCKER__IMAGE", podman_image)
    config = load_config()
    backends = Backends(config)
    backend = backends.get("docker")
    assert isinstance(backend, DockerBackend)
    scope = f"test-{secrets.token_hex(4)}"
    yield Lab(backend, config, scope, "127.0.0.1")
    for job in backend.jobs():
        if job.scope == scope:
            backend.remove(job.job_id)
    backend.forget_scope(scope)
    backends.close()


def test_the_check_names_podman_and_its_log_driver(lab: Lab, podman: str) -> None:
    engine = Engine(podman)
    found = {one.what: one for one in look(engine, lab.config)}
    engine.close()
    assert found["engine"].detail.startswith("Podman ")
    assert found["log driver"].works and "k8s-file" in found["log driver"].detail


def test_output_is_exact(lab: Lab) -> None:
    code = """
import os, sys
os.write(1, bytes(range(256)) * 300)
os.write(2, b"no end, \\xff\\xfe, \\r\\n, \\x1e, \\n" + b"y" * 100_000 + b"\\nhalf a line")
sys.exit(7)
"""
    done = lab.run(code)
    assert (done.job.state, done.job.exit_code) == (JobState.FAILED, 7)
    assert done.stdout == bytes(range(256)) * 300
    half = b"y" * 100_000 + b"\nhalf a line"
    assert done.stderr == b"no end, \xff\xfe, \r\n, \x1e, \n" + half


@pytest.mark.parametrize(("how", "grace", "exit_code"), [("polite", 30.0, 3), ("deaf", 1.0, 137)])
def test_stop(lab: Lab, how: str, grace: float, exit_code: int) -> None:
    job = lab.submit(WAITS, args=[how])
    tracker = lab.track(job)
    lab.until_output(job, b"ready\n")
    tracker.close()
    with History() as history:
        stop(job, lab.backend, history, grace)
    done = lab.finish(job)
    assert (done.job.state, done.job.exit_code) == (JobState.STOPPED, exit_code)


def test_limits_reach_the_container(lab: Lab) -> None:
    done = lab.run("x = bytearray(400 * 1024**2)", memory=64 * 1024**2)
    assert (done.job.state, done.job.exit_code) == (JobState.FAILED, 137)
    assert "out of memory" in (done.job.reason or "")


def test_the_cache_volume_is_listed_in_use_and_removed(lab: Lab) -> None:
    def volumes() -> list[tuple[str, ...]]:
        return [one.in_use_by for one in lab.backend.volumes() if one.scope == lab.scope]

    job = lab.submit("import time; time.sleep(600)")
    assert volumes() == [(job.id,)]
    lab.backend.stop(job.id, 0)
    until(lambda: volumes() == [()], "a volume that nothing uses")
    (volume,) = [one for one in lab.backend.volumes() if one.scope == lab.scope]
    usage = {"do": "usage", "kind": "python", "lock_ttl": 60.0}
    assert lab.backend.housekeep(volume, usage, lambda _: None)["bytes"] >= 0
    lab.finish(job)
    assert isinstance(lab.backend, DockerBackend)
    lab.backend.forget_scope(lab.scope)
    assert volumes() == []
