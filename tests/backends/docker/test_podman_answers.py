"""What Podman answers that Docker does not, from an engine of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.docker import DockerBackend
from stoke.backend.api import EngineState, Frame
from tests.backends.docker.fake_engine import (
    CHUNKED,
    JOB,
    LAST_CHUNK,
    RUNNING,
    FakeEngine,
    chunk,
    fake_engine,
    json_answer,
)

TIME = 1_767_225_600_000_000_000
STARTED = 1_767_225_600.0
SECOND = b"2026-01-01T00:00:00Z "


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path) as engine:
        engine.answers["json"] = [json_answer(record("running"))]
        yield engine


@pytest.fixture
def backend(engine: FakeEngine) -> Iterator[DockerBackend]:
    backend = DockerBackend(engine.config)
    yield backend
    backend.close()


def record(status: str, **state: Any) -> dict[str, Any]:
    times = {"StartedAt": "2026-01-01T00:00:00Z", "FinishedAt": "2026-01-01T00:00:00Z"}
    return {
        **RUNNING,
        "HostConfig": {"LogConfig": {"Type": "k8s-file", "Config": {"max-size": "1000000"}}},
        "State": {"Status": status, "ExitCode": 0, **times, **state},
    }


def log_of(*texts: bytes) -> list[bytes | None]:
    frames = []
    for text in texts:
        data = SECOND + text
        frames.append(chunk(b"\x01\0\0\0" + len(data).to_bytes(4, "big") + data))
    return [CHUNKED, *frames, LAST_CHUNK]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("initialized", EngineState("created")),
        # Its exit code is 0 until it has one.
        ("stopping", EngineState("running", started_at=STARTED)),
        ("exited", EngineState("exited", 0, None, STARTED, STARTED)),
    ],
)
def test_states_that_only_podman_has(
    engine: FakeEngine, backend: DockerBackend, status: str, expected: EngineState
) -> None:
    engine.answers["json"] = [json_answer(record(status))]
    assert backend.inspect(JOB) == expected


def test_a_container_that_is_just_ending_is_removed_all_the_same(
    engine: FakeEngine, backend: DockerBackend
) -> None:
    improper = {"message": f"sending SIGKILL to {JOB}: container state improper: stopped"}
    engine.first_answers[JOB] = [[json_answer(improper, 500)], [json_answer(improper, 500)]]
    engine.answers[JOB] = [b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"]
    backend.remove(JOB)
    assert not engine.first_answers[JOB]
    assert sum(f"/{JOB}?" in path for path in engine.requests) == 3


def read(backend: DockerBackend) -> list[Frame]:
    return [frame for batch in backend.logs(JOB, 0, follow=False) for frame in batch]


def test_times_without_a_fraction(engine: FakeEngine, backend: DockerBackend) -> None:
    engine.answers["logs"] = log_of(b"1\n", b"part", b" of a line\n")
    assert read(backend) == [
        Frame(1, TIME, b"1\n"),
        Frame(1, TIME, b"part"),
        Frame(1, TIME, b" of a line\n"),
    ]
