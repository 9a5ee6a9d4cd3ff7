"""A log that grows by 2,000 lines a second for 10 s, on a free terminal and over a slow link.

lnav and less +F, where they are installed, show a file that grows by the same beside it. The slow link
carries 64 KiB/s, and each way takes 80 ms; `SSH_CONNECTION` is set there as it would be.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import STOKE, own_home
from bench.slow_link import far_terminal

RATE, DELAY = 64 * 1024, 0.08
SECONDS, LINES_PER_SECOND = 10, 2000
LAST = "=VERY=LAST=LINE="
# Prints for ten seconds once the file `go` exists, and records when it stopped. The lines differ,
# because some programs draw similar lines with fewer bytes.
_WRITER = f"""
import pathlib, random, sys, time
folder = pathlib.Path({{folder!r}})
words = [f"{{{{number * 7919 % 99991:x}}}}" * (1 + number % 3) for number in range(500)]
lines = [" ".join(random.choices(words, k=12))[:100] + chr(10) for _ in range(5000)]
print("=WAITS=", flush=True)
while not (folder / "go").exists():
    time.sleep(0.01)
begun = time.monotonic()
for turn in range({SECONDS * 50}):
    sys.stdout.write("".join(random.choices(lines, k={LINES_PER_SECOND // 50})))
    sys.stdout.flush()
    time.sleep(max(0, begun + (turn + 1) / 50 - time.monotonic()))
print({LAST!r}, flush=True)
(folder / "stopped.new").write_text(repr(time.monotonic()))
(folder / "stopped.new").rename(folder / "stopped")
"""


@dataclass
class Shown:
    """The figures of one program; rates in KiB/s, all others in seconds."""

    free: float = 0.0
    idle: float = 0.0
    last: list[float] = field(default_factory=list)
    keys: dict[str, list[float]] = field(default_factory=dict)
    quits: list[float] = field(default_factory=list)


@dataclass
class Flood:
    folder: Path

    def go(self) -> None:
        (self.folder / "go").touch()

    @property
    def over(self) -> bool:
        return (self.folder / "stopped").exists()

    def stopped_at(self) -> float:
        while not self.over:
            time.sleep(0.05)
        return float((self.folder / "stopped").read_text())

    @property
    def code(self) -> str:
        return _WRITER.format(folder=str(self.folder))


def _measure(
    command: list[str],
    env: dict[str, str],
    flood: Flood,
    keys: list[tuple[str, str, str]],
    rate: float | None,
    shown: Shown,
    prepare: str = "",
) -> None:
    with far_terminal(command, env, rate, DELAY if rate else 0.0) as terminal:
        terminal.until("=WAITS=")
        if prepare:
            terminal.press(prepare)
        time.sleep(2)
        begun, before = time.monotonic(), terminal.received
        flood.go()
        if rate is None:
            flood.stopped_at()
            terminal.until(LAST)
            shown.free = (terminal.received - before) / (time.monotonic() - begun) / 1024
            # Only after the job has ended: while it runs, its seconds are redrawn.
            time.sleep(3)
            before = terminal.received
            time.sleep(4)
            shown.idle = (terminal.received - before) / 4
            return
        time.sleep(2)
        # The last two seconds belong to the flood alone.
        while keys and time.monotonic() < begun + SECONDS - 2:
            for key, effect, back in keys:
                pressed = time.monotonic()
                terminal.press(key)
                shown.keys.setdefault(key, []).append(terminal.until(effect) - pressed)
                terminal.press(back)
                time.sleep(0.4)
        shown.last.append(terminal.until(LAST) - flood.stopped_at())
        time.sleep(1)


def _quit(
    command: list[str], env: dict[str, str], flood: Flood, quit_keys: str, shown: Shown
) -> None:
    with far_terminal(command, env, RATE, DELAY) as terminal:
        terminal.until("=WAITS=")
        time.sleep(2)
        flood.go()
        time.sleep(4)
        pressed = time.monotonic()
        terminal.press(quit_keys)
        shown.quits.append(terminal.until_ended() - pressed)


def _stoke() -> Shown:
    shown = Shown()
    keys = [("f", "below", "f"), ("?", "Keys: Jobs", "\x1b")]
    for what in ("free", "link", "quit"):
        with own_home() as env, tempfile.TemporaryDirectory() as folder:
            flood = Flood(Path(folder))
            if what != "free":
                env["SSH_CONNECTION"] = "192.0.2.1 1 192.0.2.2 22"
            job = [STOKE, "run", "--detach", "--name", "flood", "-c", flood.code]
            subprocess.run(job, env=env, check=True, stdout=subprocess.DEVNULL)
            if what == "quit":
                _quit([STOKE], env, flood, "q", shown)
                flood.stopped_at()
            else:
                rate = None if what == "free" else RATE
                _measure([STOKE], env, flood, keys, rate, shown, prepare="\r")
    return shown


def _peer(command: list[str], quit_keys: str, keys: list[tuple[str, str, str]]) -> Shown:
    shown = Shown()
    for what in ("free", "link", "quit"):
        with tempfile.TemporaryDirectory() as folder:
            flood = Flood(Path(folder))
            log = Path(folder) / "log"
            env = {**os.environ, "HOME": folder}
            with open(log, "wb") as output:
                writer = subprocess.Popen([sys.executable, "-c", flood.code], stdout=output)
            while b"=WAITS=" not in log.read_bytes():
                time.sleep(0.05)
            if what == "quit":
                _quit([*command, str(log)], env, flood, quit_keys, shown)
            else:
                rate = None if what == "free" else RATE
                _measure([*command, str(log)], env, flood, keys, rate, shown)
            flood.stopped_at()
            writer.wait()
    return shown


def _report(name: str, shown: Shown) -> None:
    keys = [
        f"key {key!r} {statistics.median(taken):.2f} s (slowest of {len(taken)}: {max(taken):.2f})"
        for key, taken in shown.keys.items()
    ]
    figures = [
        f"{shown.free:.0f} KiB/s to a free terminal",
        f"idle {shown.idle:.0f} bytes/s",
        f"over the link: last line {max(shown.last):.2f} s after the writer stopped",
        *keys,
        f"quit {max(shown.quits):.2f} s",
    ]
    print(f"log link: {name}: {', '.join(figures)}", flush=True)


def main() -> None:
    _report("stoke (<= 60 KiB/s, 0 bytes/s, 0.5 s each)", _stoke())
    if shutil.which("lnav"):
        _report("lnav", _peer(["lnav", "-q"], "q", []))
    if shutil.which("less"):
        _report("less +F", _peer(["less", "+F"], "\x03q", []))


if __name__ == "__main__":
    main()
