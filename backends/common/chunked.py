"""HTTP's chunked encoding, taken off many chunks a call.

Engines send one chunk for each line of a log, and the standard library gives one a call.
"""

from __future__ import annotations

MAX_SIZE_LINE = 256


class Chunks:
    """Takes HTTP's chunked encoding off a stream of bytes, however it is cut.

    `ended` says that the last chunk has come; without it the stream was cut. `left` is how many
    bytes of the current chunk are still to come.
    """

    def __init__(self) -> None:
        self.ended = False
        self.left = 0
        # What stands between two chunks and is not whole yet: the end of one, the size of the next.
        # Begun with an end, so that the first chunk is like the others.
        self._rest = b"\r\n"

    def take_rest(self) -> bytes:
        """What stands between two chunks and is not whole yet, given back to be fed again."""
        rest, self._rest = self._rest, b""
        return rest

    def feed(self, data: bytes) -> bytes:
        """The bytes inside. `ValueError` when this is no chunked stream."""
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
                    raise ValueError("chunks without a size")
                self._rest = data[at:]
                break
            size = int(data[at + 2 : line].partition(b";")[0], 16)
            if size < 0 or not data.startswith(b"\r\n", at):
                raise ValueError("chunks of another size than they say")
            begin = line + 2
            at = begin + size
            if size > 0:
                pieces.append(data[begin:at])
                if at > end:
                    self.left = at - end
            else:
                self.ended = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
