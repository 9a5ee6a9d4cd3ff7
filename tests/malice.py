"""Answers of a server that means harm, and what reading one of them may cost."""

from __future__ import annotations

import gzip
import itertools
import json
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from hypothesis import strategies as st

from backends.common.answers import MAX_ANSWER

MIB = b"x" * 1024**2
LINES = b"X: y\r\n" * 1000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(bytes(8 * MAX_ANSWER), 9)
DEEP = b"[" * 200_000
FAR = b"http://127.0.0.1:9/elsewhere"


def whole(data: bytes, status: int = 200, headers: bytes = b"") -> bytes:
    """An answer whose body is `data`, after which its connection closes."""
    size = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(data)
    return b"HTTP/1.1 %d Said\r\n%s%s" % (status, headers, size) + data


def _endless(start: bytes, piece: bytes) -> Callable[[], Iterable[bytes]]:
    return lambda: itertools.chain([start], itertools.repeat(piece))


MALICE: dict[str, Callable[[], Iterable[bytes]]] = {
    "endless chunks": _endless(CHUNKED, b"100000\r\n" + MIB + b"\r\n"),
    "endless without a length": _endless(HEAD + b"\r\n", MIB),
    "endless chunk": _endless(CHUNKED + b"fffffffffffff\r\n", MIB),
    "endless size of a chunk": _endless(CHUNKED, b"1" * 1024**2),
    "endless header": _endless(HEAD + b"X: ", MIB),
    "endless headers": _endless(HEAD, LINES),
    "endless status": _endless(b"HTTP/1.1 ", MIB),
    "endless interim answers": _endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "endless trailers": _endless(CHUNKED + b"2\r\n{}\r\n0\r\n", LINES),
    "endless refusal": _endless(b"HTTP/1.1 500 No\r\n\r\n", MIB),
    "deep": lambda: [whole(DEEP)],
    "deep refusal": lambda: [whole(DEEP, 500)],
    "bomb": lambda: [whole(BOMB, headers=b"Content-Encoding: gzip\r\n")],
    "unknown encoding": lambda: [whole(b"abc", headers=b"Content-Encoding: br\r\n")],
    "redirect": lambda: [whole(b"", 302, b"Location: " + FAR + b"\r\n")],
    "redirect that keeps the body": lambda: [whole(b"", 307, b"Location: " + FAR + b"\r\n")],
    "empty": lambda: [whole(b"")],
    "wrong length": lambda: [HEAD + b"Content-Length: -5\r\n\r\n{}", b"}" * 100],
    "two lengths": lambda: [HEAD + b"Content-Length: 2\r\nContent-Length: 900\r\n\r\n[]"],
    "no number as length": lambda: [HEAD + b"Content-Length: \xb2\r\n\r\n[1]"],
    "chunks with extensions": lambda: [CHUNKED + b"3;a=" + b"x" * 10**6 + b"\r\n[1]\r\n0\r\n\r\n"],
    "negative chunk": lambda: [CHUNKED + b"-5\r\n[1]\r\n0\r\n\r\n"],
    "continue and no more": lambda: [b"HTTP/1.1 100 Continue\r\n\r\n"],
    "early hints": lambda: [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"],
    "another protocol": lambda: [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n[1]"],
    "no content": lambda: [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "not modified": lambda: [b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"],
    "another program": lambda: [b"SSH-2.0-OpenSSH_9.2\r\n"],
    "half a body": lambda: [HEAD + b"Content-Length: 100\r\nConnection: close\r\n\r\n" + b'{"a":'],
    "no answer": list,
    "no JSON": lambda: [whole(b"<html>")],
    "no object": lambda: [whole(b"[1, [2], null]")],
    "a number": lambda: [whole(b"5")],
    "long refusal": lambda: [whole(json.dumps({"message": "no " * 10**6}).encode(), 500)],
}


def drip(start: bytes, piece: bytes = b"x") -> Callable[[], Iterator[bytes]]:
    """Each byte arrives long before a socket's timeout, and the answer never ends."""

    def answer() -> Iterator[bytes]:
        yield start
        while True:
            time.sleep(0.02)
            yield piece

    return answer


DRIPS = {
    "status": drip(b"HTTP/1.1 200 "),
    "header": drip(HEAD + b"X: "),
    "headers": drip(HEAD + b"X: y\r\n", b"X"),
    "interim answer": drip(b"HTTP/1.1 100 Continue\r\n"),
    "body": drip(HEAD + b"Content-Length: 1000000\r\n\r\n"),
    "size of a chunk": drip(CHUNKED, b"0"),
    "trailer": drip(CHUNKED + b"2\r\n{}\r\n0\r\n"),
    "refusal": drip(b"HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\n"),
    "refusal without a length": drip(b"HTTP/1.1 403 No\r\n\r\n"),
}

# What a program of the right kind could be told in the wrong place.
wrong_values: st.SearchStrategy[object] = st.sampled_from(
    [None, True, -1, 1 << 70, 1e308, "", "x", "\x1b[31m", [], [1], {}, {"x": {}}, [[{}]]]
)


def spoiled(sound: object) -> st.SearchStrategy[object]:
    """The same document with one value replaced or left out, wherever that is."""
    places = list(_places(sound, ()))
    return st.builds(lambda at, wrong: _replaced(sound, at, wrong), st.sampled_from(places), _WRONG)


_GONE = object()
_WRONG = st.one_of(st.just(_GONE), wrong_values)


def _places(value: object, at: tuple[object, ...]) -> Iterator[tuple[object, ...]]:
    yield at
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _places(inner, (*at, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _places(inner, (*at, number))


def _replaced(value: object, at: tuple[object, ...], wrong: object) -> object:
    if not at:
        return None if wrong is _GONE else wrong
    first, *rest = at
    assert isinstance(value, dict | list)
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    kept = {
        name: _replaced(inner, tuple(rest), wrong) if name == first else inner
        for name, inner in pairs
        if not (name == first and not rest and wrong is _GONE)
    }
    return kept if isinstance(value, dict) else list(kept.values())


@contextmanager
def bounded(mebibytes: int = 400, seconds: float = 60) -> Iterator[None]:
    """Fails where what happens inside takes longer, or makes the process grow by more than that."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert grown < mebibytes, f"grew by {grown} MiB"
    assert time.monotonic() - began < seconds
