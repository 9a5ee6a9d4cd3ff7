"""Jobs on a real Podman, through its Docker-compatible socket.

Skipped unless STOKE_TEST_PODMAN is set; then `podman` has to be installed, and a test that finds none
fails. The image comes from the Docker engine of the other tests, and is kept in STOKE_CI_CACHE.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.docker import DockerBackend
from backends.docker.check import check_engine
from backends.docker.engine import Engine
from stoke.backend.api import EngineStatus
from stoke.backend.pool import Backends
from stoke.config.loader import load_config
from stoke.errors import EngineError
from stoke.files.paths import job_dir
from stoke.history.job import JobState
from stoke.logs.spool import NOTE
from tests.contract import test_job_contract as contract
from tests.contract import test_workspace_contract as workspaces
from tests.lab import Lab, until
from tests.package_index import PackageIndex
from tests.spools import spooled

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def podman(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a Podman service of this test's own, with storage of its own."""
    if not os.environ.get("STOKE_TEST_PODMAN"):
        pytest.skip("STOKE_TEST_PODMAN is not set")
    program = shutil.which("podman")
    if program is None:
        pytest.fail("STOKE_TEST_PODMAN is set and podman is not installed", pytrace=False)
    image = request.getfixturevalue("podman_image")
    # Podman refuses a runroot of more than 50 characters, as it would have in a worker's own folder.
    folder = Path(tempfile.mkdtemp(prefix="podman-"))
    settings = folder / "containers.conf"
    # By default Podman gives containers the largest limits that the kernel has, and root may have lower
    # ones on this machine.
    settings.write_text('[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n')
    url = f"unix://{folder}/podman.sock"
    storage = ["--root", f"{folder}/root", "--runroot", f"{folder}/run"]
    images = ["--storage-opt", f"additionalimagestore={_copied(program, image)}"]
    command = [program, *storage, *images, "system", "service", "--time", "0", url]
    environment = {**os.environ, "CONTAINERS_CONF": str(settings)}
    # conmon leaves files in its working directory.
    with subprocess.Popen(command, cwd=folder, env=environment) as service:
        try:
            until(lambda: _answers(url), "an answer of the Podman service", seconds=180)
            yield url
        finally:
            service.terminate()
            service.wait()
            # Podman mounts this folder over itself, and it could not be removed.
            subprocess.run(["umount", "--quiet", folder / "root/overlay"])
            shutil.rmtree(folder)


def _copied(program: str, image: str) -> Path:
    """Return a Podman storage that has this image of the Docker engine. It is kept between runs."""
    default = Path.home() / ".cache/stoke-ci"
    store = Path(os.environ.get("STOKE_CI_CACHE", default)) / "podman"
    store.mkdir(parents=True, exist_ok=True)
    podman = [program, "--root", str(store), "--runroot", f"{store}-run"]
    with open(f"{store}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        there = subprocess.run([*podman, "image", "exists", image], capture_output=True)
        if there.returncode != 0:
            # An earlier version of it, most likely.
            subprocess.run([*podman, "rmi", "--all", "--force"], check=True, capture_output=True)
            with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
                load = [*podman, "load"]
                subprocess.run(load, stdin=saved.stdout, check=True, capture_output=True)
    return store


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
def podman_image(docker_engine: Any, bare_image: str) -> str:
    """The id of the bare image, which is the same on both engines."""
    found: str = docker_engine.inspect_image(bare_image)["Id"]
    return found.removeprefix("sha256:")


@pytest.fixture
def lab(podman: str, podman_image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("DOCKER_HOST", podman)
    monkeypatch.setenv("STOKE_DOCKER__IMAGE", podman_image)
    # Podman may take longer to answer at all where other tests use the processors.
    monkeypatch.setattr("backends.docker.engine.CONNECT_SECONDS", 60)
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
    found = {one.what: one for one in check_engine(engine, lab.config)}
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


def test_a_flood_that_is_followed_arrives_whole(lab: Lab) -> None:
    """Podman loses lines of a log that it follows."""
    code = "import time\nfor n in range(30000): print(n, 'x' * (n % 97))\ntime.sleep(0.5)"
    done = lab.run(code)
    assert spooled(job_dir(done.job.id), NOTE) == b""
    assert done.stdout == b"".join(b"%d %s\n" % (n, b"x" * (n % 97)) for n in range(30000))


# The part of the contract in which Podman may differ; a job takes seconds there.
def test_stop_sends_sigterm_and_then_sigkill(lab: Lab) -> None:
    """The job's first line arrives while it runs."""
    contract.test_stop_sends_sigterm_and_then_sigkill(lab, "plain", 30.0, 143, b"ready\n")


def test_a_stop_of_an_ended_job_does_nothing(lab: Lab) -> None:
    job = lab.submit("print(1)")
    until(lambda: lab.backend.inspect(job.id).status is EngineStatus.EXITED, "the end")
    lab.backend.stop(job.id, 0)
    assert isinstance(lab.backend, DockerBackend)
    lab.backend.interrupt(job.id)
    assert lab.finish(job).job.state is JobState.SUCCEEDED


def test_memory_is_limited_and_its_end_is_named(lab: Lab) -> None:
    contract.test_memory_is_limited_and_its_end_is_named(lab)


@pytest.fixture
def host_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a job reach a server on 127.0.0.1. Requested before `lab`, which reads the settings."""
    monkeypatch.setenv("STOKE_DOCKER__NETWORK", "host")


@pytest.mark.usefixtures("host_network")
def test_the_second_job_with_the_same_packages_hits(lab: Lab) -> None:
    index = PackageIndex("127.0.0.1")
    index.add("alpha", "1.0")
    # The bare image has no uv, so the job takes it from the machine's index; alpha comes from ours.
    code = "import alpha; print(alpha.version)"
    try:
        extra = {**lab.defaults["index"], "extra": [index.url]}
        cold = lab.run(code, dependencies=["alpha"], index=extra)
        warm = lab.run(code, dependencies=["alpha"], index=extra)
    finally:
        index.stop()
    assert (cold.stdout, warm.stdout) == (b"1.0\n", b"1.0\n")
    assert (cold.phase("python").hit, warm.phase("python").hit) == (False, True)


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


def test_a_workspace_is_copied_cloned_and_removed(lab: Lab, tmp_path: Path) -> None:
    spaces = workspaces.Workspaces(lab)
    workspaces.test_a_clone_and_a_renamed_one_have_the_files(lab, spaces, tmp_path)
    for name in spaces.mine():
        spaces.keeper.remove(spaces.keeper.find(name))
    assert spaces.mine() == []
    spaces.history.close()
