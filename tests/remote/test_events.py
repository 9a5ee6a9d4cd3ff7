"""Events are separated exactly from the user's bytes, for streams cut into any pieces."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stoke.remote.events import MAX_FRAME, Event, EventScanner
from stoke.remote.protocol import frame

NONCE = "5f1c0a9be2d34718"
MARK = b"\n\x1e" + NONCE.encode()

# Bytes that resemble a frame without being one: pieces of the mark, alone and joined.
_RESEMBLING = st.sampled_from(
    [b"\n", b"\x1e", b"\n\x1e", MARK[:-1], NONCE.encode(), b'{"event":"note"}', b"\n\n", b"\r\n"]
)
USER_BYTES = st.lists(st.one_of(st.binary(max_size=40), _RESEMBLING), max_size=6).map(b"".join)
_TEXT = st.text("ab\n\x1e\u00e9\U0001f600", max_size=40)
_TIME = st.floats(0, 2e9)
EVENTS = st.one_of(
    st.builds(lambda text: {"event": "note", "text": text}, _TEXT),
    st.builds(lambda phase, time: {"event": "begin", "phase": phase, "time": time}, _TEXT, _TIME),
    st.builds(
        lambda time, code, reason: {
            "event": "end",
            "time": time,
            "exit_code": code,
            "reason": reason,
        },
        _TIME,
        st.integers(0, 255),
        st.none() | _TEXT,
    ),
    st.builds(lambda text: {"event": "not known yet", "x": [text]}, _TEXT),
)


def scan(pieces: list[bytes]) -> tuple[bytes, list[Event], list[int]]:
    """Return (the user's bytes, the events, the number of user bytes before each event)."""
    scanner = EventScanner(NONCE)
    user = b""
    events: list[Event] = []
    before: list[int] = []
    for piece in pieces:
        for part in scanner.feed(piece):
            if isinstance(part, bytes):
                user += part
            else:
                events.append(part)
                before.append(len(user))
    return user + scanner.flush(), events, before


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(
    parts=st.lists(st.one_of(USER_BYTES, EVENTS), max_size=8),
    places=st.lists(st.integers(0, 10**6), max_size=12),
)
@example(parts=[b"no end", {"event": "ping"}, b"\n", {"event": "pong"}], places=[])
@example(parts=[b"\n", {"event": "ping"}, b"\n\n"], places=list(range(60)))
def test_events_and_user_bytes_come_apart_exactly(
    parts: list[bytes | Event], places: list[int]
) -> None:
    log = user = b""
    events: list[Event] = []
    before: list[int] = []
    for part in parts:
        if isinstance(part, bytes):
            log += part
            user += part
        else:
            log += frame(NONCE, part)
            events.append(part)
            before.append(len(user))

    assert scan(cut(log, places)) == (user, events, before)


def test_every_single_cut_of_a_stream_gives_the_same() -> None:
    log = (
        b"a\n" + frame(NONCE, {"event": "note", "text": "x"}) + b"b" + frame(NONCE, {"event": "e"})
    )
    for place in range(len(log) + 1):
        user, events, before = scan([log[:place], log[place:]])
        assert (user, [event["event"] for event in events], before) == (
            b"a\nb",
            ["note", "e"],
            [2, 3],
        )
    assert scan([log[at : at + 1] for at in range(len(log))])[0] == b"a\nb"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b"[1, 2]",
        b"17",
        b'"event"',
        b"{}",
        b'{"event": 3}',
        b'{"phase": "run"}',
        b'{"event": "ping"} and more',
        b'{"event": "begin", "phase": "run"}',
        b'{"event": "begin", "phase": 3, "time": 1}',
        b'{"event": "begin", "phase": "run", "time": "soon"}',
        b'{"event": "begin", "phase": "run", "time": NaN}',
        b'{"event": "begin", "phase": "run", "time": 1e999}',
        b'{"event": "phase", "phase": "run", "start": 1, "seconds": 1, "bytes": "many"}',
        b'{"event": "end", "time": 1, "exit_code": null}',
        b'{"event": "end", "time": 1, "exit_code": true}',
        b'{"event": "end", "time": 1, "exit_code": 99999999999999999999}',
        b'{"event": "note"}',
        b"[" * 5000,
        b'{"event": "\xff"}',
    ],
)
def test_a_mark_without_an_event_is_the_users_bytes(body: bytes) -> None:
    log = b"before" + MARK + body + b"\nafter"
    real = frame(NONCE, {"event": "pong"})

    user, events, before = scan([log + real + b"last"])

    assert user == log + b"last"
    assert events == [{"event": "pong"}]
    assert before == [len(log)]


def test_a_frame_after_a_broken_one_is_found() -> None:
    broken = MARK + b"half of a fr"
    user, events, _ = scan([broken + frame(NONCE, {"event": "pong"})])
    assert user == broken
    assert events == [{"event": "pong"}]


def test_another_jobs_frame_is_the_users_bytes() -> None:
    """A job that prints another job's log, or runs stoke itself."""
    foreign = frame("0000000000000000", {"event": "end", "exit_code": 7})
    user, events, _ = scan([b"out" + foreign])
    assert user == b"out" + foreign
    assert events == []


def test_a_frame_that_never_ends_is_the_users_bytes() -> None:
    whole = frame(NONCE, {"event": "pong"})
    for length in range(len(whole)):
        assert scan([b"x" + whole[:length]]) == (b"x" + whole[:length], [], [])


def test_more_bytes_than_a_frame_has_are_not_held_back() -> None:
    endless = MARK + b'{"event":"' + b"x" * (4 * MAX_FRAME)
    scanner = EventScanner(NONCE)
    passed = 0
    for at in range(0, len(endless), 100):
        passed += sum(len(part) for part in scanner.feed(endless[at : at + 100]))
        assert len(scanner.held) <= MAX_FRAME
    assert passed + len(scanner.flush()) == len(endless)

    whole = MARK + json.dumps({"event": "note", "text": "x" * MAX_FRAME}).encode() + b"\n"
    assert scan([whole]) == (whole, [], [])


def test_only_the_newline_of_the_users_line_is_held_back() -> None:
    scanner = EventScanner(NONCE)
    assert list(scanner.feed(b"a line\n")) == [b"a line"]
    assert scanner.held == b"\n"
    assert list(scanner.feed(b"next")) == [b"\nnext"]
    assert scanner.held == b""


def test_a_scanner_continues_where_another_one_stopped() -> None:
    log = b"text" + frame(NONCE, {"event": "pong"}) + b"more\n"
    for place in range(len(log) + 1):
        first, second = EventScanner(NONCE), EventScanner(NONCE)
        parts = list(first.feed(log[:place]))
        second.hold(first.held)
        parts += list(second.feed(log[place:]))
        assert b"".join(part for part in parts if isinstance(part, bytes)) + second.flush() == (
            b"textmore\n"
        )
        assert [part for part in parts if not isinstance(part, bytes)] == [{"event": "pong"}]
