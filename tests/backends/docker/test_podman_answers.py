"""What Podman answers that Docker does not, from an engine of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.docker import DockerBackend
from backends.docker.names import job_labels
from backends.docker.podman_log import ReadingDiff
from stoke.backend.api import EngineState, EngineStatus, Frame, LogBehindError, LogEndingError
from stoke.errors import RequestError
from tests.backends.docker.deliveries import delivery
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
from tests.hints import command, is_hint

TIME = 1_767_225_600_000_000_000
STARTED = 1_767_225_600.0
SECOND = b"2026-01-01T00:00:00Z "


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path) as engine:
        engine.answers["json"] = [json_answer(record("running"))]
        components = [{"Name": "Podman Engine", "Version": "4.3.1"}]
        engine.version = {"ApiVersion": "1.41", "Arch": "amd64", "Components": components}
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
        # Whatever driver was asked for, and although it is "k8s-file".
        "HostConfig": {"LogConfig": {"Type": "json-file", "Config": None}},
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
        ("initialized", EngineState(EngineStatus.CREATED)),
        # Its exit code is 0 until it has one.
        ("stopping", EngineState(EngineStatus.RUNNING, started_at=STARTED)),
        ("exited", EngineState(EngineStatus.EXITED, 0, None, STARTED, STARTED)),
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


@pytest.mark.parametrize(
    ("asked", "field"), [({"memory": 64 * 1024**2}, "memory"), ({"cpu": 1.0}, "cpu")]
)
def test_a_limit_that_the_engine_drops_is_refused_and_nothing_is_left(
    engine: FakeEngine, backend: DockerBackend, asked: dict[str, Any], field: str
) -> None:
    made = delivery("pass", use_cache=False, **asked)
    dropped = record("created")
    dropped["Config"] = {"Labels": job_labels(made.job_id, made.spec.scope, made.nonce)}
    dropped["HostConfig"] |= {"Memory": 0, "NanoCpus": 0}
    engine.answers["json"] = [json_answer(dropped)]
    engine.answers["create"] = [json_answer({"Id": "1" * 64, "Warnings": []}, 201)]
    engine.answers[made.job_id] = [b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"]
    with pytest.raises(RequestError) as caught:
        backend.submit(made, lambda *_: None)
    assert caught.value.field == field
    hint = is_hint(caught.value.hint, "see the line 'limits' of: stoke doctor")
    assert command(hint) == ["doctor"]
    assert any(f"/{made.job_id}?" in path for path in engine.requests)
    assert not any(path.endswith("/start") for path in engine.requests)


def read(backend: DockerBackend) -> list[Frame]:
    return [frame for batch in backend.logs(JOB, 0, follow=False) for frame in batch]


def test_times_without_a_fraction(engine: FakeEngine, backend: DockerBackend) -> None:
    engine.answers["logs"] = log_of(b"1\n", b"part", b" of a line\n")
    assert read(backend) == [
        Frame(1, TIME, b"1\n"),
        Frame(1, TIME, b"part"),
        Frame(1, TIME, b" of a line\n"),
    ]


def test_half_a_line_that_podman_sends_as_a_whole_one_is_not_taken(
    engine: FakeEngine, backend: DockerBackend
) -> None:
    engine.first_answers["logs"] = [log_of(b"1\n", b"2\n", b"\n")]
    engine.answers["logs"] = log_of(b"1\n", b"2\n", b"3\n", b"4\n")
    got: list[Frame] = []
    with pytest.raises(LogEndingError):
        for batch in backend.logs(JOB, 0, follow=False):
            got += batch
    assert [frame.data for frame in got] == [b"1\n", b"2\n", b"3\n"]
    assert [frame.data for frame in read(backend)] == [b"1\n", b"2\n", b"3\n", b"4\n"]


def test_no_text_is_taken_from_a_followed_log(engine: FakeEngine, backend: DockerBackend) -> None:
    engine.first_answers["logs"] = [log_of(b"2\n"), log_of(b"1\n", b"2\n", b"3\n")]
    got = [frame.data for batch in backend.logs(JOB, 0, follow=True) for frame in batch]
    # The followed log has ended, so the job may have. The rest is read when it is known to.
    assert got == [b"1\n", b"2\n"]
    assert ["follow=1" in path for path in engine.requests if "/logs?" in path] == [True, False]


def test_a_log_that_begins_again_is_not_taken_for_the_one_before(
    engine: FakeEngine, backend: DockerBackend
) -> None:
    engine.first_answers["logs"] = [log_of(b"1\n", b"2\n", b"3\n"), log_of(b"4\n", b"5\n", b"6\n")]
    got: list[Frame] = []
    with pytest.raises(LogBehindError):
        for batch in backend.logs(JOB, 0, follow=False):
            got += batch
    assert [frame.data for frame in got] == [b"1\n", b"2\n"]


@pytest.mark.parametrize("follow", [False, True])
def test_the_log_of_a_container_that_has_ended_is_read_once_and_not_followed(
    engine: FakeEngine, backend: DockerBackend, follow: bool
) -> None:
    engine.answers["json"] = [json_answer(record("exited"))]
    engine.answers["logs"] = log_of(b"1\n")
    got = [frame.data for batch in backend.logs(JOB, 0, follow) for frame in batch]
    assert got == [b"1\n"]
    assert ["follow=1" in path for path in engine.requests if "/logs?" in path] == [False]


SECONDS = st.lists(st.integers(0, 2), max_size=12)
LINES = st.sampled_from([b"\n", b"1\n", b"12\n", b"123"])


@given(steps=SECONDS, data=st.data())
def test_readings_of_a_log_that_grows_add_up_to_it(steps: list[int], data: st.DataObject) -> None:
    log: list[Frame] = []
    moment = TIME
    for step in steps:
        moment += step * 1_000_000_000
        log.append(Frame(data.draw(st.sampled_from([1, 2])), moment, data.draw(LINES)))
    readings = ReadingDiff(0)
    got: list[Frame] = []

    def read(size: int, half: bool) -> None:
        seen = log[:size]
        if half and seen:
            last = seen.pop()
            seen.append(last._replace(data=last.data[: len(last.data) // 2] + b"\n"))
        since = readings.next_since()
        seen = [frame for frame in seen if frame.time >= since]
        batch = data.draw(st.integers(1, 5))
        for new in readings.new_frames(seen[at : at + batch] for at in range(0, len(seen), batch)):
            assert new
            got.extend(new)

    size = 0
    while size < len(log):
        before = size
        size = data.draw(st.integers(size, len(log)))
        # The line that is the last one now was half written at most once.
        read(size, half=size > before and data.draw(st.booleans()))
        assert got == log[: len(got)]
        assert size - len(got) <= 1
    read(size, half=False)
    read(size, half=False)
    assert got == log
