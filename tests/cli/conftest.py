"""The installed program, run as people run it: a process with streams, or one at a terminal."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from stoke.history.database import History
from stoke.history.job import Job
from stoke.request.fields import Option
from tests.conftest import TestCluster
from tests.package_index import PackageIndex
from tests.terminals import PATIENCE, PROGRAM, Terminal


class Stoke(Protocol):
    def __call__(
        self, *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]: ...


@pytest.fixture
def stoke(own_home: Path) -> Stoke:
    """Runs the console script to its end; its streams are pipes."""

    def run(
        *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [PROGRAM, *arguments],
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            env={**os.environ, **(env or {})},
        )

    return run


@pytest.fixture
def start(own_home: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts the console script and leaves it running; it is gone after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def given(option: Option, value: str) -> list[str]:
    """The words that give an option a value; one that can be left out follows a =."""
    flag = option.flags[-1]
    return [f"{flag}={value}"] if option.alone else [flag, value]


@pytest.fixture
def terminal(own_home: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def run(*arguments: str, env: dict[str, str] | None = None) -> Terminal:
        opened.append(Terminal(*arguments, env=env))
        return opened[-1]

    yield run
    for one in opened:
        one.close()


@pytest.fixture(autouse=True)
def in_no_project(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of the tests run in a folder of no project, so they send none of this repository."""
    monkeypatch.chdir(own_home)


@pytest.fixture(autouse=True)
def no_job_left(own_home: Path) -> Iterator[None]:
    """A test that fails in the middle leaves no process behind."""
    yield
    for started in own_home.glob("state/local/*/started.json"):
        if not (started.parent / "status.json").exists():
            pid = re.search(rb'"pid": (\d+)', started.read_bytes())
            assert pid is not None
            try:
                os.kill(int(pid[1]), signal.SIGQUIT)
            except ProcessLookupError:
                pass


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    """alpha 1.0 and 2.0, beta 1.0 (needs alpha); what `run` asks unless a test names another."""
    served = PackageIndex("127.0.0.1")
    served.add("alpha", "1.0")
    served.add("alpha", "2.0")
    served.add("beta", "1.0", ["alpha"])
    monkeypatch.setenv("STOKE_INDEX__URL", served.url)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    yield served
    served.stop()


def only_job() -> Job:
    """The one job in the history."""
    with History() as history:
        (job,) = history.list()
    return job


def job_count(home: Path) -> int:
    if not (home / "state/history.sqlite").exists():
        return 0
    with History() as history:
        return len(history.list())


@pytest.fixture
def scope(
    real_cluster: TestCluster,
    cluster_cleanup: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A scope of its own on the cluster; every command of the test knows that cluster."""
    monkeypatch.setenv("STOKE_ARGO__KUBECONFIG", real_cluster.kubeconfig)
    monkeypatch.setenv("STOKE_ARGO__IMAGE", real_cluster.image)
    if real_cluster.service_account:
        monkeypatch.setenv("STOKE_ARGO__SERVICE_ACCOUNT", real_cluster.service_account)
    scope = f"test-{secrets.token_hex(4)}"
    monkeypatch.setenv("STOKE_SCOPE", scope)
    monkeypatch.setenv("STOKE_BACKEND", "argo")
    cluster_cleanup(scope)
    return scope


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def place(request: pytest.FixtureRequest) -> list[str]:
    """The options of `stoke run` for a job on this machine, then for one in Docker."""
    if request.param == "local":
        return []
    image, scope = map(request.getfixturevalue, ("docker_image", "docker_scope"))
    return ["-b", "docker", "--image", image, "--scope", scope]
