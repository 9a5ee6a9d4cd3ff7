"""An open log: its end, its cut, its errors and its closing are told apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.docker import DockerBackend
from stoke.backend import Frame
from stoke.errors import EngineError
from tests.backends.docker.fake_engine import (
    CHUNKED,
    HOLD,
    LAST_CHUNK,
    OK,
    FakeEngine,
    chunk,
    fake_engine,
    json_answer,
)
from tests.backends.docker.streams import encode, raw

SENT = [Frame(1 + n % 2, 1_700_000_000_000_000_000 + n, b"line %d\n" % n) for n in range(20)]
BODY = b"".join(chunk(encode(frame)) for frame in SENT)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path) as engine:
        yield engine


@pytest.fixture
def backend(engine: FakeEngine) -> Iterator[DockerBackend]:
    backend = DockerBackend(engine.config)
    yield backend
    backend.close()


def read(backend: DockerBackend) -> tuple[list[Frame], EngineError | None]:
    """Every frame of a log, and what it ended with."""
    got: list[Frame] = []
    try:
        for batch in backend.logs("job-aaaaaa", 0, follow=True):
            got += batch
    except EngineError as error:
        return got, error
    return got, None


def test_the_engines_end_is_an_end(engine: FakeEngine, backend: DockerBackend) -> None:
    engine.answers["logs"] = [CHUNKED, BODY, LAST_CHUNK]
    assert read(backend) == (SENT, None)


def test_an_empty_log_ends(engine: FakeEngine, backend: DockerBackend) -> None:
    engine.answers["logs"] = [CHUNKED, LAST_CHUNK]
    assert read(backend) == ([], None)


def test_an_answer_of_known_length_is_read_too(engine: FakeEngine, backend: DockerBackend) -> None:
    body = b"".join(encode(frame) for frame in SENT)
    head = OK + b"Content-Length: %d\r\n\r\n" % len(body)
    engine.answers["logs"] = [head, body]
    assert read(backend) == (SENT, None)
    engine.answers["logs"] = [head, body[:-5]]
    got, error = read(backend)
    assert got == SENT[:-1] and error is not None


def test_a_cut_is_an_error_wherever_it_comes(engine: FakeEngine, backend: DockerBackend) -> None:
    for end in [*range(200), len(BODY) - 1, len(BODY), len(BODY) + 1]:
        engine.answers["logs"] = [CHUNKED, (BODY + LAST_CHUNK)[:end]]
        got, error = read(backend)
        assert got == SENT[: len(got)]
        assert error is not None and "cut" in error.what, f"cut at {end}"


def test_frames_before_a_failure_are_given_first(
    engine: FakeEngine, backend: DockerBackend
) -> None:
    failure = chunk(raw(3, b"Error grabbing logs: disk gone"))
    engine.answers["logs"] = [CHUNKED, BODY, failure, LAST_CHUNK]
    got, error = read(backend)
    assert got == SENT
    assert error is not None and "disk gone" in error.what


@pytest.mark.parametrize(("status", "word"), [(404, "No such container"), (409, "dead")])
def test_a_container_that_has_gone_is_an_error(
    engine: FakeEngine, backend: DockerBackend, status: int, word: str
) -> None:
    engine.answers["logs"] = [json_answer({"message": f"{word}: job-aaaaaa"}, status)]
    with pytest.raises(EngineError, match=word):
        backend.logs("job-aaaaaa", 0, follow=True)


def test_the_resume_point_is_sent_to_the_nanosecond(
    engine: FakeEngine, backend: DockerBackend
) -> None:
    engine.answers["logs"] = [CHUNKED, LAST_CHUNK]
    for _ in backend.logs("job-aaaaaa", 1_700_000_000_000_000_119, follow=False):
        pass
    (request,) = [path for path in engine.requests if "/logs" in path]
    assert "since=1700000000.000000119" in request
    assert "follow=0" in request and "timestamps=1" in request


@pytest.mark.parametrize("before", [[CHUNKED], [CHUNKED, BODY], [CHUNKED, BODY[:-3]]])
def test_closing_unblocks_a_reader_and_is_no_error(
    engine: FakeEngine, backend: DockerBackend, before: list[bytes]
) -> None:
    engine.answers["logs"] = [*before, HOLD]
    log = backend.logs("job-aaaaaa", 0, follow=True)
    got: list[Frame] = []
    errors: list[EngineError] = []
    waiting = threading.Event()

    def follow() -> None:
        try:
            if before == [CHUNKED]:
                waiting.set()
            for batch in log:
                got.extend(batch)
                waiting.set()
        except EngineError as error:
            errors.append(error)

    reader = threading.Thread(target=follow)
    reader.start()
    assert waiting.wait(20)
    log.close()
    reader.join(20)
    assert not reader.is_alive()
    assert errors == []
    assert got == SENT[: len(got)]
    log.close()


def test_closing_before_reading_leaves_nothing_to_read(
    engine: FakeEngine, backend: DockerBackend
) -> None:
    engine.answers["logs"] = [CHUNKED, BODY, HOLD]
    log = backend.logs("job-aaaaaa", 0, follow=True)
    log.close()
    assert list(log) == []
