"""Read the entries of a results folder from a tar stream, in bounded memory.

`tarfile` keeps every entry, and reads extended headers of any length. Here the standard library decodes
each header, and this module what is between them: PAX records and GNU's long names.
"""

from __future__ import annotations

import tarfile
from collections.abc import Generator, Iterable, Iterator

from stoke.backend.capabilities import EntryKind, ResultEntry

BLOCK = tarfile.BLOCKSIZE
MAX_HEADER = 1024**2
"""Bytes of an extended header; a path has at most 4,096."""
_KINDS = {
    tarfile.REGTYPE: EntryKind.FILE,
    tarfile.AREGTYPE: EntryKind.FILE,
    tarfile.CONTTYPE: EntryKind.FILE,
    tarfile.DIRTYPE: EntryKind.FOLDER,
    tarfile.LNKTYPE: EntryKind.HARD_LINK,
    tarfile.SYMTYPE: EntryKind.LINK,
}


class DamagedTarError(ValueError):
    """The stream is no tar archive, or ends too early."""


def read_entries(pieces: Iterable[bytes]) -> Generator[ResultEntry]:
    """Give the entries below the archive's one top folder. Raises `DamagedTarError`."""
    stream = _Stream(iter(pieces))
    extended: dict[str, bytes] = {}
    while True:
        block = stream.take(BLOCK)
        if block == bytes(BLOCK):
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise DamagedTarError(f"a header of the archive is damaged: {error}") from error
        size = header.size
        if size < 0:
            raise DamagedTarError("an entry of the archive has a negative size")
        if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            extended |= _pax_records(stream.take_padded(size))
            continue
        if header.type == tarfile.XGLTYPE:
            stream.take_padded(size)
            continue
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            name = stream.take_padded(size).rstrip(b"\0")
            extended["path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"] = name
            continue
        path = extended.get("path", header.name.encode("utf-8", "surrogateescape"))
        target = extended.get("linkpath", header.linkname.encode("utf-8", "surrogateescape"))
        if "size" in extended:
            size = _number(extended["size"])
        extended = {}
        kind = _KINDS.get(header.type, EntryKind.OTHER)
        content = _Content(stream, size)
        inner = _below_top(path)
        if inner or kind is not EntryKind.FOLDER:
            yield ResultEntry(
                inner,
                kind,
                size if kind is EntryKind.FILE else 0,
                header.mode,
                header.mtime,
                _below_top(target) if kind is EntryKind.HARD_LINK else target,
                content.read,
            )
        content.skip()


def _below_top(path: bytes) -> bytes:
    """Return a path without the archive's top folder; empty for the folder itself."""
    return path.removeprefix(b"./").rstrip(b"/").partition(b"/")[2]


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise DamagedTarError("an entry of the archive has no valid size")
    return int(text)


def _pax_records(data: bytes) -> dict[str, bytes]:
    """Return the records `LENGTH KEY=VALUE` of a PAX header that matter here."""
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 12)
        length = _number(data[at:space]) if space > at else 0
        record = data[space + 1 : at + length]
        if not length or at + length > len(data) or not record.endswith(b"\n"):
            raise DamagedTarError("an extended header of the archive is damaged")
        key, equals, value = record[:-1].partition(b"=")
        if equals and key in (b"path", b"linkpath", b"size"):
            records[key.decode()] = value
        at += length
    return records


class _Stream:
    """Bytes from pieces that are cut anywhere."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def some(self, most: int) -> bytes:
        """Return up to `most` bytes, at least one."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                raise DamagedTarError("the archive ended too early")
            self._rest = memoryview(piece)
        taken = bytes(self._rest[:most])
        self._rest = self._rest[most:]
        return taken

    def take(self, size: int) -> bytes:
        taken = self.some(size)
        while len(taken) < size:
            taken += self.some(size - len(taken))
        return taken

    def take_padded(self, size: int) -> bytes:
        """Return an extended header without the padding behind it."""
        if size > MAX_HEADER:
            raise DamagedTarError("an extended header of the archive is too long")
        return self.take(size + -size % BLOCK)[:size] if size else b""


class _Content:
    """The content of one entry, which is read once or skipped."""

    def __init__(self, stream: _Stream, size: int) -> None:
        self._stream = stream
        self._left = size
        self._padding = -size % BLOCK

    def read(self) -> Iterator[bytes]:
        while self._left:
            piece = self._stream.some(self._left)
            self._left -= len(piece)
            yield piece

    def skip(self) -> None:
        for _ in self.read():
            pass
        if self._padding:
            self._stream.take(self._padding)
