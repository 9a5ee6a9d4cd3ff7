"""Read files and documents from untrusted sources, within limits and with one kind of error."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

MAX_SETTINGS = 1 << 20
MOST_DEPTH = 64
MOST_VALUES = 2_000_000
# A key of more parts than this makes tomllib's work quadratic.
# It begins at the begin of a word, and no part of it is tried twice: the search is linear.
_LONG_KEY = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){64}"""
)
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


class NotRegularError(OSError):
    """A path does not lead to a regular file."""


class TooMuchError(ValueError):
    """A well-formed document exceeds a limit. The message completes "it ..."."""


def regular(path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """Open a regular file, as the `opener` of `open`; wait for no pipe.

    Raises `NotRegularError` for anything else, and other kinds of `OSError`.
    """
    try:
        file = os.open(path, flags | os.O_NONBLOCK, mode)
    except OSError as error:
        # A folder or a pipe that is opened to write to it, and a link to itself.
        if error.errno not in (errno.EISDIR, errno.ENXIO, errno.ELOOP):
            raise
    else:
        if stat.S_ISREG(os.fstat(file).st_mode):
            return file
        os.close(file)
    raise NotRegularError(errno.EINVAL, "not a regular file", str(path))


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the content of a regular file; follow no link and wait for no pipe.

    Raises `OSError` for anything else, and for a file longer than `limit` bytes.
    """
    from stoke.remote.common.files import read_regular

    data = read_regular(str(path), limit)
    if data is None:
        raise OSError(f"{path} is longer than {limit} bytes")
    return data


def read_json(path: Path, limit: int = MAX_SETTINGS) -> Any:
    """Return the value of one of stoke's own JSON files, of at most `limit` bytes.

    Raises `OSError` if it cannot be read, and `ValueError` if it is not JSON.
    """
    return parse_json(read_bytes(path, limit))


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON document.

    Raises `ValueError` if it is not JSON, and `TooMuchError` if it is nested too deeply or too long.
    """
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    # Strings are left out of the count only if the first count is too high.
    if _count(raw) > MOST_VALUES and _count(_STRINGS.sub(b"", raw)) > MOST_VALUES:
        raise TooMuchError("holds too many values")
    try:
        return _shallow(json.loads(data))
    except RecursionError:
        raise TooMuchError("is nested too deeply") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Return the value of a TOML document. Raises the same errors as `parse_json`."""
    import tomllib

    if _LONG_KEY.search(text):
        raise TooMuchError("has a key of too many parts")
    try:
        value: dict[str, Any] = _shallow(tomllib.loads(text))
    except RecursionError:
        raise TooMuchError("is nested too deeply") from None
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file of settings. Links are followed: people link their settings.

    Raises `OSError` if it cannot be read, and `ValueError` if it is not TOML.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ValueError("not a regular file")
        data = stream.read(MAX_SETTINGS + 1)
    if len(data) > MAX_SETTINGS:
        raise ValueError(f"longer than {MAX_SETTINGS // 1024**2} MiB")
    return parse_toml(data.decode().replace("\r\n", "\n"))


def _count(raw: bytes) -> int:
    return sum(map(raw.count, (b"[", b"{", b",")))


def _shallow(value: Any) -> Any:
    """Return the value if it is nested shallowly enough for recursive functions."""
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return value
    raise TooMuchError("is nested too deeply")
