"""Decode HTTP's chunked encoding, many chunks a call.

Engines send one chunk for each line of a log, and the standard library returns one chunk a call.
"""

from __future__ import annotations

MAX_SIZE_LINE = 256


class ChunkedDecoder:
    """Decode a chunked body from pieces that are cut anywhere.

    `ended` is set after the last chunk; without it the body was cut. `left` is the number of bytes
    of the current chunk that are still missing.
    """

    def __init__(self) -> None:
        self.ended = False
        self.left = 0
        # The incomplete bytes between two chunks: the end of one and the size of the next. It
        # starts with an end, so that the first chunk is like the others.
        self._rest = b"\r\n"

    def take_rest(self) -> bytes:
        """Remove and return the incomplete bytes between two chunks, to be fed again."""
        rest, self._rest = self._rest, b""
        return rest

    def feed(self, data: bytes) -> bytes:
        """Return the decoded bytes. Raises `ValueError` if the body is not chunked."""
        pieces = []
        at, end = 0, len(data)
        if self.left:
            pieces.append(data[: self.left])
            at = min(self.left, end)
            self.left -= at
        elif self._rest:
            data, self._rest = self._rest + data, b""
            end = len(data)
        while at < end and not self.ended:
            line = data.find(b"\r\n", at + 2)
            if line < 0:
                if end - at > MAX_SIZE_LINE:
                    raise ValueError("a chunk has no size")
                self._rest = data[at:]
                break
            size = int(data[at + 2 : line].partition(b";")[0], 16)
            if size < 0 or not data.startswith(b"\r\n", at):
                raise ValueError("a chunk has another size than announced")
            begin = line + 2
            at = begin + size
            if size > 0:
                pieces.append(data[begin:at])
                if at > end:
                    self.left = at - end
            else:
                self.ended = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
