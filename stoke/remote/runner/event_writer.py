"""Write event frames into the job's log."""

from __future__ import annotations

import json
import time

from stoke.remote.protocol import EventKind, frame
from stoke.remote.runner.clock import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from stoke.remote.runner.errors import PhaseError

# Lengths in bytes of JSON. Together they keep every event below PIPE_BUF, so that no other writer can
# cut one in two.
MAX_TEXT = 2500
MAX_SUMMARY = 900  # the text of an error whose output is in the log
MAX_TAIL = 1500  # the end of that output
TAIL_LINES = 20
MAX_HINT = 500  # a longer hint is left out


class EventWriter:
    """Writes event frames to stderr, each in one write."""

    def __init__(
        self, nonce: str, secrets: list[str], count_bytes: bool, write: Callable[[int, bytes], None]
    ) -> None:
        self._nonce = nonce
        self._secrets = [secret for secret in secrets if secret]
        self._count_bytes = count_bytes
        self._write = write

    def emit(self, event: str, **fields: object) -> None:
        """Write an event; `stoke.remote.protocol.EVENT_FIELDS` has the fields of each kind."""
        self._write(2, frame(self._nonce, {"event": event, **fields}))

    def note(self, text: str) -> None:
        self.emit(EventKind.NOTE, text=self.shortened(text))

    def packages(self, phase: str, hits: list[str], misses: list[str]) -> None:
        """Report which packages were in the cache and which were not; both lists may be long."""
        for part in chunks(hits):
            self.emit(EventKind.PACKAGES, phase=phase, hit=part, miss=[])
        for part in chunks(misses):
            self.emit(EventKind.PACKAGES, phase=phase, hit=[], miss=part)

    def error(self, phase: str, error: PhaseError) -> None:
        """Write all output of the tool that failed, then the error event.

        The event repeats the end of that output, for screens that do not show the log.
        """
        text, output = self.masked(error.text), self.masked(error.output)
        if not output and len(json.dumps(text)) > MAX_TEXT:
            output = text
        tail: dict[str, object] = {}
        if output:
            self._write(2, output.encode(errors="replace").rstrip(b"\n") + b"\n")
            tail = {"tail": end_of(output)}
            text = beginning_of(text, MAX_SUMMARY)
        hint = error.hint and [error.hint[0], *(self.masked(one) for one in error.hint[1:])]
        if len(json.dumps(hint)) > MAX_HINT:
            hint = None
        self.emit(EventKind.ERROR, phase=phase, text=text, hint=hint, **tail)

    def masked(self, text: str) -> str:
        """Return the text without the secrets of package indexes."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def shortened(self, text: str) -> str:
        """Return the text without secrets, and no longer than fits into an event."""
        return beginning_of(self.masked(text), MAX_TEXT)

    def received_bytes(self) -> int | None:
        """Return the bytes received in the job's own network namespace; None without such."""
        if not self._count_bytes:
            return None
        total = 0
        try:
            with open("/proc/net/dev") as table:
                for line in table.readlines()[2:]:
                    name, _, counts = line.partition(":")
                    if name.strip() != "lo":
                        total += int(counts.split()[0])
        except OSError:
            return None
        return total


class PhaseReporter:
    """Reports one phase: its begin on entering, its results on leaving, also when it fails."""

    def __init__(self, events: EventWriter, name: str) -> None:
        self._events = events
        self.name = name
        self.facts: dict[str, Any] = {"hit": None, "packages": None, "cached": None}
        """Further fields of the phase's event."""

    def __enter__(self) -> PhaseReporter:
        self._start = now()
        self._events.emit(EventKind.BEGIN, phase=self.name, time=self._start)
        self._clock = time.perf_counter()
        self._received = self._events.received_bytes()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._events.received_bytes()
        received = None if after is None or self._received is None else after - self._received
        self._events.emit(
            EventKind.PHASE,
            phase=self.name,
            start=self._start,
            seconds=round(time.perf_counter() - self._clock, 6),
            **{"bytes": received, **self.facts},
        )


def beginning_of(text: str, limit: int) -> str:
    """Return the beginning of a text, at most `limit` bytes long as JSON."""
    whole = text
    if len(text) > limit:
        text = text[:limit]
    while len(json.dumps(text)) > limit:
        text = text[: len(text) * 9 // 10]
    return text if text == whole else text + " ..."


def end_of(output: str) -> str:
    """Return the last lines of an output, at most `MAX_TAIL` bytes as JSON.

    Of a last line that is longer than that, return its end.
    """
    left = MAX_TAIL - 10
    lines: list[str] = []
    for line in reversed(output[-8 * MAX_TAIL :].rstrip().split("\n")[-TAIL_LINES:]):
        size = len(json.dumps(line))
        if size > left and not lines:
            while len(json.dumps(line)) > left:
                line = line[len(line) // 10 + 1 :]
            lines.append("... " + line)
        if size > left:
            break
        lines.append(line)
        left -= size
    return "\n".join(reversed(lines))


def chunks(names: list[str]) -> Iterator[list[str]]:
    """Yield the names in lists that each fit into one event."""
    chunk: list[str] = []
    size = 0
    for name in names:
        if size + len(name) > MAX_TEXT and chunk:
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += len(name) + 3
    if chunk:
        yield chunk
