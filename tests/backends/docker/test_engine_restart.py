"""The engine stops in the middle of a job and starts again: on a private engine of our own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoke.backend.pool import Backends
from stoke.config.model import Config, DockerConfig
from stoke.errors import EngineError
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.jobs.tracker import FOREIGN_SIGNAL, Tracker
from tests.lab import Lab, until

pytestmark = pytest.mark.docker


NO_NETWORK = ("--bridge=none", "--iptables=false", "--ip6tables=false")


class PrivateEngine:
    """A dockerd with its own data and its own network namespace.

    Its own namespace, because an engine without a bridge takes away the bridge of every other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        places = [
            f"--{name}={self.folder / name}" for name in ("data-root", "exec-root", "pidfile")
        ]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--net", "dockerd", *places, *NO_NETWORK, "--host", self.host],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._answers, f"an answer of the engine in {self.folder}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is None:
            return
        # unshare executes dockerd: this is the engine itself.
        self._process.send_signal(number)
        self._process.wait(60)
        self._process = None
        # A killed engine's containerd is killed with it and leaves a file that says it runs.
        (self.folder / "exec-root/containerd/containerd.pid").unlink(missing_ok=True)

    def load(self, image: str) -> None:
        """Copy an image of the engine that the other tests use."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
            load = ["docker", "--host", self.host, "load"]
            subprocess.run(load, stdin=save.stdout, check=True, capture_output=True)
        assert save.returncode == 0

    def hold(self) -> None:
        """Stopped in its tracks: it keeps its connections and takes new ones, and answers none."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def let_go(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        command = ["docker", "--host", self.host, "version"]
        return subprocess.run(command, capture_output=True).returncode == 0


def remove_mounts(folder: Path) -> None:
    """Unmount what an engine leaves in its folder; it mounts its data folder onto itself."""
    for mounted in ("exec-root/netns", "data-root"):
        subprocess.run(["umount", "--recursive", "--lazy", "--quiet", folder / mounted])


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a short name: the path of a socket may have 107 characters and no more."""
    with tempfile.TemporaryDirectory(prefix="stoke-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def engine(docker_engine: object, bare_image: str, short_path: Path) -> Iterator[PrivateEngine]:
    yield from private_engine(bare_image, short_path)


def private_engine(bare_image: str, short_path: Path) -> Iterator[PrivateEngine]:
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        if os.environ.get("STOKE_TEST_DOCKER"):
            pytest.fail("a private engine needs root and dockerd")
        pytest.skip("a private engine needs root and dockerd")
    engine = PrivateEngine(short_path)
    try:
        engine.start()
        engine.load(bare_image)
        yield engine
    finally:
        engine.stop()
        remove_mounts(short_path)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_is_found_again_after_the_engine_went_away_in_its_middle(
    engine: PrivateEngine, bare_image: str, how: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoke.logs.follower.BACKOFF_SECONDS", (0.05, 0.2))
    config = Config(docker=DockerConfig(host=engine.host, image=bare_image, network="none"))
    backends = Backends(config)
    lab = Lab(backends.get("docker"), config, "default", "")
    code = "import time; print('before', flush=True); time.sleep(600); print('after')"
    job = lab.submit(code, use_cache=False)
    troubles: list[EngineError] = []
    with History() as history:
        tracker = Tracker(lab.backend, history, job.id, on_trouble=troubles.append)
        thread = threading.Thread(target=tracker.run)
        thread.start()
        lab.until_output(job, b"before\n")
        engine.stop(how)
        until(lambda: bool(troubles), "word that the engine cannot be reached")
        during = history.get(job.id)
        assert during is not None and (not during.state.finished or during.provisional)
        engine.start()
        if how == signal.SIGKILL:
            # What the engine left running it takes up again, as it should; end it.
            lab.backend.stop(job.id, 0)
        thread.join(60)
        assert not thread.is_alive()
        ended = history.get(job.id)
    assert ended is not None and not ended.provisional
    assert ended.state in (JobState.FAILED, JobState.STOPPED)
    assert ended.exit_code in (137, 143)
    if ended.state is JobState.STOPPED:
        assert ended.reason == FOREIGN_SIGNAL
    assert lab.output(job, 1) == b"before\n"
    backends.close()


@pytest.mark.parametrize("ends", ["restart", "kill", "stop"])
def test_only_an_end_by_a_restart_of_the_engine_is_the_engines_fault(
    engine: PrivateEngine, bare_image: str, ends: str
) -> None:
    config = Config(docker=DockerConfig(host=engine.host, image=bare_image, network="none"))
    backends = Backends(config)
    lab = Lab(backends.get("docker"), config, "default", "")
    code = "import time; print('before', flush=True); time.sleep(600)"
    job = lab.submit(code, use_cache=False)
    tracker = lab.track(job)
    lab.until_output(job, b"before\n")
    if ends == "restart":
        engine.stop()
        engine.start()
    else:
        command = ["docker", "--host", engine.host, ends, job.id]
        subprocess.run(command, check=True, capture_output=True)
    tracker.close()
    state = lab.backend.inspect(job.id)
    assert (state.status, state.exit_code) == ("exited", 137 if ends == "kill" else 143)
    assert state.cause == ("engine-restart" if ends == "restart" else None)
    backends.close()


COUNTS = """
import sys, time
for number in range(2000):
    print(number, "x" * (number % 89), flush=True)
    print(number, file=sys.stderr, flush=True)
    time.sleep(0.002)
sys.exit(3)
"""


@pytest.mark.parametrize("noticed", [False, True])
def test_f08_an_engine_that_was_stopped_for_a_while_loses_nothing(
    engine: PrivateEngine, bare_image: str, noticed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the silence is taken for the end of a connection, and the next one gets no answer."""
    if noticed:
        monkeypatch.setattr("stoke.logs.follower.BACKOFF_SECONDS", (0.05, 0.2))
        monkeypatch.setattr("backends.docker.log.SILENCE_SECONDS", 0.3)
        monkeypatch.setattr("backends.docker.engine.ANSWER_SECONDS", 0.5)
    config = Config(docker=DockerConfig(host=engine.host, image=bare_image, network="none"))
    backends = Backends(config)
    lab = Lab(backends.get("docker"), config, "default", "")
    job = lab.submit(COUNTS, use_cache=False)
    troubles: list[EngineError] = []
    with History() as history:
        tracker = Tracker(lab.backend, history, job.id, on_trouble=troubles.append)
        thread = threading.Thread(target=tracker.run)
        thread.start()
        lab.until_output(job, b"\n500 ")
        engine.hold()
        try:
            held = len(lab.output(job, 1))
            if noticed:
                until(lambda: len(troubles) > 1, "word that the engine does not answer")
            else:
                # What the engine had sent before arrives; and then nothing does.
                while held != (held := len(lab.output(job, 1))):
                    time.sleep(0.3)
            during = history.get(job.id)
            assert during is not None and not during.state.finished
        finally:
            engine.let_go()
        thread.join(60)
        assert not thread.is_alive()
        ended = history.get(job.id)
    assert ended is not None and not ended.provisional
    assert (ended.state, ended.exit_code, ended.log_gaps) == (JobState.FAILED, 3, 0)
    lines = [b"%d %s\n" % (number, b"x" * (number % 89)) for number in range(2000)]
    assert lab.output(job, 1) == b"".join(lines)
    assert lab.output(job, 2) == b"".join(b"%d\n" % number for number in range(2000))
    assert held < len(lab.output(job, 1))
    backends.close()


@pytest.fixture
def engine_on_a_small_disk(
    docker_engine: object, bare_image: str, short_path: Path
) -> Iterator[PrivateEngine]:
    """A private engine whose disk has 64 MiB beyond the image."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    command = ["docker", "image", "inspect", "-f", "{{.Size}}", bare_image]
    image = int(subprocess.run(command, check=True, capture_output=True).stdout)
    # The layer is there twice while it is loaded.
    size = f"size={2 * image + (64 << 20)},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", short_path], check=True)
    try:
        yield from private_engine(bare_image, short_path)
    finally:
        subprocess.run(["umount", "--lazy", short_path], check=True)


FILLS_TMP = """
import errno, sys, tempfile
print("before", flush=True)
with tempfile.TemporaryFile() as file:
    try:
        while True:
            file.write(bytes(1 << 20))
    except OSError as error:
        print(errno.errorcode[error.errno], file=sys.stderr)
        sys.stderr.flush()
print("after", flush=True)
sys.exit(3)
"""


def test_a_job_that_fills_the_disk_of_its_engine_ends_as_it_exits(
    engine_on_a_small_disk: PrivateEngine, bare_image: str
) -> None:
    """The engine may lose lines of the log meanwhile; the job is not lost."""
    host = engine_on_a_small_disk.host
    config = Config(docker=DockerConfig(host=host, image=bare_image, network="none"))
    backends = Backends(config)
    lab = Lab(backends.get("docker"), config, "default", "")
    done = lab.run(FILLS_TMP, use_cache=False)
    assert (done.job.state, done.job.exit_code) == (JobState.FAILED, 3)
    assert done.stdout.startswith(b"before\n")
    assert lab.run("print('next')", use_cache=False).stdout == b"next\n"
    backends.close()
