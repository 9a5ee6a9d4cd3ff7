"""Filter a job's output for a terminal: colours pass, all other control sequences are removed.

If a job has the terminal to itself (`stoke run`), the cursor movements of progress bars pass as well,
as long as they stay on rows that the job has written: see `JobScreen`.

Output may be cut within a sequence, so the filter keeps a state. `stoke.text.sanitize` filters whole
lines.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable

from stoke.text.ansi import without_concealment

# C0 except tab and line ends, DEL, C1, and characters that change the reading direction.
_SPECIAL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_COLOUR = re.compile(r"[0-9;:]*")
_RESET = re.compile(r"[0;:]*")
_STRINGS = "]PX^_"
_C1_STRINGS = "\x90\x98\x9d\x9e\x9f"
# Real sequences are shorter. An unended one must not hide the text after it for ever.
_MOST_PARAMETERS = 64
_MOST_STRING = 4096


# Final bytes that act within the cursor's line: left, right, to a column, erase, insert, delete.
_IN_LINE = frozenset("CDGKPX@")
_NUMBER = re.compile(r"\d{0,5}")


def terminal_height() -> int:
    """Return the height of the terminal in rows; 24 if it is unknown."""
    for descriptor in (1, 2):
        try:
            return os.get_terminal_size(descriptor).lines or 24
        except OSError:
            pass
    return 24


class JobScreen:
    """Keep the cursor on the rows that a job has written since the last line of stoke's own.

    Both streams of a job share one. Rows are counted by line ends alone, so a line that the terminal
    wraps counts as one row; the cursor then reaches fewer rows than it could, never more.
    """

    def __init__(self, height: Callable[[], int] = terminal_height) -> None:
        self._height = height
        self._row = 0  # the cursor's row, counted from the first
        self._last = 0  # the lowest row so far
        self._begun = False  # whether the lowest row has text
        self._moved = False  # whether the cursor may be away from the end of the text

    def clear(self) -> None:
        """Restart at the beginning of an empty row, below a line of stoke's own."""
        self._row = self._last = 0
        self._begun = self._moved = False

    def write(self, text: str) -> None:
        """Account for text whose only control characters are tab, CR and LF."""
        ends = text.count("\n")
        self._row += ends
        if self._row > self._last:
            self._last = self._row
            self._begun = False
        if self._row == self._last and text.rpartition("\n")[2].strip("\r"):
            self._begun = True

    def control(self, parameters: str, final: str) -> str:
        """Return the part of a control sequence that may pass; "" if none may."""
        if not _NUMBER.fullmatch(parameters):
            return ""
        self._moved = True
        if final in _IN_LINE:
            if final == "K" and parameters == "2" and self._row == self._last:
                self._begun = False
            return f"\x1b[{parameters}{final}"
        if final == "J" and parameters in ("", "0"):
            return "\x1b[J"  # below the cursor is no line of stoke's
        count = max(1, int(parameters or 1))
        if final in "AF":
            top = max(0, self._last - (self._height() - 1))
            moved = -min(count, max(0, self._row - top))
        elif final in "BE":
            moved = min(count, self._last - self._row)
        else:
            return ""
        self._row += moved
        column = "\r" if final in "EF" else ""
        return column + (f"\x1b[{abs(moved)}{'A' if moved < 0 else 'B'}" if moved else "")

    def below(self) -> str:
        """Return the codes that move the cursor to the first row that the job has not written."""
        down = self._last - self._row
        move = f"\x1b[{down}B" if down else ""
        return move + ("\n" if self._begun else "\r" if self._moved else "")


class TerminalFilter:
    """Turn the bytes of one stream into bytes that are safe on a terminal of `encoding`.

    With a `screen`, the cursor movements that it allows are kept.
    """

    def __init__(self, encoding: str = "utf-8", screen: JobScreen | None = None) -> None:
        self._encoding = encoding
        self._screen = screen
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # The kind of sequence that is unfinished: None, "escape", "control" or "string".
        self._inside: str | None = None
        self._collected = ""
        self._length = 0
        self._coloured = False

    def feed(self, data: bytes) -> bytes:
        return self._filtered(self._decoder.decode(data)).encode(self._encoding, "replace")

    def finish(self) -> bytes:
        """Return the rest at the end: an unfinished character, and a colour reset."""
        rest = self._filtered(self._decoder.decode(b"", final=True))
        self._inside = None
        if self._coloured:
            rest += "\x1b[0m"
            self._coloured = False
        return rest.encode(self._encoding, "replace")

    def _filtered(self, text: str) -> str:
        out: list[str] = []
        at = 0
        while at < len(text):
            if self._inside is None:
                special = _SPECIAL.search(text, at)
                end = special.start() if special else len(text)
                out.append(text[at:end])
                if self._screen is not None:
                    self._screen.write(text[at:end])
                at = end
                if special:
                    self._enter(text[at])
                    at += 1
            elif self._step(text[at], out):
                at += 1
        return "".join(out)

    def _enter(self, character: str) -> None:
        """Enter the sequence that `character` begins; drop a character that begins none."""
        self._collected = ""
        self._length = 0
        if character == "\x1b":
            self._inside = "escape"
        elif character == "\x9b":
            self._inside = "control"
        elif character in _C1_STRINGS:
            self._inside = "string"
        else:
            self._inside = None

    def _step(self, character: str, out: list[str]) -> bool:
        """Continue a sequence. Return False if `character` is not part of it."""
        if character in "\x18\x1a" or character in "\n\r":
            # CAN and SUB cancel a sequence, and a line end is never part of one.
            self._inside = None
            return character in "\x18\x1a"
        if self._inside == "string":
            self._length += 1
            if character == "\x1b":
                self._inside = "escape"  # Its end, ESC \, or another sequence.
            elif character in "\x07\x9c" or self._length > _MOST_STRING:
                self._inside = None
            return True
        if character in "\x1b\x9b" or character in _C1_STRINGS:
            self._enter(character)
            return True
        if self._inside == "escape":
            if character == "[":
                self._inside = "control"
                self._collected = ""
            elif character in _STRINGS:
                self._enter("\x9d")
            elif not " " <= character <= "/":
                self._inside = None
            return True
        self._control(character, out)
        return True

    def _control(self, character: str, out: list[str]) -> None:
        if " " <= character <= "?" and len(self._collected) < _MOST_PARAMETERS:
            self._collected += character
            return
        self._inside = None
        if character == "m" and _COLOUR.fullmatch(self._collected):
            shown = without_concealment(self._collected)
            if shown is not None:
                out.append(f"\x1b[{shown}m")
                self._coloured = not _RESET.fullmatch(shown)
        elif self._screen is not None:
            out.append(self._screen.control(self._collected, character))
