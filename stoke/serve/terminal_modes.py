"""The modes that a program has set at its terminal, for another terminal that takes its place.

DECSET and DECRST: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
"""

from __future__ import annotations

import re

_MODE = re.compile(rb"\x1b\[\?([0-9;]{1,64})([hl])")
_LONGEST = 72
# Synchronized output and in-band reports of the size last until the program ends them or answers.
_PASSING = frozenset({2026, 2048})
MOST = 64


class TerminalModes:
    def __init__(self) -> None:
        self._modes: dict[int, bool] = {}
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Notice the modes in a piece of the program's output."""
        data = self._tail + data
        end = 0
        for found in _MODE.finditer(data):
            end = found.end()
            for number in found[1].split(b";"):
                if number and (mode := int(number[:6])) not in _PASSING:
                    self._modes[mode] = found[2] == b"h"
        while len(self._modes) > MOST:
            del self._modes[next(iter(self._modes))]
        # A sequence may go on in the next piece.
        begin = data.rfind(b"\x1b", max(end, len(data) - _LONGEST))
        self._tail = data[begin:] if begin >= 0 else b""

    def restoring(self) -> bytes:
        """Return the sequences that give a new terminal the same modes."""
        return b"".join(
            b"\x1b[?%d%s" % (mode, b"h" if is_set else b"l") for mode, is_set in self._modes.items()
        )
