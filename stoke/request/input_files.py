"""Read the files, addresses and standard input that a request names: bounded and decoded."""

from __future__ import annotations

import codecs
import os
import re
import select
import shlex
import stat
import sys
from typing import TYPE_CHECKING

from stoke.errors import RequestError
from stoke.text.urls import basic_authorization, login_of, split_login

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

MIB = 1024**2
WRITER_SECONDS = 10.0
"""How long to wait for the first writer of a named pipe."""
FETCH_SECONDS = 30.0
STANDARD_INPUT = "standard input"

_WEB_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
# UTF-32 LE begins with the mark of UTF-16 LE, so it is looked for first.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# As pip reads the first two lines of a requirements file.
_DECLARATION = re.compile(rb"#.*?coding[:=][ \t]*([-\w.]+)")
DECLARE = "name its encoding in the first line, for example: # -*- coding: latin-1 -*-"


def read_input(where: str, limit: int) -> bytes:
    """Return the bytes of a file, or of standard input for `-`.

    `RequestError` for a file that cannot be read, one longer than `limit` bytes (a device has no
    end), and a named pipe that nothing writes to.
    """
    named = STANDARD_INPUT if where == "-" else where
    try:
        size = limit + 1
        data = sys.stdin.buffer.read(size) if where == "-" else _read_file(where, size)
    except OSError as error:
        raise RequestError(named, f"cannot be read: {error.strerror}") from None
    return _within(data, limit, named)


def is_web_address(where: str) -> bool:
    return _WEB_ADDRESS.match(where) is not None


def read_web(url: str, limit: int, named: str) -> bytes:
    """Return what an http or https address answers; errors call it `named`, without its password."""
    import http.client
    from urllib.error import HTTPError, URLError
    from urllib.request import Request

    try:
        login, address = split_login(url)
        request = Request(address, headers={"User-Agent": "stoke"})  # noqa: S310
        if login:
            # Not sent on to the host of a redirect.
            header = basic_authorization(*login_of(login))
            request.add_unredirected_header("Authorization", header)
        with _opener().open(request, timeout=FETCH_SECONDS) as answer:
            return _within(answer.read(limit + 1), limit, named)
    except HTTPError as error:
        raise RequestError(named, f"cannot be read: HTTP {error.code} {error.reason}") from None
    except URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise RequestError(named, f"cannot be read: {reason}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise RequestError(named, f"cannot be read: {error or type(error).__name__}") from None


def decode_requirements(data: bytes, named: str) -> str:
    """Return the text of a requirements file, without its byte order mark.

    A byte order mark decides, then a coding comment in the first two lines, then UTF-8: as pip reads
    it. `RequestError` names the line and what to change.
    """
    for mark, marked in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            data, encoding = data[len(mark) :], marked
            break
    else:
        encoding = _declared(data)
        if b"\0" in data[:4096]:
            raise RequestError(
                named,
                "holds NUL bytes: it is not text, or it is UTF-16 without a byte order mark",
                f"for UTF-16: iconv -f utf-16le -t utf-8 {shlex.quote(named)} > requirements.utf8.txt",
            )
    try:
        return data.decode(encoding)
    except LookupError:
        raise RequestError(named, f"declares an unknown encoding, {encoding!r}", DECLARE) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RequestError(
            named,
            f"is not {encoding.upper()} at line {line} (byte 0x{data[error.start]:02x})",
            DECLARE,
        ) from None


def _declared(data: bytes) -> str:
    for line in data.split(b"\n", 2)[:2]:
        if found := _DECLARATION.match(line):
            return found[1].decode("ascii", "replace")
    return "utf-8"


def _within(data: bytes, limit: int, named: str) -> bytes:
    if len(data) > limit:
        raise RequestError(named, f"is longer than {limit // MIB} MiB")
    return data


def _read_file(where: str, size: int) -> bytes:
    """Return up to `size` bytes. Open without blocking: a named pipe may have no writer."""
    descriptor = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        begun = b""
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            begun = _first_of_pipe(descriptor, where)
        os.set_blocking(descriptor, True)
        return begun + file.read(size - len(begun))


def _first_of_pipe(descriptor: int, where: str) -> bytes:
    """Wait until the pipe has a writer, and return the bytes that were read to find out."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if poll.poll(WRITER_SECONDS * 1000):
        return b""
    try:
        begun = os.read(descriptor, 1)
    except BlockingIOError:  # A writer is connected and takes its time.
        return b""
    if not begun:
        raise RequestError(where, "is a named pipe that no program writes to")
    return begun


def _opener() -> OpenerDirector:
    """Return an opener for http and https. urllib's default one also follows a redirect to ftp."""
    from urllib import request

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPRedirectHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
