"""An open log: its end, its cut, its errors and its closing are distinguished."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from backends.docker import DockerBackend
from stoke.backend.api import Frame, LogBehindError, LogDeniedError
from stoke.errors import EngineError
from stoke.logs.follower import Follower
from stoke.logs.resume import OVERLAP
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
from tests.lab import until

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


def test_f07_a_followed_log_that_comes_late_is_left_before_it_is_taken(
    engine: FakeEngine, backend: DockerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine whose files fill at once: old frames may follow a hole, except the beginning of the
    first file."""
    monkeypatch.setattr("backends.docker.log.FASTEST", 1 << 80)
    engine.answers["logs"] = [CHUNKED, BODY, LAST_CHUNK]
    assert read(backend) == (SENT, None)
    monkeypatch.setattr("backends.docker.log.LARGEST", {"local": 1 << 50})
    engine.answers["logs"] = [CHUNKED, BODY, LAST_CHUNK]
    late, error = read(backend)
    assert late == [] and isinstance(error, LogBehindError)
    whole = [frame for batch in backend.logs("job-aaaaaa", 0, follow=False) for frame in batch]
    assert whole == SENT
    # What comes again because it was asked for is as old as it was.
    again = backend.logs("job-aaaaaa", SENT[0].time, follow=True)
    assert [frame for batch in again for frame in batch] == SENT


def test_a_stream_ended_by_the_engine_ends_cleanly(
    engine: FakeEngine, backend: DockerBackend
) -> None:
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
def test_a_removed_container_is_an_error(
    engine: FakeEngine, backend: DockerBackend, status: int, word: str
) -> None:
    engine.answers["logs"] = [json_answer({"message": f"{word}: job-aaaaaa"}, status)]
    with pytest.raises(EngineError, match=word):
        backend.logs("job-aaaaaa", 0, follow=True)


def test_c04_c05_c08_c20_the_request_for_a_log(engine: FakeEngine, backend: DockerBackend) -> None:
    """Always the times, the resume point to the nanosecond, and never a tail of what is followed."""
    engine.answers["logs"] = [CHUNKED, LAST_CHUNK]
    for since in (0, 1_700_000_000_000_000_119):
        for _ in backend.logs("job-aaaaaa", since, True):
            pass
    always = {"stdout": ["1"], "stderr": ["1"], "timestamps": ["1"], "follow": ["1"]}
    assert asked(engine) == [always, {**always, "since": ["1700000000.000000119"]}]


def asked(engine: FakeEngine) -> list[dict[str, list[str]]]:
    return [parse_qs(urlsplit(path).query) for path in engine.requests if "/logs" in path]


@pytest.mark.parametrize(("before", "asks"), [(OVERLAP + 1, 1), (OVERLAP, 3), (0, 3)])
def test_c08_the_end_of_a_finished_log_is_read_from_its_end(
    engine: FakeEngine, backend: DockerBackend, before: int, asks: int
) -> None:
    """The last lines are enough only where they begin before what was asked for."""
    since = SENT[0].time + before
    later = [Frame(1, since + n, b"later %d\n" % n) for n in range(3)]
    body = b"".join(chunk(encode(frame)) for frame in [*SENT[:1], *later])
    engine.answers["logs"] = [CHUNKED, body, LAST_CHUNK]
    got = [frame for batch in backend.logs("job-aaaaaa", since, False) for frame in batch]
    assert got == (later if before else [*SENT[:1], *later])
    places = [(one.get("tail"), one.get("since")) for one in asked(engine)]
    whole = f"{since // 10**9}.{since % 10**9:09d}"
    assert places == [(["1000"], None), (["40000"], None), (None, [whole])][:asks]


def test_c23_closing_while_the_log_is_asked_for_again(
    engine: FakeEngine, backend: DockerBackend
) -> None:
    engine.answers["logs"] = [CHUNKED, BODY, HOLD]
    log = backend.logs("job-aaaaaa", SENT[0].time, False)
    reader = threading.Thread(target=lambda: list(log))
    reader.start()
    until(lambda: len(asked(engine)) == 3, "the log asked for by its time")
    log.close()
    reader.join(20)
    assert not reader.is_alive()
    backend.close()
    until(lambda: connections_to(engine) == 0, "every connection closed")


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


def test_c09_parts_of_lines_ends_and_whole_lines_in_one_read(
    engine: FakeEngine, backend: DockerBackend
) -> None:
    """What is taken apart at once and what needs a closer look, in any neighbourhood."""
    part = b"x" * 16 * 1024
    datas = [
        b"a\n",
        b"b\n",
        part,
        b"rest\n",
        b"\n",
        b"no end",
        b"c\n",
        b"\x01\0\0\0\0\0\0\x05\n",
        b"d\n",
    ]
    sent = [Frame(1 + n % 2, 1_700_000_000_000_000_000 + n, data) for n, data in enumerate(datas)]
    engine.answers["logs"] = [CHUNKED, *[chunk(encode(frame)) for frame in sent], LAST_CHUNK]
    got, error = read(backend)
    assert error is None
    assert [frame.data for frame in got] == datas
    assert got == sent


def test_c19_c21_a_silent_connection_ends_as_a_hint_and_no_more(
    engine: FakeEngine, backend: DockerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half open, or of a file that was rotated away: the follower connects again."""
    monkeypatch.setattr("backends.docker.log.SILENCE_SECONDS", 0.05)
    engine.answers["logs"] = [CHUNKED, BODY, HOLD]
    assert read(backend) == (SENT, None)
    # A pass that is not followed must not pass for whole.
    log = backend.logs("job-aaaaaa", 0, follow=False)
    with pytest.raises(EngineError, match="cut"):
        for _ in log:
            pass


@pytest.mark.parametrize("status", [401, 403, 501])
def test_c03_a_log_that_is_never_given(
    engine: FakeEngine, backend: DockerBackend, status: int
) -> None:
    engine.answers["logs"] = [json_answer({"message": "not for you"}, status)]
    with pytest.raises(LogDeniedError, match="not for you"):
        backend.logs("job-aaaaaa", 0, follow=True)


@pytest.mark.parametrize("answer", [[CHUNKED, HOLD], [CHUNKED, BODY, HOLD], []])
def test_c23_closing_leaves_no_thread_and_no_socket(
    engine: FakeEngine, backend: DockerBackend, tmp_path: Path, answer: list[bytes | None]
) -> None:
    """While nothing comes, behind what came, and while it waits to try again."""
    engine.answers["logs"] = answer
    threads = set(threading.enumerate())
    told: list[EngineError] = []
    follower = Follower(
        backend,
        "job-aaaaaa",
        "",
        tmp_path / "spool",
        lambda _: None,
        lambda: None,
        told.append,
    )
    thread = threading.Thread(target=follower.run)
    thread.start()
    until(lambda: any("/logs" in path for path in engine.requests), "the log asked for")
    if answer == [CHUNKED, BODY, HOLD]:
        until(lambda: follower.spool.lines == len(SENT), "its lines")
    follower.close()
    thread.join(20)
    backend.close()
    assert not thread.is_alive()
    ours = {one for one in threading.enumerate() if one.name != "engine"} - threads
    assert ours == set()
    assert open_files(str(tmp_path / "spool")) == [] and connections_to(engine) == 0


def open_files(word: str) -> list[str]:
    names = []
    for number in listed_descriptors():
        with suppress(FileNotFoundError):  # The engine's thread closes its own meanwhile.
            names.append(os.readlink(f"/proc/self/fd/{number}"))
    return [name for name in names if word in name]


def listed_descriptors() -> list[str]:
    return [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]


def connections_to(engine: FakeEngine) -> int:
    """Sockets of this process whose other end is the engine's."""
    count = 0
    for name in listed_descriptors():
        copy = os.dup(int(name))
        try:
            one = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            continue
        with one:
            try:
                count += one.getpeername() == engine.url.removeprefix("unix://")
            except OSError:
                pass
    return count
