"""A model of a terminal with cursor movements, colours and text."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder

from rich.cells import cell_len

_PIECES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # operating system commands
    r"|\x1b[()].|\x1b[ -/]*[0-~]"
    r"|[^\x1b]",
    re.DOTALL,
)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[()])?\Z")
Cell = tuple[str, str]
"""Text and its SGR codes. A wide character is in its first cell, and the other is empty."""


class ScreenModel:
    """The contents of a terminal after the bytes that were written to it."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.rows: list[list[Cell]] = [self._blank() for _ in range(height)]
        self._x = self._y = 0
        self._codes = ""
        self._decode = getincrementaldecoder("utf-8")("replace").decode
        self._waiting = ""

    def _blank(self) -> list[Cell]:
        return [(" ", "")] * self.width

    def text(self) -> str:
        return "\n".join("".join(text for text, _ in row).rstrip() for row in self.rows)

    def feed(self, data: bytes) -> None:
        """Write bytes; an incomplete sequence at their end waits for its rest."""
        text = self._waiting + self._decode(data)
        cut = _UNFINISHED.search(text)
        self._waiting = text[cut.start() :] if cut else ""
        self.write(text[: len(text) - len(self._waiting)])

    def write(self, sequence: str) -> None:
        """Write complete sequences."""
        for piece in _PIECES.findall(sequence):
            if piece == "\n":
                self._y += 1
                if self._y >= self.height:
                    self.rows = [*self.rows[1:], self._blank()]
                    self._y = self.height - 1
            elif piece == "\r":
                self._x = 0
            elif re.fullmatch(r"\x1b\[[\d;]*H", piece):
                row, _, column = piece[2:-1].partition(";")
                self._y, self._x = int(row or 1) - 1, int(column or 1) - 1
            elif re.fullmatch(r"\x1b\[[\d;]*m", piece):
                codes = piece[2:-1].split(";")
                self._codes = ";".join(codes[1:] if codes[0] in ("", "0") else codes)
            elif piece == "\b":
                self._x = max(0, self._x - 1)
            elif control := re.fullmatch(r"\x1b\[(\d*)([A-GJK])", piece):
                self._control(int(control[1] or 0), control[2])
            elif piece >= " ":
                self._put(piece)

    def _control(self, number: int, final: str) -> None:
        steps = max(1, number)
        if final in "AF":
            self._y = max(0, self._y - steps)
        elif final in "BE":
            self._y = min(self.height - 1, self._y + steps)
        elif final == "C":
            self._x = min(self.width - 1, self._x + steps)
        elif final == "D":
            self._x = max(0, self._x - steps)
        elif final == "G":
            self._x = min(self.width, steps) - 1
        if final in "EF":
            self._x = 0
        if final in "KJ":
            row = self.rows[self._y]
            start, end = {0: (self._x, self.width), 1: (0, self._x + 1)}.get(
                number, (0, self.width)
            )
            row[start:end] = [(" ", "")] * (min(end, self.width) - start)
        if final == "J" and number == 0:
            for below in range(self._y + 1, self.height):
                self.rows[below] = self._blank()

    def _put(self, text: str) -> None:
        if self._y >= self.height:
            return  # Drawn for a larger one.
        width = cell_len(text)
        row = self.rows[self._y]
        if width == 0:
            before, codes = row[self._x - 1]
            row[self._x - 1] = (before + text, codes)
        elif self._x + width <= self.width:
            for at in range(self._x, self._x + width):
                self._break(row, at)
            row[self._x : self._x + width] = [(text, self._codes)] + [("", self._codes)] * (
                width - 1
            )
            self._x += width

    def _break(self, row: list[Cell], at: int) -> None:
        """Blank the other half of a wide character that is partly drawn over."""
        if row[at][0] == "":
            row[at - 1] = (" ", row[at - 1][1])
        if at + 1 < self.width and row[at + 1][0] == "":
            row[at + 1] = (" ", row[at + 1][1])
