"""An engine that is lost between a request of a submit and its answer: what is certain is reported, and
the rest is settled once it answers again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from backends.docker import DockerBackend
from backends.docker.engine import DEFAULT_SOCKET
from stoke.backend.api import UnsettledSubmitError
from stoke.backend.pool import Backends
from stoke.config.model import Config, DockerConfig
from stoke.errors import EngineError
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.jobs.prepare import prepare
from stoke.jobs.refresh import refresh
from stoke.jobs.request import Request
from stoke.jobs.submit import submit
from stoke.logs.spool import STDOUT
from stoke.request.spec import make_spec
from tests.lab import until
from tests.spools import spooled

pytestmark = pytest.mark.docker


class DyingEngine:
    """A proxy of the real engine that dies at a request, before or after the engine gets it."""

    def __init__(self, path: Path, at: bytes, forwards: bool) -> None:
        self.path = path
        self._at, self._forwards = at, forwards
        self.is_dead = False
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self.revive()

    def revive(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        assert self._listener is not None
        self.path.unlink(missing_ok=True)
        # Closing alone wakes no thread that waits for one of them.
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(DEFAULT_SOCKET.removeprefix("unix://"))
            self._open.append(client)
            for pair in ((client, engine), (engine, client)):
                threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        while True:
            try:
                data = source.recv(1 << 16)
                if self._at in data and not self.is_dead:
                    self._die(target, data)
                    return
                target.sendall(data)
                if not data:
                    target.shutdown(socket.SHUT_RDWR)
                    return
            except OSError:
                return

    def _die(self, engine: socket.socket, request: bytes) -> None:
        self.is_dead = True
        if self._forwards:
            # On a connection of its own, whose answer no thread passes on.
            with socket.socket(socket.AF_UNIX) as own:
                own.connect(DEFAULT_SOCKET.removeprefix("unix://"))
                own.sendall(request)
                own.recv(1 << 16)
        engine.shutdown(socket.SHUT_RDWR)
        self.close()


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    monkeypatch.setenv("STOKE_STATE_DIR", str(tmp_path / "state"))
    with History() as made:
        yield made


@pytest.mark.parametrize(
    ("at", "forwards", "fact", "ends"),
    [
        (b"/start HTTP", True, "it is unknown whether the job began", JobState.SUCCEEDED),
        (b"/start HTTP", False, "it is unknown whether the job began", JobState.LOST),
        (b"/archive?", False, "the job did not begin", JobState.LOST),
        (b"/containers/create?", False, "the job did not begin", JobState.LOST),
    ],
)
def test_a_submit_whose_engine_dies_is_settled_by_the_next_refresh(
    history: History,
    docker_engine: Any,
    docker_image: str,
    docker_scope: str,
    tmp_path: Path,
    at: bytes,
    forwards: bool,
    fact: str,
    ends: JobState,
) -> None:
    engine = DyingEngine(tmp_path / "e.sock", at, forwards)
    config = Config(docker=DockerConfig(host=f"unix://{engine.path}", image=docker_image))
    backends = Backends(config)
    backend = backends.get("docker")
    assert isinstance(backend, DockerBackend)
    request = Request(make_spec({"code": "print('ran')", "scope": docker_scope}))
    try:
        with pytest.raises(UnsettledSubmitError, match=fact) as caught:
            submit(prepare(request, backend, history), history)
        (job,) = history.list()
        assert caught.value.hint is not None and caught.value.hint.endswith(f"stoke show {job.id}")
        assert not job.state.finished and fact in (job.reason or "")
        (stale,) = refresh([job], backends, history, seconds=60)
        assert stale.stale and not stale.state.finished

        engine.revive()
        found = job

        def is_settled() -> bool:
            nonlocal found
            (found,) = refresh([job], backends, history, seconds=60)
            return found.state.finished and not found.provisional

        until(is_settled, "the end of the job", seconds=60)
        assert found.state is ends, found.reason
        if ends is JobState.SUCCEEDED:
            assert spooled(job_dir(job.id), STDOUT) == b"ran\n"
        else:
            assert fact in (found.reason or "")
        assert not docker_engine.containers(all=True, filters={"name": [job.id]})
    finally:
        engine.close()
        backends.close()


def test_an_engine_that_is_gone_before_the_first_request_has_nothing(
    history: History, docker_image: str, docker_scope: str, tmp_path: Path
) -> None:
    """The engine dies at the look for the image, and the record is final at once."""
    engine = DyingEngine(tmp_path / "e.sock", b"/images/", forwards=False)
    config = Config(docker=DockerConfig(host=f"unix://{engine.path}", image=docker_image))
    backend = DockerBackend(config)
    request = Request(make_spec({"code": "print(1)", "scope": docker_scope}))
    with pytest.raises(EngineError) as caught:
        submit(prepare(request, backend, history), history)
    assert not isinstance(caught.value, UnsettledSubmitError)
    (job,) = history.list()
    assert (job.state, job.exit_code) == (JobState.FAILED, 125)
    backend.close()
