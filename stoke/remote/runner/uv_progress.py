"""Progress of `uv pip install`, from the lines that uv prints on stderr without a terminal.

uv names downloads of more than 1 MiB and builds when they begin and end, and with --verbose each
package that is not in its cache.
"""

from __future__ import annotations

import re
import time

from stoke.remote.protocol import EventKind, ProgressStage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.event_writer import EventWriter

LINES = re.compile(
    rb"(?m)^(?:DEBUG Identified uncached distribution: (?P<missing>\S+)"
    rb"|Downloading (?P<download>\S+)(?: \((?P<size>\d+(?:\.\d+)?)(?P<unit>[KMG]?i?B)\))?"
    rb"| Downloaded (?P<downloaded>\S+)"
    rb"|   Building (?P<build>\S+)(?: @ .*)?|      Built (?P<built>\S+)(?: @ .*)?"
    rb"|(?P<prepared>Prepared) \d+ packages? in .*)$"
)
UNITS = {b"B": 1, b"KiB": 1 << 10, b"MiB": 1 << 20, b"GiB": 1 << 30}
REPORT_SECONDS = 1.0
"""Between two reports, and before the first: what takes no longer needs none."""
LONGEST_LINE = 1 << 16
MOST_NAMED, LONGEST_NAME = 3, 100


class UvProgress:
    """Reads uv's output as it comes and reports at most every `REPORT_SECONDS`, if there are news."""

    def __init__(self, events: EventWriter, phase: str) -> None:
        self._events = events
        self._phase = phase
        self._rest = b""  # a line that has not ended yet
        self._missing = 0
        self._sizes: dict[str, int] = {}  # of the downloads that uv named
        self._left: dict[str, None] = {}  # those of them that go on
        self._builds: dict[str, None] = {}
        self._is_prepared = False
        self._started = time.monotonic()
        self._received = events.received_bytes()
        self._reported_at = 0.0
        self._reported: dict[str, object] = {}

    def add(self, data: bytes) -> None:
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:] if len(data) - end < LONGEST_LINE else b""
        for line in LINES.finditer(data, 0, end):
            self._take(line)

    def _take(self, line: re.Match[bytes]) -> None:
        kind = line.lastgroup
        if kind == "missing":
            self._reported_at = self._reported_at or time.monotonic()
            self._missing += 1
        elif line["download"]:
            name = line["download"].decode(errors="replace")
            size = float(line["size"] or 0) * UNITS.get(line["unit"] or b"B", 0)
            self._sizes[name] = round(size)
            self._left[name] = None
        elif line["downloaded"]:
            self._left.pop(line["downloaded"].decode(errors="replace"), None)
        elif line["build"]:
            self._builds[line["build"].decode(errors="replace")] = None
        elif line["built"]:
            self._builds.pop(line["built"].decode(errors="replace"), None)
        elif line["prepared"]:
            self._is_prepared = True

    def report(self) -> None:
        """Report where uv is, unless nothing is known or that was reported just now."""
        now = time.monotonic()
        if not self._missing or now - self._reported_at < REPORT_SECONDS:
            return
        facts = self._facts(now - self._started)
        if facts != self._reported:
            self._reported_at, self._reported = now, facts
            self._events.emit(EventKind.PROGRESS, phase=self._phase, **facts)

    def _facts(self, seconds: float) -> dict[str, object]:
        if self._is_prepared:
            return {"stage": ProgressStage.INSTALL, "packages": self._missing, "left": []}
        if self._builds and not self._left:
            return {
                "stage": ProgressStage.BUILD,
                "packages": len(self._builds),
                "left": _named(self._builds),
            }
        total = sum(self._sizes.values())
        done = sum(size for name, size in self._sizes.items() if name not in self._left)
        received, remaining = self._events.received_bytes(), None
        if received is not None and self._received is not None and total:
            # Small packages, which uv does not name, count as received but not as a part of all.
            done = min(total, max(done, received - self._received))
            if done * 20 > total and self._left:
                remaining = round(seconds * (total - done) / done)
        return {
            "stage": ProgressStage.FETCH,
            "packages": self._missing,
            "left": _named(self._left),
            "bytes": done if total else None,
            "total": total or None,
            "seconds": remaining,
        }


def _named(names: dict[str, None]) -> list[str]:
    return [name[:LONGEST_NAME] for name in list(names)[:MOST_NAMED]]
