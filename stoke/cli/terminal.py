"""What a job prints, on its way to a terminal: its colours stay, nothing else can reach it.

A sequence may be cut anywhere between two pieces, so this is a filter with a state and not a
function over lines (`stoke.logs.sanitise` is that).
"""

from __future__ import annotations

import codecs
import re

# All that is not simply shown: C0 but tab and line ends, DEL, C1, and what turns the reading
# direction.
_SPECIAL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_COLOUR = re.compile(r"[0-9;:]*")
_RESET = re.compile(r"[0;:]*")
_STRINGS = "]PX^_"
_C1_STRINGS = "\x90\x98\x9d\x9e\x9f"
# Longer than this no honest sequence is; the text behind it must not stay hidden for ever.
_MOST_PARAMETERS = 64
_MOST_STRING = 4096


class TerminalFilter:
    """Bytes of one stream in, bytes that are safe on a terminal of `encoding` out."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # Where in a sequence the last piece ended: None (in none), "escape", "control" or "string".
        self._inside: str | None = None
        self._collected = ""
        self._length = 0
        self._coloured = False

    def feed(self, data: bytes) -> bytes:
        return self._filtered(self._decoder.decode(data)).encode(self._encoding, "replace")

    def finish(self) -> bytes:
        """What is still to be written at the end: half a character, and the colours' end."""
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
                at = end
                if special:
                    self._enter(text[at])
                    at += 1
            elif self._step(text[at], out):
                at += 1
        return "".join(out)

    def _enter(self, character: str) -> None:
        """Begins what `character` begins; a character that begins nothing is dropped."""
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
        """Goes on inside a sequence. False if `character` is not part of it."""
        if character in "\x18\x1a" or character in "\n\r":
            # CAN and SUB cancel; no honest sequence holds a line end.
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
            out.append(f"\x1b[{self._collected}m")
            self._coloured = not _RESET.fullmatch(self._collected)
