"""The log window on its own terminal: opening, searching and following a million lines.

lnav and less, where they are installed, do the same beside it. Pauses are those of the program's
event loop, as a clock inside it sees them; everything else is what a person would see on the terminal.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.docker import RUN
from bench.measure import STOKE, own_home

LINES = 1_000_000
# They differ from all other lines in every cell, so programs that draw changed cells draw them whole.
FIRST, NEEDLE, LAST = "=FIRST=LINE=", "#WHAT#IS#LOOKED#FOR#", "=VERY=LAST=LINE="
BELOW = "=JUST=BELOW=IT="
NEEDLE_AT = LINES - 10_000
ROUNDS = 5
_LINE = (
    "epoch %07d  INFO worker: some words about how it went, loss 0.123456, and more, to 100 bytes\n"
)
# Begins once its log is on the screen.
_FLOOD = f"""
import sys, time
print({FIRST!r}, flush=True)
time.sleep(5)
line = {_LINE!r}
for first in range(0, {LINES}, 1000):
    sys.stdout.write("".join(line % number for number in range(first, first + 1000)))
    sys.stdout.flush()
print({LAST!r})
"""
# A clock that ticks inside an app's event loop and notes when it was late.
_CLOCK = """
import asyncio, sys, time

class Clock:
    async def on_load(self):
        self.ticking = asyncio.create_task(self.tick())

    async def tick(self):
        with open(sys.argv[1], "a", buffering=1) as file:
            while True:
                begun = time.monotonic()
                await asyncio.sleep(0.005)
                late = time.monotonic() - begun - 0.005
                if late > 0.01:
                    file.write(f"{begun} {late}\\n")
"""
_WATCHED = f"""{_CLOCK}
from stoke.config.loader import load_config
from tui.app import StokeApp

class Watched(Clock, StokeApp):
    pass

Watched(load_config()).run()
"""
# The minimal work of a Textual app for these keys.
_BARE = f"""{_CLOCK}
from textual.app import App
from textual.screen import ModalScreen
from textual.widgets import Static

class Help(ModalScreen):
    BINDINGS = [("q", "app.pop_screen")]

    def compose(self):
        yield Static("Keys: Jobs")

class Bare(Clock, App):
    BINDINGS = [("k", "up"), ("G", "end"), ("question_mark", "help")]

    def compose(self):
        yield Static("ready")

    def action_up(self):
        self.query_one(Static).update("1 below")

    def action_end(self):
        self.query_one(Static).update("following")

    def action_help(self):
        self.push_screen(Help())

Bare().run()
"""


class Terminal:
    """A program in a pty of 120 x 40, and its output."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.begun = time.perf_counter()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, {**env, "TERM": "xterm-256color"})
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self._written = b""

    def press(self, keys: str) -> None:
        self._written = b""
        self.begun = time.perf_counter()
        os.write(self._fd, keys.encode())

    def until(self, text: str, seconds: float = 60) -> float:
        """Seconds from the start, or the last key, until it writes `text`."""
        pattern = re.compile(text)
        while time.perf_counter() - self.begun < seconds:
            if select.select([self._fd], [], [], 0.5)[0]:
                try:
                    self._written += os.read(self._fd, 1 << 20)
                except OSError:
                    break
            shown = re.sub(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()].", b"", self._written)
            if pattern.search(shown.decode(errors="replace")):
                return time.perf_counter() - self.begun
        sys.exit(f"{text!r} did not appear within {seconds} s")

    def rest(self, seconds: float) -> None:
        """Reads on for a while, as a terminal does."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            if select.select([self._fd], [], [], left)[0]:
                self._written += os.read(self._fd, 1 << 20)

    def memory(self) -> float:
        """Return its peak memory in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        assert found
        return int(found[1]) / 1024

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


@contextmanager
def opened(command: list[str], env: dict[str, str]) -> Iterator[Terminal]:
    terminal = Terminal(command, env)
    try:
        yield terminal
    finally:
        terminal.close()


def finished_job(lines: int) -> Path:
    """Create a finished job with a log of this many lines. Return its log."""
    from stoke.files.paths import job_dir
    from stoke.history.database import History
    from stoke.history.job import Job, JobState
    from stoke.logs.spool import STDOUT, SpoolWriter

    name = "finished-aaaaaa"
    with History() as history:
        history.add(Job(name, "job", "local", "default", JobState.QUEUED, time.time()), None, None)
        history.update(name, state=JobState.SUCCEEDED, finished_at=time.time())
    writer = SpoolWriter(job_dir(name))
    for first in range(0, lines, 10_000):
        rows = [_LINE % row for row in range(first, first + 10_000)]
        if first == 0:
            rows[0] = f"{FIRST}\n"
        if first == NEEDLE_AT:
            rows[0:2] = [f"{NEEDLE}\n", f"{BELOW}\n"]
        if first + 10_000 == lines:
            rows[-1] = f"{LAST}\n"
        writer.add(STDOUT, time.time_ns(), "".join(rows).encode())
        writer.flush()
    writer.close()
    return job_dir(name) / "log"


@contextmanager
def home(lines: int | None) -> Iterator[tuple[dict[str, str], Path | None]]:
    """Give an environment, and the log of its only job if it has one."""
    with own_home() as env:
        before = dict(os.environ)
        os.environ.update(env)
        try:
            yield env, finished_job(lines) if lines is not None else None
        finally:
            os.environ.clear()
            os.environ.update(before)


def say(what: str, figure: float, unit: str, limit: float, beside: str = "") -> None:
    verdict = "ok" if figure <= limit else "NOT REACHED"
    print(f"log window: {what} {figure:.3g} {unit} (<= {limit}) {verdict}{beside}", flush=True)


def pauses(file: Path, begun: float) -> float:
    """The longest pause of the event loop since then, in milliseconds."""
    late = [0.0]
    for line in file.read_text().splitlines():
        when, seconds = map(float, line.split())
        if when >= begun:
            late.append(seconds)
    return max(late) * 1000


def peers(log: Path, action: str) -> str:
    """Measure lnav and less for comparison."""
    env, said = dict(os.environ), []
    for name, command in (("lnav", ["lnav", "-q"]), ("less", ["less", "+G"])):
        if not shutil.which(name):
            continue
        times = []
        for _ in range(3):
            with opened([*command, str(log)], {**env, "HOME": str(log.parent)}) as terminal:
                taken = terminal.until(LAST)
                terminal.rest(1)
                if action != "open":
                    terminal.press("g")
                    terminal.rest(1)
                if action == "end":
                    terminal.press("G")
                    taken = terminal.until(LAST)
                elif action == "find":
                    terminal.press(f"/{NEEDLE}\r")
                    try:
                        taken = terminal.until(BELOW, 10)
                    except SystemExit:
                        break  # It shows the match at another place of the screen.
                times.append(taken)
        if times:
            said.append(f"{name} {statistics.median(times):.3g} s")
    return f"; {', '.join(said)}" if said else ""


def opening() -> None:
    taken: dict[int, list[float]] = {0: [], LINES: []}
    for lines in (0, LINES):
        with home(lines) as (env, log):
            for _ in range(ROUNDS):
                with opened([STOKE], env) as terminal:
                    taken[lines].append(terminal.until(LAST if lines else "0 lines"))
            beside = peers(log, "open") if lines and log else ""
    more = statistics.median(taken[LINES]) - statistics.median(taken[0])
    whole = statistics.median(taken[LINES])
    say(f"opening {LINES:,} lines takes {whole:.2f} s, more than none", more, "s", 0.3, beside)


def looking() -> None:
    with home(LINES) as (env, log), tempfile.NamedTemporaryFile() as late:
        assert log is not None
        with opened([sys.executable, "-c", _WATCHED, late.name], env) as terminal:
            terminal.until(LAST)
            terminal.press("\r")
            terminal.rest(1)
            ends, finds = [], []
            for _ in range(ROUNDS):
                terminal.press("g")
                terminal.until(FIRST)
                terminal.rest(0.5)
                terminal.press("G")
                ends.append(terminal.until(LAST))
                terminal.rest(0.5)
            begun = time.monotonic()
            for _ in range(ROUNDS):
                for keys in ("g", "/", NEEDLE):
                    terminal.press(keys)
                    terminal.rest(0.5)
                terminal.press("\r")
                finds.append(terminal.until(BELOW))
            pause = pauses(Path(late.name), begun)
        say("jump to the end", statistics.median(ends) * 1000, "ms", 50, peers(log, "end"))
        say("search to line 990,000", statistics.median(finds), "s", 0.5, peers(log, "find"))
        say("longest pause while searching", pause, "ms", 100)


def flood(env: dict[str, str]) -> None:
    command = [*RUN, "--no-cache", "--detach", "--name", "flood", "-c", _FLOOD]
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)


def remove(env: dict[str, str]) -> None:
    command = [STOKE, "rm", "--all-finished"]
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)


def answers(terminal: Terminal, over: Callable[[], object]) -> dict[str, list[float]]:
    """Return the milliseconds until each key was answered, until the flood ends."""
    up, help_ = [], []
    while not over():
        terminal.press("k")
        up.append(terminal.until(" below") * 1000)
        terminal.press("G")
        terminal.until("following")
        terminal.press("?")
        help_.append(terminal.until("Keys: Jobs") * 1000)
        terminal.press("q")
        terminal.rest(0.3)
    return {"scrolling up": up, "opening the help": help_}


def following() -> None:
    """A container at full speed, its log on the screen from its first line on."""
    least, least_pause = at_least()
    with home(None) as (env, _), tempfile.NamedTemporaryFile() as late:
        first = [STOKE, "run", "-q", "-c", "print('before')"]
        subprocess.run(first, env=env, check=True, stdout=subprocess.DEVNULL)
        with opened([sys.executable, "-c", _WATCHED, late.name], env) as terminal:
            terminal.until("before")
            flood(env)
            terminal.until("flood")
            terminal.press("g")
            terminal.rest(0.2)
            terminal.press("\r")
            terminal.until(FIRST)
            # Once before, so that its imports are not measured with the flood.
            terminal.press("?")
            terminal.until("Keys: Jobs")
            terminal.press("q")
            terminal.rest(1)
            before = terminal.memory()
            terminal.until(r"epoch \d")
            begun = time.monotonic()
            taken = answers(terminal, _ended)
            terminal.until(LAST)
            seconds = time.monotonic() - begun
            growth, pause = terminal.memory() - before, pauses(Path(late.name), begun)
        done = _ended()
        remove(env)
        print(f"log window: {LINES:,} lines followed in {seconds:.1f} s, job {done}", flush=True)
        bare = "; a bare Textual app beside `stoke logs -f`: "
        for what, keys in taken.items():
            figures = (
                (f"slowest of {len(keys)}", max(keys), max(least[what])),
                ("median", statistics.median(keys), statistics.median(least[what])),
            )
            for which, figure, beside in figures:
                say(f"{what}, {which}", figure, "ms", 100, f"{bare}{beside:.3g}")
        say("longest pause meanwhile", pause, "ms", 100, f"{bare}{least_pause:.3g}")
        say("memory growth", growth, "MB", 20)


def at_least() -> tuple[dict[str, list[float]], float]:
    """Measure the same keys in an app that does nothing else, while `stoke logs -f` follows the same
    flood: the time that this machine leaves to any program. Return the longest pause too, in ms."""
    with home(None) as (env, _), tempfile.NamedTemporaryFile() as late:
        with opened([sys.executable, "-c", _BARE, late.name], env) as terminal:
            terminal.until("ready")
            flood(env)
            tail = [STOKE, "logs", "-f", "flood"]
            with subprocess.Popen(tail, env=env, stdout=subprocess.DEVNULL) as follower:
                terminal.press("?")
                terminal.until("Keys: Jobs")
                terminal.press("q")
                terminal.rest(6)  # The flood begins now.
                begun = time.monotonic()
                taken = answers(terminal, lambda: follower.poll() is not None)
            pause = pauses(Path(late.name), begun)
        remove(env)
    return taken, pause


def _ended() -> str | None:
    from stoke.history.database import History

    with History() as history:
        job = history.list(limit=1)[0]
    return str(job.state) if job.state.finished else None


def main() -> None:
    for part in (opening, looking, following):
        part()


if __name__ == "__main__":
    main()
