"""The file that runs inside every job, on the job's own Python (3.9 or later), alone.

    python3 -I -S runner.py PAYLOAD [--cache DIR] --work DIR [--uv PATH] [--container] [--nix]
                            [--tagged] [--own-files]

PAYLOAD is gzip of JSON from `stoke.delivery.payload`; it is unlinked once read: it may hold secrets.
DIR of --cache is the scope's python volume; without it everything is built in --work and thrown
away. --container says that the network namespace and the cgroup are the job's own, so received
bytes can be counted and an out-of-memory kill told. --nix says that /nix is the scope's system
volume, or at least nobody else's. --tagged puts stdout and stderr into one stream: see `Tagged`.
--own-files says that all files are the job's own, as in a container: the image's interpreter and its
PYTHON variables are then for the code. Without it, a job without packages runs in an empty
environment, apart from this machine's packages.

The phases lock, system, python and run follow one another; each says what it did in one event on stderr
(`stoke.remote.events` has the framing). The exit code is the code's own, 128 + n for a signal, 124 for
the timeout, 125 when the environment failed before the code began.

On the cache volume:
    locks/KEY.txt      requirements with hashes; KEY is over the request and the interpreter
    venvs/KEY/         an environment, whole or not there: built as KEY.tmp and renamed
    venvs/KEY.lock     held shared while a job uses KEY, exclusively while it is built or removed;
                       a byte a use, so it tells how many there were and when the last one was
    requests/HASH      the KEY of the environment that last answered that request
    in-use.lock        held shared by every job, exclusively while everything is cleared
    uv/                uv's own cache; environments are hard links into it
    bin/               uv itself, for images that lack it
    pythons/           interpreters that uv manages

On the system volume, beside what is Nix's own:
    var/nix/gcroots/jobs/KEY/  a link for each package: whole or not there, as an environment
    var/stoke/KEY.lock         as venvs/KEY.lock
    var/stoke/requests/HASH    as requests/HASH
    var/stoke/gc.lock          held shared while anything in /nix is made, and exclusively by whoever
                               collects garbage; taken after KEY.lock
A set that is whole is a root of Nix's, so who only uses one needs no more than KEY.lock.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import sys
import time
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import Any

    Outcome = tuple[int, dict[str, object]]
    """(exit code, facts for the end event)"""
    Hint = tuple[str, ...]
    """(a code of `HintCode`, its parameters): text from inside a job is never shown as a hint"""

MARK = "stoke-environment.json"
MAX_MARK = 16 * 1024**2  # jobs write the files on a volume, so reading them has a limit
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# The module that makes output live, and the .pth file that imports it.
LIVE_OUTPUT = "_stoke_live_output"
EXIT_TIMEOUT = 124
EXIT_ENVIRONMENT = 125
NIX = "/nix"
FLAGS = ("--container", "--nix", "--own-files", "--tagged")  # options without a value
MOST_BUILDS = 20  # of one environment, by one job: others may drop it before it is used
KILL_AFTER = 5.0  # seconds between SIGTERM and SIGKILL at the timeout
LEFTOVER_GRACE = 0.5  # seconds that processes left behind have to end
MINORS = (14, 13, 12, 11, 10, 9)  # of Python 3: what this file runs on and public images have
# Variables of uv's that are read where the job runs: they cannot change which packages it gets.
UV_HARMLESS = (
    "UV_CONCURRENT_BUILDS",
    "UV_CONCURRENT_DOWNLOADS",
    "UV_CONCURRENT_INSTALLS",
    "UV_CREDENTIALS_DIR",
    "UV_GITHUB_TOKEN",
    "UV_HTTP_CONNECT_TIMEOUT",
    "UV_HTTP_RETRIES",
    "UV_HTTP_TIMEOUT",
    "UV_LOCK_TIMEOUT",
    "UV_NATIVE_TLS",
    "UV_PYTHON_INSTALL_MIRROR",
    "UV_REQUEST_TIMEOUT",
    "UV_SYSTEM_CERTS",
)
UV_INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
MAX_TEXT = 2500  # keeps every event below PIPE_BUF, so no other writer can cut it in two
MAX_SUMMARY = 900  # of that, for the text of an error whose output is in the log
MAX_TAIL = 1500  # and for the end of that output
TAIL_LINES = 20
MAX_HINT = 500  # as JSON; a longer hint is left out
FULL = (errno.ENOSPC, errno.EDQUOT)
LEAST_FREE = 64 * 1024  # bytes; a volume with less is full


class HintCode:
    """The hints that this file can give; `stoke.remote.hints` has the text and parameters of each."""

    ADD_HASHES = "add-hashes"
    CHECK_HASHES = "check-hashes"
    CHECK_NETWORK = "check-network"
    CHECK_NIX_NETWORK = "check-nix-network"
    CLEAR_SYSTEM = "clear-system"
    CONTAINERS_LOOPBACK = "containers-loopback"
    DID_YOU_MEAN = "did-you-mean"  # package names, ", " between
    FREE_SPACE = "free-space"  # a path
    IMAGE_WITH_NIX = "image-with-nix"
    IMAGE_WITH_PYTHON = "image-with-python"  # a version
    IMAGE_WITH_UV = "image-with-uv"
    INDEX_ORDER = "index-order"  # a package, the index that has it, the index to ask first
    MACHINE_MEMORY = "machine-memory"
    MORE_MEMORY = "more-memory"  # a value of --memory
    NIXPKGS_NAMES = "nixpkgs-names"
    NIX_PAIR = "nix-pair"
    OWN_NIX = "own-nix"
    PRE_LINE = "pre-line"  # a package
    PRE_RELEASE = "pre-release"  # a package, a version
    PRUNE_PYTHON = "prune-python"
    PRUNE_SYSTEM = "prune-system"
    RUN_IN_DOCKER = "run-in-docker"
    TRUST_INDEX = "trust-index"


class PhaseError(Exception):
    """A phase cannot go on: what happened, and a hint at what fixes it.

    `output` is what a build, git or another tool printed: it goes into the job's log, whole.
    """

    def __init__(self, text: str, hint: Hint | None = None, output: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint
        self.output = output


class NetworkError(PhaseError):
    """uv itself says that it could not reach a server."""


class CacheError(PhaseError):
    """The cache volume is full, read-only or not ours, as a system call said: ours or uv's."""


class ChangedInUseError(Exception):
    """A job installed something into an environment, and jobs still use it."""


class StoppedError(Exception):
    """A signal or the timeout ended the job before its code began."""


# ---------------------------------------------------------------------------- events


def elapsed() -> float:
    """Seconds by a clock that nobody sets; it goes on while the machine sleeps, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


BEGAN = time.time() - elapsed()


def now() -> float:
    """Epoch seconds. A clock that is set meanwhile does not change how far two of them are apart."""
    return BEGAN + elapsed()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, also while `descriptor` is in non-blocking mode.

    The job shares the open file behind our stdout and stderr and may set O_NONBLOCK on it. A pipe
    takes up to PIPE_BUF bytes whole or not at all in either mode, so an event is never torn.
    """
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            import select

            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


class Tagged:
    r"""Writes stdout and stderr into one stream, so that an engine keeps their order.

    A record is a line of the engine's log: \x1e, bytes of the job, one of four control characters that
    terminals do not show, and a newline. The character names the stream, and says whether the newline
    is the job's own. Where it is not, the job's line goes on or has no end yet. So an engine passes a
    part of a line on at once, cuts no line because of its length, and drops no \r at a line's end. A
    line without \x1e is the engine's, or of a program that wrote past the runner.
    """

    MARK = b"\x1e"
    CODES = ((b"\x1c\n", b"\x1d\n"), (b"\x1e\n", b"\x1f\n"))
    """For stdout and stderr: the end of a record without and with a newline of the job's."""
    LONGEST = 8192
    """Bytes of the job in one record. Engines cut lines at 16 KiB."""

    def __init__(self) -> None:
        import threading

        self._lock = threading.Lock()

    def write(self, stream: int, data: bytes) -> None:
        """`stream` as a descriptor: 1 or 2."""
        with self._lock:
            write_all(1, self.lines(stream, data))

    @classmethod
    def lines(cls, stream: int, data: bytes) -> bytes:
        """The records for `data`."""
        unended, ended = cls.CODES[stream - 1]
        pieces = [data]
        if len(data) > cls.LONGEST and max(map(len, data.split(b"\n"))) > cls.LONGEST:
            pieces = [data[at : at + cls.LONGEST] for at in range(0, len(data), cls.LONGEST)]
        records = []
        for piece in pieces:
            lines, newline, rest = piece.rpartition(b"\n")
            if newline:
                records += [cls.MARK, lines.replace(b"\n", ended + cls.MARK), ended]
            if rest:
                records += [cls.MARK, rest, unended]
        return b"".join(records)


class Pump:
    """Reads what the code writes, from two pipes, and passes it on with tags.

    A part of a line waits `HOLD` seconds for the rest, or until the other stream has something: else
    code that writes a few bytes at a time would make a record of each write.
    """

    HOLD = 0.05
    READ_SIZE = 65536
    # As much as a pipe can hold: processes that are left behind may write without end.
    MOST_LAST_READS = 16

    def __init__(self, tagged: Tagged) -> None:
        import threading

        self._tagged = tagged
        self._ends: dict[int, int] = {}  # the pipe that we read: the stream that it is
        self.given: list[int] = []  # what the code writes to: stdout, stderr
        for stream in (1, 2):
            ours, theirs = os.pipe()
            os.set_blocking(ours, False)
            self._ends[ours] = stream
            self.given.append(theirs)
        self._held_stream = 0
        self._held = b""  # the part of a line of that stream
        self._held_until = 0.0
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        for theirs in self.given:
            os.close(theirs)
        self._thread.start()

    def finish(self) -> None:
        """Once the code is over: passes on what it had written. Whoever it left behind and still
        holds a pipe is not waited for."""
        os.write(self._waker, b".")
        self._thread.join()

    def _run(self) -> None:
        import select

        poll = select.epoll()
        poll.register(self._wake, select.EPOLLIN)
        for ours in self._ends:
            # Edge-triggered, it names the pipe first that was written to first.
            poll.register(ours, select.EPOLLIN | select.EPOLLET)
        unread: list[int] = []  # pipes that may hold more than was read
        while self._wake not in unread:
            wait: float | None = 0.0
            if not unread:
                wait = max(0.0, self._held_until - time.monotonic()) if self._held else None
            for number, _ in poll.poll(wait):
                if number not in unread:
                    unread.append(number)
            unread = [number for number in unread if number == self._wake or self._read(number)]
            if self._held and time.monotonic() >= self._held_until:
                self._pass_on_held()
        for ours in sorted(self._ends, key=lambda one: one not in unread):
            reads = 0
            while self._read(ours) and reads < self.MOST_LAST_READS:
                reads += 1
        self._pass_on_held()
        poll.close()

    def _read(self, ours: int) -> bool:
        """Read a pipe once; return whether it may hold more."""
        try:
            data = os.read(ours, self.READ_SIZE)
        except BlockingIOError:
            return False
        is_more = len(data) == self.READ_SIZE
        stream = self._ends[ours]
        if self._held_stream == stream:
            data = self._held + data
        else:
            self._pass_on_held()
        end = data.rfind(b"\n") + 1
        if len(data) - end >= Tagged.LONGEST:
            end = len(data)
        if end or not self._held:
            self._held_until = time.monotonic() + self.HOLD
        self._held_stream, self._held = stream, data[end:]
        if end:
            self._tagged.write(stream, data[:end])
        return is_more

    def _pass_on_held(self) -> None:
        data, self._held = self._held, b""
        if data:
            self._tagged.write(self._held_stream, data)


class Events:
    """Writes event frames to stderr, each in one write."""

    def __init__(
        self, nonce: str, secrets: list[str], count_bytes: bool, write: Callable[[int, bytes], None]
    ) -> None:
        self._mark = b"\n\x1e" + nonce.encode()
        self._secrets = [secret for secret in secrets if secret]
        self._count_bytes = count_bytes
        self._write = write

    def emit(self, event: str, **fields: object) -> None:
        body = json.dumps({"event": event, **fields}, separators=(",", ":"))
        self._write(2, self._mark + body.encode() + b"\n")

    def note(self, text: str) -> None:
        self.emit("note", text=self.masked(text))

    def packages(self, phase: str, hits: list[str], misses: list[str]) -> None:
        """Which packages were there already, and which had to come; each list may be long."""
        for some in chunks(hits):
            self.emit("packages", phase=phase, hit=some, miss=[])
        for some in chunks(misses):
            self.emit("packages", phase=phase, hit=[], miss=some)

    def error(self, phase: str, error: PhaseError) -> None:
        """Write the output of the tool that failed, whole, in front of the error event.

        The event has the end of that output as well, for screens that do not show the log.
        """
        text, output = self.hidden(error.text), self.hidden(error.output)
        if not output and len(json.dumps(text)) > MAX_TEXT:
            output = text
        tail: dict[str, object] = {}
        if output:
            self._write(2, output.encode(errors="replace").rstrip(b"\n") + b"\n")
            tail = {"tail": end_of(output)}
            text = shortened(text, MAX_SUMMARY)
        hint = error.hint and [error.hint[0], *(self.hidden(one) for one in error.hint[1:])]
        if len(json.dumps(hint)) > MAX_HINT:
            hint = None
        self.emit("error", phase=phase, text=text, hint=hint, **tail)

    def hidden(self, text: str) -> str:
        """`text` without the secrets of the index."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def masked(self, text: str) -> str:
        return shortened(self.hidden(text), MAX_TEXT)

    def received(self) -> int | None:
        """Bytes received so far in the job's own network namespace; None on the host's."""
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


def shortened(text: str, most: int) -> str:
    """The beginning of `text`, at most `most` bytes long as JSON."""
    whole = text
    if len(text) > most:
        text = text[:most]
    while len(json.dumps(text)) > most:
        text = text[: len(text) * 9 // 10]
    return text if text == whole else text + " ..."


def end_of(output: str) -> str:
    """The last lines of `output`, at most `MAX_TAIL` bytes as JSON; of a longer last line its end."""
    room = MAX_TAIL - 10
    lines: list[str] = []
    for line in reversed(output[-8 * MAX_TAIL :].rstrip().split("\n")[-TAIL_LINES:]):
        size = len(json.dumps(line))
        if size > room and not lines:
            while len(json.dumps(line)) > room:
                line = line[len(line) // 10 + 1 :]
            lines.append("... " + line)
        if size > room:
            break
        lines.append(line)
        room -= size
    return "\n".join(reversed(lines))


class Phase:
    """Reports one phase: `begin` on entering, what it did on leaving, also when it fails."""

    def __init__(self, events: Events, name: str) -> None:
        self._events = events
        self.name = name
        self.facts: dict[str, Any] = {"hit": None, "packages": None, "cached": None}

    def __enter__(self) -> Phase:
        self._start = now()
        self._events.emit("begin", phase=self.name, time=self._start)
        self._clock = time.perf_counter()
        self._received = self._events.received()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._events.received()
        self._events.emit(
            "phase",
            phase=self.name,
            start=self._start,
            seconds=round(time.perf_counter() - self._clock, 6),
            bytes=None if after is None or self._received is None else after - self._received,
            **self.facts,
        )


# ---------------------------------------------------------------------------- signals and children


class Ending:
    """Why the job is to end, and the process group that has to hear of it."""

    def __init__(self) -> None:
        self.reason: str | None = None  # "stopped", "interrupted" or "timeout" once it is to end
        self._group: int | None = None

    def install(self, timeout: float | None) -> None:
        for number in (*ENDS, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._forward)
        if timeout:
            signal.signal(signal.SIGALRM, self._alarm)
            signal.setitimer(signal.ITIMER_REAL, timeout)

    def watch(self, group: int | None) -> None:
        self._group = group
        if self.reason:  # it came while there was nobody to tell
            self._tell(signal.SIGINT if self.reason == "interrupted" else signal.SIGTERM)

    def _forward(self, number: int, _frame: object) -> None:
        if number == signal.SIGINT:
            self.reason = self.reason or "interrupted"
        elif number in ENDS and self.reason != "timeout":
            self.reason = "stopped"  # also after an interrupt that the code survived
        self._tell(number)

    def _alarm(self, _number: int, _frame: object) -> None:
        if self.reason != "timeout":
            self.reason = "timeout"
            signal.setitimer(signal.ITIMER_REAL, KILL_AFTER, 1.0)
            self._tell(signal.SIGTERM)
        else:
            self._tell(signal.SIGKILL)

    def _tell(self, number: int) -> None:
        if self._group is not None:
            try:
                os.killpg(self._group, number)
            except OSError:
                pass


class ToolOutput:
    """What a tool prints on stderr, in bounded memory: its beginning and its end.

    uv's debug lines are dropped as they come, except those that tell a cached package from others: they
    repeat every line of a build.
    """

    FIRST = 1 << 20
    LAST = 15 << 20
    DROPPED = re.compile(rb"(?m)^(?:DEBUG|TRACE) (?!Identified uncached distribution: ).*\n")

    def __init__(self) -> None:
        self._line = b""  # the last line, as far as it has come
        self._first = bytearray()
        self._last = bytearray()
        self._left_out = 0

    def add(self, data: bytes) -> None:
        data = self._line + data
        end = data.rfind(b"\n") + 1 if len(data) < self.FIRST else len(data)
        self._line = data[end:]
        self._keep(self.DROPPED.sub(b"", data[:end]))

    def _keep(self, data: bytes) -> None:
        room = self.FIRST - len(self._first) if not self._last else 0
        self._first += data[:room]
        self._last += data[room:]
        if len(self._last) > 2 * self.LAST:
            self._cut()

    def _cut(self) -> None:
        over = len(self._last) - self.LAST
        if over > 0:
            self._left_out += over
            del self._last[:over]

    def text(self) -> str:
        self._keep(self._line)
        self._line = b""
        self._cut()
        if not self._left_out:
            return (self._first + self._last).decode(errors="replace")
        # Indented as uv indents what a build printed: the mark is a line of that.
        head = self._first.rpartition(b"\n")[0]
        tail = self._last.partition(b"\n")[2]
        left_out = self._left_out + len(self._first) - len(head) - 1 + len(self._last) - len(tail)
        mark = b"\n         [... %d bytes left out ...]\n" % left_out
        return (head + mark + tail).decode(errors="replace")


def run_tool(ending: Ending, argv: list[str], env: dict[str, str]) -> tuple[int, str, str]:
    """Runs a program of ours, never the user's code: (exit code, stderr, stdout)."""
    import selectors
    import subprocess

    process = subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.setpgid(0, 0),
    )
    ending.watch(process.pid)
    out, err = bytearray(), ToolOutput()
    try:
        with process, selectors.DefaultSelector() as pipes:
            pipes.register(process.stdout, selectors.EVENT_READ, out.extend)  # type: ignore[arg-type]
            pipes.register(process.stderr, selectors.EVENT_READ, err.add)  # type: ignore[arg-type]
            while pipes.get_map():
                for pipe, _ in pipes.select():
                    data = os.read(pipe.fd, 65536)
                    if data:
                        pipe.data(data)
                    else:
                        pipes.unregister(pipe.fileobj)
    finally:
        ending.watch(None)
    if ending.reason:
        raise StoppedError
    return process.returncode, err.text(), out.decode(errors="replace")


# ---------------------------------------------------------------------------- interpreters


def fingerprint() -> list[str]:
    """What makes an environment of one interpreter unfit for another."""
    from importlib.machinery import EXTENSION_SUFFIXES

    machine = os.uname()
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        libc = "musl"
    system = []
    try:
        with open("/etc/os-release") as release:
            system = sorted(line.strip() for line in release if re.match("(ID|VERSION_ID)=", line))
    except OSError:
        pass
    base = getattr(sys, "_base_executable", None) or sys.executable
    libc = libc or "unknown"
    return [
        sys.version,
        EXTENSION_SUFFIXES[0],
        os.path.realpath(base),
        machine.sysname,
        machine.machine,
        libc,
        *system,
    ]


def satisfies(version: tuple[int, ...], wanted: str) -> bool:
    """Whether (3, 12, 1) is what "3.12" or ">=3.11,<3.14" asks for."""
    for part in wanted.split(","):
        match = re.match(r"\s*(~=|==|!=|<=|>=|<|>)?\s*([\d.]+?)(\.\*)?\s*$", part)
        if not match:
            return False
        operator, digits, star = match.groups()
        asked = tuple(int(digit) for digit in digits.split("."))
        have = tuple(version[: len(asked)])
        full = tuple(version[:3])
        padded = asked + (0,) * (3 - len(asked))
        fits = {
            None: have == asked,
            "==": have == asked if star or len(asked) == 3 else full == padded,
            "!=": have != asked if star or len(asked) == 3 else full != padded,
            "~=": full >= padded and have[:-1] == asked[:-1],
            ">=": full >= padded,
            "<=": full <= padded,
            ">": full > padded,
            "<": full < padded,
        }
        if not fits[operator]:
            return False
    return True


def image_hint(wanted: str) -> Hint | None:
    """The newest public image whose Python is what was asked for; None where none is known to be."""
    exact = re.match(r"\s*(?:==)?\s*(3\.\d+\.\d+)\s*$", wanted)
    # Of a minor version, an image has one of the last patches.
    fit = [exact.group(1)] if exact else [
        "3.%d" % minor for minor in MINORS if satisfies((3, minor, 99), wanted)
    ]  # fmt: skip
    if not fit or (exact and int(exact.group(1).split(".")[1]) not in MINORS):
        return None
    return HintCode.IMAGE_WITH_PYTHON, fit[0]


# ---------------------------------------------------------------------------- network

SYSTEM_STORES = (  # as in stoke/delivery/network.py
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def read_store() -> tuple[str, str]:
    """(path, text) of the store of certificates that programs use here. The path is empty where
    variables name it, which uv reads itself; both are empty where there is no store."""
    named = [os.environ.get("SSL_CERT_FILE", "")]
    for folder in os.environ.get("SSL_CERT_DIR", "").split(":"):
        if os.path.isdir(folder):
            named += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    named = [path for path in named if os.path.isfile(path)]
    paths = named or [path for path in SYSTEM_STORES if os.path.isfile(path)][:1]
    texts = []
    for path in paths:
        try:
            with open(path, encoding="latin-1") as file:
                texts.append(file.read())
        except OSError:  # A folder of certificates often holds keys that only root may read.
            pass
    return "" if named or not paths else paths[0], "\n".join(texts)


def is_loopback(address: str) -> bool:
    """Whether a proxy's address means the machine that reads it."""
    host = address.rpartition("://")[2].partition("/")[0].rpartition("@")[2]
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return bool(re.match(r"(127(\.\d+){1,3}|0\.0\.0\.0|::1?|(.*\.)?localhost)\.?$", host, re.I))


# ---------------------------------------------------------------------------- the job


class Job:
    def __init__(self, payload: dict[str, Any], options: dict[str, str]) -> None:
        index = payload["index"]
        self.payload = payload
        self.work = options["--work"]
        self.container = "--container" in options
        self.own_files = "--own-files" in options
        kept = options.get("--cache") if payload["use_cache"] else None
        self.private_cache = os.path.join(self.work, ".cache")
        self.cache = kept or self.private_cache
        self.given_uv = options.get("--uv")
        self.tagged = Tagged() if "--tagged" in options else None
        self.write = self.tagged.write if self.tagged else write_all
        self.events = Events(payload["nonce"], index["secrets"], self.container, self.write)
        self.ending = Ending()
        self.python = sys.executable
        self.fingerprint: list[str] = []
        self.environment: str | None = None  # the folder of the environment in use
        self.programs: list[str] = []  # the bin folders of the system packages
        self.lock_text: str | None = None
        self.nix = "--nix" in options
        self.phase = "lock"
        self._uv: str | None = None
        self._warned: set[str] = set()
        self._way_out: dict[str, str] | None = None
        self._held: list[Flock] = []  # until the job's end

    def path(self, *names: str) -> str:
        return os.path.join(self.cache, *names)

    def waits(self, what: str) -> None:
        self.events.note("another job %s the same environment; waiting for it" % what)

    # ------------------------------------------------------------------ uv

    def uv_environment(self) -> dict[str, str]:
        """The environment of uv's processes: logins of indexes are here and nowhere else.

        uv's settings come from the request alone. What uv would read here, in the job, is left out,
        but for what cannot change a result.
        """
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "UV_"))
            and name not in ("VIRTUAL_ENV", "CONDA_PREFIX")
        }
        env.update({name: os.environ[name] for name in UV_HARMLESS if name in os.environ})
        index = self.payload["index"]
        if index["url"]:
            env["UV_DEFAULT_INDEX"] = index["url"]
        if index["extra"]:
            env["UV_INDEX"] = " ".join(index["extra"])
        env.update(self.way_out())
        env.update(self.payload["settings"]["environment"])
        env.update(
            UV_CACHE_DIR=self.path("uv"),
            UV_LINK_MODE="hardlink",
            UV_NO_PROGRESS="1",
            UV_NO_WRAP="1",  # whatever COLUMNS says: errors are told by whole lines
            UV_PYTHON_INSTALL_DIR=self.path("pythons"),
            UV_PYTHON_DOWNLOADS="never",
            UV_NO_CONFIG="1",
            NO_COLOR="1",
        )
        return env

    def way_out(self) -> dict[str, str]:
        """The variables for proxies and certificate authorities: the same for all that downloads, and
        not for the user's code."""
        if self._way_out is None:
            self._way_out = {**self.proxies(), **self.trust()}
        return self._way_out

    def proxies(self) -> dict[str, str]:
        """The request's proxy, or those of the machine that submitted; a job whose environment names
        proxies, on that same machine or in an image, keeps to them."""
        index = self.payload["index"]
        if index["proxy"]:
            found = {"http_proxy": index["proxy"], "https_proxy": index["proxy"]}
        elif any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
            return {}
        else:
            found = dict(index["proxies"])
            for name in [name for name in PROXIES if is_loopback(found.get(name, ""))]:
                if self.container:
                    del found[name]
                    self.events.note(
                        "%s of the submitting machine is not used: a container cannot reach a proxy "
                        "that listens on that machine's loopback address" % name.upper()
                    )
        return {**found, **{name.upper(): address for name, address in found.items()}}

    def trust(self) -> dict[str, str]:
        """The request's authorities in place of all others, or those of the submitting machine beside
        the ones here. Without either, uv trusts the public authorities."""
        index = self.payload["index"]
        text = index["ca_bundle"]
        if text is None:
            if not index["authorities"]:
                return {}
            path, text = read_store()
            there = "".join(text.split())
            missing = [pem for pem in index["authorities"] if "".join(pem.split()) not in there]
            if not missing:
                return {"SSL_CERT_FILE": path} if path else {}
            if not text:
                self.events.note(
                    "there is no certificate store here: only the %d authorities of the submitting "
                    "machine are trusted" % len(missing)
                )
            text = "\n".join([text, *missing])
        bundle = os.path.join(self.work, ".ca.pem")
        write_whole(bundle, text)
        return {"SSL_CERT_FILE": bundle, "GIT_SSL_CAINFO": bundle}

    def uv(self, *arguments: str, **changes: str) -> tuple[str, str]:
        """Runs uv: (stderr, stdout). A failure is a PhaseError with uv's explanation."""
        if self._uv is None:
            self.say_what_is_not_read()
            self._uv = self.given_uv or shutil.which("uv") or fetch_uv(self)
        env = self.uv_environment()
        env.update(changes)
        kills = out_of_memory_kills()
        code, err, out = run_tool(self.ending, [self._uv, *arguments], env)
        if code < 0:
            raise killed("uv", -code, kills, self.container)
        report = UvReport(err)
        for warning in report.warnings:
            self.warn(warning)
        if code != 0:
            raise self.explained(report)
        return err, out

    def say_what_is_not_read(self) -> None:
        """Tell which of the image's own variables name an index, when the request names none."""
        index, settings = self.payload["index"], self.payload["settings"]
        ignored = [name for name in UV_INDEXES if os.environ.get(name)]
        if (
            self.container
            and ignored
            and not (index["url"] or index["extra"] or settings["indexes"])
        ):
            self.events.note(
                "the image's %s is not used; name the index in the request (--index URL) or in the "
                "configuration ([index] url)" % ", ".join(ignored)
            )

    def warn(self, warning: str) -> None:
        """Pass a warning of uv's on as a note, once in a job, and no more than a screen of them."""
        noted = warning not in self._warned and not UV_NOISE.match(warning)
        if noted and len(self._warned) < MOST_WARNINGS:
            self._warned.add(warning)
            self.events.note("uv warns: " + warning.replace(self.work + "/", ""))

    def explained(self, report: UvReport) -> PhaseError:
        """What uv says of a failure, with a hint where uv's own words leave no doubt of the cause."""
        text = report.summary.replace(self.work + "/", "") or "uv failed without a word"
        output = report.output
        url, why = report.unreached()
        if why is not None:
            host = url.split("/")[2].rpartition("@")[2] if "://" in url else "the package index"
            hint = HintCode.CHECK_NETWORK
            if self.container and is_loopback(url):
                hint = HintCode.CONTAINERS_LOOPBACK
            elif UV_UNTRUSTED in why:
                hint = HintCode.TRUST_INDEX
            return NetworkError(
                "%s could not be reached, and the cache does not hold everything: %s" % (host, why),
                (hint,),
            )
        number, path = report.refused()
        if number is not None:
            if self.is_in_cache(path) or (path is None and number in FULL):
                return CacheError(text, self.make_room() if number in FULL else None, output)
            if number in FULL:
                return PhaseError(text, (HintCode.FREE_SPACE, path or self.work), output)
        if is_full(self.cache):
            what = "the job's disk" if self.cache == self.private_cache else "the cache volume"
            return CacheError("%s is full: %s" % (what, text), self.make_room(), output)
        advice = report.advice()
        return PhaseError(text + (advice and "\nuv says: " + advice), report.hint(), output)

    def unreached_git_server(self) -> str | None:
        """Which web server of a repository takes no connection, and why; None where all do.

        git says so in its user's language, so we look ourselves. Through a proxy or ssh's settings
        only git knows the way.
        """
        import socket

        env = self.uv_environment()
        if any(env.get(name) for name in ("HTTPS_PROXY", "https_proxy", "http_proxy", "ALL_PROXY")):
            return None
        for line in self.payload["requirements"]:
            found = re.search(r"git\+(https?)://(?:[^/@]*@)?([^/:\s]+)(?::(\d+))?/", line)
            if found:
                port = int(found[3] or (443 if found[1] == "https" else 80))
                try:
                    socket.create_connection((found[2], port), 5).close()
                except OSError as error:
                    return "%s could not be reached: %s" % (found[2], error)
        return None

    def is_in_cache(self, path: str | None) -> bool:
        return path is not None and is_below(path, self.cache)

    def make_room(self) -> Hint:
        """What to do about a cache volume that is full; a cache of the job's own is in its folder."""
        if self.cache == self.private_cache:
            return HintCode.FREE_SPACE, self.work
        return (HintCode.PRUNE_PYTHON,)

    # ------------------------------------------------------------------ interpreter

    def choose_python(self) -> None:
        """This interpreter, or the one that was asked for, and its fingerprint."""
        wanted = self.payload["python"]
        if not wanted or satisfies(sys.version_info[:3], wanted):
            self.fingerprint = fingerprint()
            return
        try:
            _, found = self.uv("python", "find", "--system", wanted)
        except PhaseError:
            try:
                self.uv("python", "install", wanted, UV_PYTHON_DOWNLOADS="manual")
                _, found = self.uv("python", "find", "--system", wanted)
            except PhaseError as error:
                raise PhaseError(
                    "Python %s is not here (this is %s) and could not be fetched: %s"
                    % (wanted, sys.version.split()[0], error.text),
                    image_hint(wanted),
                ) from None
        self.python = found.strip()
        argv = [self.python, "-I", "-S", os.path.abspath(__file__), "--fingerprint"]
        code, err, out = run_tool(self.ending, argv, dict(os.environ))
        if code != 0:
            raise PhaseError("%s does not run: %s" % (self.python, err.strip()))
        self.fingerprint = json.loads(out)

    # ------------------------------------------------------------------ lock

    def lock(self, phase: Phase) -> str:
        """The text of the lock: stored, given by the user, or resolved now."""
        payload = self.payload
        self.choose_python()
        if payload["lock"] is not None:
            # How many of the lines apply to this interpreter, their installation shows.
            for_all = not any(";" in text for text, _, _ in payload["lock"])
            phase.facts.update(hit=True, packages=len(payload["lock"]) if for_all else None)
            return lock_header(payload["settings"]["header"]) + "".join(
                lock_entry(text, hashes, origin) for text, hashes, origin in payload["lock"]
            )
        key = digest([payload["request"], self.fingerprint])
        os.makedirs(self.path("locks"), exist_ok=True)
        stored = self.path("locks", key + ".txt")
        began = time.time()
        text = read_fresh(stored, began - payload["lock_ttl"])
        if text is None:
            with Flock(stored[:-4] + ".lock") as flock:
                flock.take(fcntl.LOCK_EX, lambda: self.waits("resolves"))
                # Somebody may have resolved it while we waited.
                text = read_fresh(stored, began - payload["lock_ttl"])
                phase.facts["hit"] = text is not None
                if text is None:
                    text = self.resolve(stored)
        else:
            phase.facts["hit"] = True
        phase.facts.update(packages=len(lock_packages(text)), key=key)
        try:
            phase.facts["made_at"] = os.stat(stored).st_mtime
        except FileNotFoundError:  # dropped by housekeeping in this moment
            pass
        return text

    def resolve(self, stored: str) -> str:
        """Asks the index. Without a network an older lock still answers, and the job says so."""
        wanted = os.path.join(self.work, "requirements.in")
        out = os.path.join(self.work, "requirements.lock")
        settings = self.payload["settings"]
        lines = self.payload["requirements"]
        arguments = ["--upgrade", "--refresh"] if self.payload["upgrade"] else []
        if self.payload["constraints"]:
            constraints = os.path.join(self.work, "constraints.txt")
            write_whole(constraints, "".join(line + "\n" for line in self.payload["constraints"]))
            arguments += ["-c", constraints]
        if self.payload["pre"]:
            arguments += ["--prerelease", "allow"]
        if settings["several"]:
            arguments.append("--emit-index-annotation")
        if settings["project"]:
            # uv applies `sources` to the packages of a project only.
            project = os.path.join(self.work, "project", "pyproject.toml")
            os.makedirs(os.path.dirname(project), exist_ok=True)
            write_whole(project, settings["project"])
            arguments.append(project)
            lines = [*settings["lines"], *settings["unnamed"]]
        write_whole(wanted, "".join(line + "\n" for line in lines))
        try:
            self.uv(
                "pip", "compile", "--generate-hashes", "--no-header", "--no-annotate",
                "--python", self.python, "--output-file", out, *arguments, wanted,
                UV_CONFIG_FILE=self.config_file("lock"),
            )  # fmt: skip
        except PhaseError as error:
            older = read_fresh(stored, 0)
            why = None
            if isinstance(error, NetworkError):
                why = error.text.partition(",")[0]
            elif older is not None and "Git operation failed" in error.text.split("\n"):
                why = self.unreached_git_server()
            if older is None or why is None:
                raise
            age = (time.time() - os.stat(stored).st_mtime) / 3600
            self.events.note("no network: %s; using the lock of %.0f hours ago" % (why, age))
            return older
        with open(out) as file:
            text = keep_to_hashes(
                file.read(), self.payload["hashes"], self.payload["require_hashes"]
            )
        text = lock_header(settings["header"]) + text
        write_whole(stored, text)
        return text

    def config_file(self, name: str) -> str:
        """The request's settings for `lock` or `install`, as a file that replaces all of uv's own."""
        path = os.path.join(self.work, "uv-%s.toml" % name)
        write_whole(path, self.payload["settings"][name])
        return path

    # ------------------------------------------------------------------ environment

    def prepare_environment(self, phase: Phase, lock: str) -> None:
        """Finds or builds the environment and keeps a shared lock on it until the job's end."""
        key = digest([lock, self.fingerprint, self.payload["settings"]["build"]])[:32]
        os.makedirs(self.path("venvs"), exist_ok=True)
        try:
            folder, mark = self.find_environment(phase, key, lock)
        except ChangedInUseError:
            # It cannot be built anew under the jobs that use it, and they may go on for days.
            self.events.note("a running job changed this environment; using one beside it")
            key = digest([key, "beside"])[:32]
            folder, mark = self.find_environment(phase, key, lock)
        if self.payload["compile"]:
            # What is compiled already is left alone; a file that does not compile costs nothing.
            python = os.path.join(folder, "bin", "python")
            argv = [python, "-I", "-m", "compileall", "-q", "-j", "0", os.path.join(folder, "lib")]
            run_tool(self.ending, argv, dict(os.environ))
        phase.facts["packages"] = len(mark["packages"])
        if phase.facts["cached"] is None:
            phase.facts["cached"] = len(mark["packages"])
        if self.cache != self.private_cache:
            remember_request(phase, self.path("requests"), self.payload["request"], key)
        self.environment = folder

    def find_environment(self, phase: Phase, key: str, lock: str) -> tuple[str, dict[str, Any]]:
        folder = self.path("venvs", key)

        def blocked() -> None:
            if os.path.isdir(folder):  # whoever builds it has removed it
                raise ChangedInUseError
            self.waits("builds")

        mark = self.find_or_build(
            phase,
            folder + ".lock",
            lambda: read_mark(folder),
            lambda: self.build(folder, lock),
            blocked,
        )
        return folder, mark

    def find_or_build(
        self,
        phase: Phase,
        lock: str,
        find: Callable[[], dict[str, Any] | None],
        build: Callable[[], int],
        blocked: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """What `find` finds, or else finds once `build` has run, in one of all the jobs that look.

        `lock` is a file; it stays held, shared, until the job's end, and counts its uses.
        `build` returns how many packages were there already. `blocked` is called before waiting for
        jobs that use or build it, when it has to be built.
        """
        flock = self.hold(lock)
        phase.facts["hit"] = True
        for _ in range(MOST_BUILDS):
            flock.take(fcntl.LOCK_SH, lambda: self.waits("builds"))
            mark = find()
            if mark is not None:
                break
            flock.release()
            flock.take(fcntl.LOCK_EX, blocked or (lambda: self.waits("builds")))
            if find() is None:
                phase.facts["hit"] = False
                phase.facts["cached"] = build()
            flock.release()
        else:
            raise PhaseError("%s is gone or damaged as soon as it is built" % lock[: -len(".lock")])
        flock.count_use()
        return mark

    def hold(self, path: str) -> Flock:
        """A lock that is let go of at the job's end."""
        flock = Flock(path)
        self._held.append(flock)
        return flock

    def build(self, folder: str, lock: str) -> int:
        """Builds aside and renames into place; returns how many packages the cache already had."""
        aside = folder + ".tmp"
        if os.path.isdir(folder):
            self.events.note("the environment is damaged or was changed by a job: building it anew")
            remove_tree(folder)
        remove_tree(aside)
        packages = lock_packages(lock)
        try:
            self.uv("venv", "--quiet", "--relocatable", "--python", self.python, aside)
            misses = set(self.install(aside, lock) if packages else [])
            packages = applicable(packages, installed(aside))
            make_output_live(site_packages(aside), self.payload["live_output"])
            mark = json.dumps(
                {
                    "packages": packages,
                    "built_at": time.time(),
                    "lock": lock,
                    "holds": holdings(aside),
                }
            )
            if len(mark) > MAX_MARK:
                raise PhaseError("the lock is longer than %d MiB" % (MAX_MARK / 1024**2))
            write_whole(os.path.join(aside, MARK), mark)
            os.rename(aside, folder)
        except BaseException:
            remove_tree(aside)
            raise
        # What a package needed for its build counts for nothing here.
        fetched = [package for package in packages if package in misses]
        cached = [package for package in packages if package not in misses]
        self.events.packages("python", cached, fetched)
        return len(cached)

    def install(self, folder: str, lock: str) -> list[str]:
        """Installs exactly the lock and returns the packages that had to be downloaded."""
        hashed: list[str] = []
        bare: list[str] = []
        for entry in lock_entries(lock):
            (hashed if "--hash=" in entry else bare).append(entry)
        misses: list[str] = []
        for entries, flags in ((hashed, ["--require-hashes"]), (bare, [])):
            if not entries:
                continue
            if not flags:
                names = ", ".join(entry.split()[0] for entry in entries)
                self.events.note("installed without a hash, because uv gave none: " + names)
            err, _ = self.uv(
                "pip", "install", "--verbose", "--no-deps", *flags, "--python",
                os.path.join(folder, "bin", "python"), *self.install_files(entries, lock),
                UV_CONFIG_FILE=self.config_file("install"),
            )  # fmt: skip
            misses += re.findall(r"Identified uncached distribution: (\S+)", err)
        return misses

    def install_files(self, entries: list[str], lock: str) -> list[str]:
        """The options that name files with these entries, each at the index that the lock names.

        uv takes a name from one index, also when the file with the right hash is at another. Only a
        project can say which one, so the entries go there, and their hashes beside it.
        """
        settings = self.payload["settings"]
        origins = lock_origins(lock) if settings["several"] else {}
        pinned: dict[str, str] = {}
        plain: list[str] = []
        requirements: list[str] = []
        for entry in entries:
            url = origins.get(canonical(entry))
            if url is None or url not in settings["indexes"]:
                plain.append(entry)
                continue
            pinned[canonical(entry)] = url
            requirements.append(re.split(r"\s*\\\n|\s+--hash", entry, maxsplit=1)[0].strip())
        path = os.path.join(self.work, "requirements.install")
        write_whole(path, "".join([*(line + "\n" for line in settings["lines"]), *plain]))
        if not pinned:
            # The lock does not say where its files are. Their hashes make it safe to look further
            # than the first index that knows a name.
            hashed = not origins and all("--hash=" in entry for entry in entries)
            strategy = settings["strategy"] if hashed else None
            return [*(["--index-strategy", strategy] if strategy else []), "--requirements", path]
        hashes = os.path.join(self.work, "hashes.install")
        write_whole(hashes, "".join(entry for entry in entries if canonical(entry) in pinned))
        project = os.path.join(self.work, "install", "pyproject.toml")
        os.makedirs(os.path.dirname(project), exist_ok=True)
        write_whole(project, pinned_project(requirements, pinned, settings["indexes"]))
        return ["--requirements", path, "--requirements", project, "--constraints", hashes]

    # ------------------------------------------------------------------ run

    def run(self) -> Outcome:
        """The user's code, as a child; returns (exit code, facts for the end event)."""
        payload = self.payload
        name = os.path.basename(payload["program"])
        if not re.match(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.py$", name):
            name = "main.py"
        folder = os.path.join(self.work, "files")
        os.makedirs(folder, exist_ok=True)
        script = os.path.join(folder, name)
        with open(script, "w", encoding=payload["encoding"], newline="") as file:
            file.write(payload["code"])
        os.chdir(folder)
        is_live = self.prepare_interpreter()
        python = self.python
        env = dict(os.environ)
        if not self.own_files:
            # They are about this machine's interpreter and packages.
            env = {name: env[name] for name in env if not name.startswith("PYTHON")}
        elif self.environment:
            # The image's owner set them. But the first breaks an environment, and with the second
            # no job would ever keep the bytecode of its modules.
            env.pop("PYTHONHOME", None)
            env.pop("PYTHONDONTWRITEBYTECODE", None)
        if self.environment:
            python = os.path.join(self.environment, "bin", "python")
            env["VIRTUAL_ENV"] = self.environment
        # The environment's python stays the job's, also beside a Python that Nix brings.
        first = [os.path.join(self.environment, "bin")] if self.environment else []
        env["PATH"] = ":".join([*first, *self.programs, env.get("PATH", os.defpath)])
        for name in payload["withheld"]:
            env.pop(name, None)
        env.update(payload["env"])
        kills = out_of_memory_kills() if self.container else 0
        if self.ending.reason:
            raise StoppedError
        forget_peak_memory()
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        pump = Pump(self.tagged) if self.tagged else None
        if pump:
            actions += [
                (os.POSIX_SPAWN_DUP2, theirs, stream)
                for stream, theirs in enumerate(pump.given, start=1)
            ]
        child = os.posix_spawn(
            python,
            [python, *([] if is_live else ["-u"]), script, *payload["args"]],
            env,
            file_actions=actions,
            setpgroup=0,
            # Python ignores these two; a child would inherit that.
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
        self.ending.watch(child)
        if pump:
            pump.start()
        while True:  # as process 1 of a container, everybody's orphans end here
            pid, status, usage = os.wait4(-1, 0)
            if pid == child:
                break
        signal.setitimer(signal.ITIMER_REAL, 0)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        reason: str | None = self.ending.reason
        if code == 128 + signal.SIGKILL and self.container and out_of_memory_kills() > kills:
            reason = "out of memory"
        elif reason is None and code > 128:
            reason = "killed by signal %d" % (code - 128) if os.WIFSIGNALED(status) else None
        end_leftovers(child)
        if pump:
            pump.finish()
        if reason == "timeout":
            code = EXIT_TIMEOUT
        unit = 1 if sys.platform == "darwin" else 1024
        return code, {
            "reason": reason,
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 6),
            "peak_memory": usage.ru_maxrss * unit,
        }

    def prepare_interpreter(self) -> bool:
        """Prepare the interpreter of a job; return whether all its processes write live.

        Where the image's interpreter cannot be written to, only the job's first process does (-u).
        """
        if self.environment is None and not self.own_files:
            self.environment = os.path.join(self.work, "environment")
            make_empty_environment(self.environment, self.fingerprint)
        if self.environment:
            folder = site_packages(self.environment)
        elif self.python == sys.executable:
            folder = image_site_packages()
        else:
            return False  # an interpreter of the cache's, which other jobs use
        if os.path.exists(os.path.join(folder, LIVE_OUTPUT + ".pth")):
            return True
        if self.environment and self.environment.startswith(self.path("venvs")):
            return False  # built before there was live output
        try:
            make_output_live(folder, self.payload["live_output"])
        except OSError:
            return False
        return True

    def prepare(self) -> None:
        """All phases before the code's own."""
        self.phase = "lock"
        os.makedirs(self.cache, exist_ok=True)
        flock = Flock(self.path("in-use.lock"))
        self._held.append(flock)
        flock.take(fcntl.LOCK_SH, lambda: self.events.note("the cache is being cleared; waiting"))
        self.lock_text = None
        if self.payload["requirements"]:
            with Phase(self.events, "lock") as phase:
                self.lock_text = self.lock(phase)
        else:
            self.choose_python()
        if self.payload["lock_only"]:
            return
        if self.payload["system"]:
            self.phase = "system"
            with Phase(self.events, "system") as phase:
                self.programs = SystemPackages(self).prepare(phase)
        if self.lock_text is not None:
            self.phase = "python"
            with Phase(self.events, "python") as phase:
                self.prepare_environment(phase, self.lock_text)

    def leave_cache(self, why: str) -> None:
        """The cache is in trouble: from here on this job builds what it needs for itself."""
        self.events.note("going on without the cache, it cannot be used: " + why)
        for flock in self._held:
            flock.close()
        self._held.clear()
        self.cache = self.private_cache

    def steps(self) -> Outcome:
        """All phases, to the code's end or the first that fails; the failure is told on the way."""
        try:
            try:
                self.prepare()
            except (PhaseError, OSError) as error:
                why = cache_trouble(error, self.cache)
                if (
                    why is None
                    or self.phase == "system"  # there is no other /nix to go to
                    or self.cache == self.private_cache
                    or self.payload["on_cache_trouble"] == "fail"
                ):
                    raise
                self.leave_cache(why)
                self.prepare()
            if self.payload["lock_only"]:
                self.write(1, (self.lock_text or "").encode())
                return 0, {}
            self.phase = "run"
            with Phase(self.events, "run"):
                return self.run()
        except PhaseError as error:
            failure = error
        except StoppedError:
            reason = self.ending.reason
            if reason == "timeout":
                return EXIT_TIMEOUT, {"reason": reason}
            number = signal.SIGINT if reason == "interrupted" else signal.SIGTERM
            return 128 + number, {"reason": reason}
        except OSError as error:
            text = "%s: %s" % (error.filename, error.strerror) if error.filename else str(error)
            failure = PhaseError(text)
            if error.errno in FULL:
                inside = cache_trouble(error, self.cache) is not None
                failure.hint = self.make_room() if inside else (HintCode.FREE_SPACE, self.work)
        self.events.error(self.phase, failure)
        first, *rest = self.events.hidden(failure.text).split("\n")
        if rest and isinstance(failure, (CacheError, NetworkError)):
            first += ": " + rest[-1]
        return EXIT_ENVIRONMENT, {"reason": "%s: %s" % (self.phase, first[:300])}


# ---------------------------------------------------------------------------- system packages

# Names, address and hash are data in a file beside it: nothing a person wrote joins this text.
NIX_EXPRESSION = """
let
  asked = builtins.fromJSON (builtins.readFile ./asked.json);
  source = fetchTarball { inherit (asked) url sha256; };
  all = import source { config = { }; overlays = [ ]; };
  packages = map (path: { name = join path; } // find all [ ] path) asked.packages;
  join = builtins.concatStringsSep ".";
  find = set: above: path:
    if path == [ ] then found set
    else if builtins.isAttrs set && set ? ${builtins.head path}
    then find set.${builtins.head path} (above ++ [ (builtins.head path) ]) (builtins.tail path)
    else { above = join above; inherit set; };
  found = package:
    if package.type or null != "derivation" then { }
    else { drv = package.drvPath; outputs = map (output package) (useful package); };
  output = package: name: { inherit name; path = package.${name}.outPath; };
  # What `nix-env --install` takes, without what only people read.
  useful = package:
    let
      usual = package.meta.outputsToInstall or [ package.outputName ];
      read = [ "man" "info" "doc" "devdoc" ];
      used = builtins.filter (name: !(builtins.elem name read)) usual;
    in if used == [ ] then usual else used;
  # What is in the sets in which a name was missed, each set once: it may hold 25,000 names.
  missed = builtins.filter (one: one ? above) packages;
  inside = one: { name = one.above; value = names one.set; };
  names = set:
    if builtins.isAttrs set && set.type or null != "derivation"
    then builtins.attrNames set else [ ];
in {
  source = toString source;
  packages = map (one: removeAttrs one [ "set" ]) packages;
  near = builtins.listToAttrs (map inside missed);
}
"""
# A line of a build's output, as Nix quotes the last ones.
NIX_BUILDER_LINE = re.compile(r"\s*>(?: |$)")
NIX_BUILD_FAILED = re.compile(r"(?:builder for|Cannot build) '(/nix/store/[^'\n]+\.drv)'")
NIX_BUILD_REST = re.compile(r"\n *(?:last \d+ log|For full logs|Output paths|error:)", re.I)
NIX_MISREAD = re.compile(
    r"not a database|malformed|unable to open database|disk I/O error|database schema", re.I
)
NIX_UNREACHED = re.compile(r"unable to download|unable to connect|resolve host", re.I)


class SystemPackages:
    """The request's system packages: programs that Nix keeps on the scope's volume.

    Warm, this reads one folder; neither Nix nor a network is needed.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.asked = job.payload["system"]
        self.names = sorted(set(self.asked["packages"]))
        self.key = digest([self.names, self.asked["sha256"], os.uname().machine])[:32]
        self.folder = os.path.join(NIX, "var/nix/gcroots/jobs", self.key)
        self.state = os.path.join(NIX, "var/stoke")
        self.lock = os.path.join(self.state, self.key + ".lock")

    def prepare(self, phase: Phase) -> list[str]:
        """Finds or makes the packages and keeps them from being collected until the job's end.

        Returns their bin folders, in the order in which the packages were asked for.
        """
        if not self.job.nix:
            raise PhaseError(
                "system packages (%s) need a volume at /nix, and there is none here"
                % ", ".join(self.names[:5]),
                (HintCode.RUN_IN_DOCKER,),
            )
        try:
            os.makedirs(self.state, exist_ok=True)
            mark = self.job.find_or_build(phase, self.lock, self.find, self.build)
        except OSError as error:
            raise PhaseError(*self.shut_out(error)) from None
        phase.facts["packages"] = len(mark["paths"])
        if phase.facts["cached"] is None:
            phase.facts["cached"] = len(mark["paths"])
        if self.job.payload["use_cache"]:
            requests = os.path.join(self.state, "requests")
            remember_request(phase, requests, self.asked["request"], self.key)
        return [folder for name in self.asked["packages"] for folder in mark["programs"][name]]

    def find(self) -> dict[str, Any] | None:
        """What a whole set says of itself; None if it is not there or any of its paths is gone."""
        mark: dict[str, Any] = read_json(os.path.join(self.folder, MARK))
        try:
            for name, path in mark["links"].items():
                if os.readlink(os.path.join(self.folder, name)) != path:
                    return None
            for path in mark["paths"]:
                os.lstat(path)
            if not all(isinstance(mark["programs"][name], list) for name in self.names):
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return mark

    def build(self) -> int:
        """Makes the set; returns how many paths the store already had."""
        with Flock(os.path.join(self.state, "gc.lock")) as flock:
            flock.take(
                fcntl.LOCK_SH,
                lambda: self.job.events.note("room is being made on the system volume; waiting"),
            )
            aside = self.folder + ".tmp"
            remove_tree(self.folder)  # damaged
            remove_tree(aside)
            os.makedirs(aside)
            try:
                return self.build_aside(aside)
            except BaseException:
                remove_tree(aside)
                raise

    def build_aside(self, aside: str) -> int:
        """Fills the folder and renames it into place."""
        self.check_store()
        before = set(os.listdir(os.path.join(NIX, "store")))
        links: dict[str, str] = {}
        programs: dict[str, list[str]] = {}
        derivations = []
        source, packages = self.evaluate()
        for package in packages:
            name, outputs = package["name"], package["outputs"]
            derivations.append(package["drv"] + "!" + ",".join(one["name"] for one in outputs))
            for number, output in enumerate(outputs):
                links[name if number == 0 else name + "^" + output["name"]] = output["path"]
            programs[name] = [os.path.join(output["path"], "bin") for output in outputs]
        # The links come first: from the moment a path is whole, nobody collects it.
        for name, path in links.items():
            os.symlink(path, os.path.join(aside, name))
        # nixpkgs itself stays as long as a set that was made from it: another may be wanted.
        os.symlink(source, os.path.join(aside, ".nixpkgs"))
        self.announce(derivations)
        paths = self.realise(derivations, list(links.values()))
        for name, folders in programs.items():
            programs[name] = [folder for folder in folders if os.path.isdir(folder)]
        mark = {
            "links": links,
            "programs": programs,
            "paths": paths,
            "source": source,
            "built_at": time.time(),
        }
        write_whole(os.path.join(aside, MARK), json.dumps(mark))
        os.rename(aside, self.folder)
        names = [os.path.basename(path) for path in paths]
        there = [name[33:] for name in names if name in before]  # without the store's hash
        came = [name[33:] for name in names if name not in before]
        self.job.events.packages("system", there, came)
        return len(there)

    def announce(self, derivations: list[str]) -> None:
        """Says how much has to come: building what no cache has may take hours."""
        _, err = self.run("nix-store", "--realise", "--dry-run", *derivations)
        for line in re.findall(r"(?m)^(th(?:is|ese) .* will be .*):$", err):
            self.job.events.note(line)

    def realise(self, derivations: list[str], outputs: list[str]) -> list[str]:
        """Fetches or builds; returns all paths that the outputs need at run time. What the database
        holds and the disk does not is made again, once."""
        for repaired in (False, True):
            # Without the builders' output: then an error has its end.
            _, err = self.run("nix-store", "--realise", "--no-build-output", *derivations)
            for line in re.findall(r"(?m)^warning: (ignoring substitute .*)$", err):
                self.job.events.note(line)
            listed, _ = self.run("nix-store", "--query", "--requisites", *outputs)
            paths = sorted(set(listed.split()))
            gone = [path for path in paths if not os.path.lexists(path)]
            if not gone:
                return paths
            if not repaired:
                self.job.events.note("%s is damaged: making it again" % os.path.basename(gone[0]))
                self.run("nix-store", "--verify", "--repair")
        raise PhaseError(
            "%s is gone and could not be made again" % gone[0], (HintCode.CLEAR_SYSTEM,)
        )

    def check_store(self) -> None:
        """Nix is here, and its database is there or can be made."""
        if not (shutil.which("nix-store") and shutil.which("nix-instantiate")):
            raise PhaseError(
                "this image has no Nix, and the system volume does not hold %s yet"
                % ", ".join(self.names[:5]),
                (HintCode.IMAGE_WITH_NIX,),
            )
        database = os.path.join(NIX, "var/nix/db/db.sqlite")
        with Flock(os.path.join(self.state, "init.lock")) as flock:
            flock.take(fcntl.LOCK_EX, lambda: None)
            if not os.path.exists(database):
                store = os.path.join(NIX, "store")
                if os.path.isdir(store) and any(name[0] != "." for name in os.listdir(store)):
                    # Nix would take every path for a leftover, and remove those that jobs use.
                    raise PhaseError("the volume's Nix database is gone", (HintCode.CLEAR_SYSTEM,))
                self.run("nix-store", "--init")
                os.makedirs(store, exist_ok=True)

    def evaluate(self) -> tuple[str, list[dict[str, Any]]]:
        """The path of nixpkgs, and for each of `names` its derivation and the outputs to use. Unknown
        names are refused."""
        folder = os.path.join(self.job.work, "nix")
        os.makedirs(folder, exist_ok=True)
        asked = {
            "url": self.asked["url"],
            "sha256": self.asked["sha256"],
            "packages": [name.split(".") for name in self.names],
        }
        write_whole(os.path.join(folder, "asked.json"), json.dumps(asked))
        expression = os.path.join(folder, "packages.nix")
        write_whole(expression, NIX_EXPRESSION)
        out, _ = self.run(
            "nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode", expression
        )
        answer = json.loads(out)
        found: list[dict[str, Any]] = answer["packages"]
        unknown = [one for one in found if "drv" not in one]
        if unknown:
            raise PhaseError(*unknown_packages(unknown, answer["near"]))
        return answer["source"], found

    def run(self, program: str, *arguments: str) -> tuple[str, str]:
        """Runs one of Nix's programs: (stdout, stderr). A failure is a PhaseError with its words."""
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NIX_", "XDG_", "PYTHON"))
        }
        settings = [
            "sandbox = false",
            "build-users-group =",
            "connect-timeout = 15",
            "auto-optimise-store = false",  # housekeeping counts on paths that share no files
        ]
        for setting, values in (
            ("substituters", self.asked["substituters"]),
            ("trusted-public-keys", self.asked["trusted_keys"]),
        ):
            if values is not None:
                settings.append("%s = %s" % (setting, " ".join(values)))
        env.update(self.job.way_out())
        if "SSL_CERT_FILE" in env:
            env["NIX_SSL_CERT_FILE"] = env["SSL_CERT_FILE"]
        env.update(
            NIX_CONFIG="\n".join(settings),  # wins over the image's nix.conf, whatever that says
            NIX_REMOTE="local",
            XDG_CACHE_HOME=os.path.join(self.state, "cache"),
            XDG_CONFIG_HOME=os.path.join(self.job.work, "nix"),
        )
        kills = out_of_memory_kills()
        code, err, out = run_tool(self.job.ending, [program, *arguments], env)
        if code < 0:
            raise killed(program, -code, kills, self.job.container)
        if code != 0:
            raise self.explained(err)
        return out, err

    def explained(self, text: str) -> PhaseError:
        """What Nix says of a failure, with a hint where Nix's own words leave no doubt of the cause."""
        own = "\n".join(line for line in text.split("\n") if not NIX_BUILDER_LINE.match(line))
        built = NIX_BUILD_FAILED.search(own)
        if built:
            lines = [line for line in text.split("\n") if NIX_BUILDER_LINE.match(line)]
            shown = "\n".join(line.strip()[2:] for line in lines)
            said = NIX_BUILD_REST.split(own[built.start() :])[0].strip(" \n;")
            said = re.sub(r"\n\s+", "\n", said)
            return PhaseError(said, None, self.build_log(built[1]) or shown)
        own = own.rpartition("error:")[2]
        own = re.sub(r"(?m)^ *(error: \d+ dependenc|at /stoke/).*\n?", "", own)
        own = re.sub(r"\n\s+", "\n", own).strip()
        # Names, addresses and paths may hold any word.
        words = re.sub(r"'[^'\n]*'", "''", own)
        if "No space left on device" in words or "database or disk is full" in words:
            path = next(iter(re.findall(r"'(/[^'\n]*)'", own)), NIX)
            full = (HintCode.PRUNE_SYSTEM,) if is_below(path, NIX) else (HintCode.FREE_SPACE, path)
            return PhaseError(own, full)
        if NIX_MISREAD.search(words):
            return PhaseError(
                "the volume's Nix database cannot be used: " + own, (HintCode.CLEAR_SYSTEM,)
            )
        if "hash mismatch in file downloaded from '%s'" % self.asked["url"] in own:
            return PhaseError(own, (HintCode.NIX_PAIR,))
        if NIX_UNREACHED.search(words):
            return PhaseError(own, (HintCode.CHECK_NIX_NETWORK,))
        return PhaseError(own)

    def build_log(self, derivation: str) -> str:
        """All that a build printed, as Nix keeps it."""
        argv = ["nix-store", "--read-log", derivation]
        code, _, out = run_tool(self.job.ending, argv, dict(os.environ, NIX_REMOTE="local"))
        return out if code == 0 else ""

    def shut_out(self, error: OSError) -> tuple[str, Hint | None]:
        """What keeps this job from the volume. What is mounted at /nix cannot be changed from inside,
        so `on_cache_trouble` has no other way to offer."""
        names = ", ".join(self.names[:5])
        instead = (HintCode.OWN_NIX,)
        if error.errno == errno.EROFS:
            return "the system volume is read-only and does not hold %s" % names, instead
        if error.errno in (errno.EACCES, errno.EPERM):
            owner = os.stat(NIX).st_uid
            return (
                "the system volume belongs to user %d, and this job (user %d) may not use %s"
                % (owner, os.getuid(), error.filename)
            ), instead  # fmt: skip
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the system volume is full", (HintCode.PRUNE_SYSTEM,)
        return "%s: %s" % (error.filename, error.strerror), None


def unknown_packages(
    unknown: list[dict[str, Any]], inside: dict[str, list[str]]
) -> tuple[str, Hint | None]:
    """What is wrong with the names, and names that are near; `inside` has each set's names."""
    import difflib

    said = []
    near: list[str] = []
    for one in unknown[:10]:
        name = one["name"]
        if "above" not in one:
            said.append("%s is not a package; it may hold some: %s.NAME" % (name, name))
            continue
        said.append("there is no package called %s" % name)
        names = inside[one["above"]]
        before, dot, last = name.rpartition(".")
        same = [other for other in names if other.lower() == last.lower()]
        close = difflib.get_close_matches(last, names, 3)
        near += [before + dot + other for other in dict.fromkeys([*same, *close])]
    if len(unknown) > 10:
        said.append("and %d more" % (len(unknown) - 10))
    if near:
        return "; ".join(said), (HintCode.DID_YOU_MEAN, ", ".join(near[:6]))
    return "; ".join(said), (HintCode.NIXPKGS_NAMES,)


# ---------------------------------------------------------------------------- locks and files


# Opening fails with one of these where something else is in a file's place: a pipe, a folder, a
# symbolic link, a socket or a device.
NO_FILE = (errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV)


class Flock:
    """An advisory lock on a file. Housekeeping removes the file of what it drops, under the lock, so
    whoever gets the lock looks whether it is still the file of that name."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = self._open()

    def _open(self) -> int:
        try:
            return self._open_regular()
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            remove_tree(self._path)  # a job put it here; no lock of ours is anything but a file
            return self._open_regular()

    def _open_regular(self) -> int:
        flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | flags, 0o666)
        except OSError as error:
            # A volume that can only be read serves what it holds: to lock a file is not to write it.
            if error.errno in (errno.EROFS, errno.EACCES) and os.path.exists(self._path):
                file = os.open(self._path, os.O_RDONLY | flags)
            else:
                raise
        status = os.fstat(file)
        # A file with two names may be somebody's, and two locks may be one.
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(file)
            raise OSError(errno.EINVAL, "is not a lock file", self._path)
        return file

    def take(self, kind: int, waiting: Callable[[], None]) -> None:
        """Waits for the lock; `waiting` is called once if it is not free."""
        while True:
            try:
                fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(self._file, kind)
            try:
                if os.path.samestat(os.fstat(self._file), os.lstat(self._path)):
                    return
            except FileNotFoundError:
                pass
            os.close(self._file)
            self._file = self._open()

    def release(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def count_use(self) -> None:
        try:
            os.write(self._file, b".")
        except OSError:  # a full disk is no reason not to use what is there
            pass

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Flock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_whole(path: str, text: str) -> None:
    """Written aside and renamed, so that a reader meets all of it or nothing."""
    # A name that nothing can have that waits there for the writer, such as a pipe.
    aside = "%s.%s.new" % (path, os.urandom(8).hex())
    try:
        with open(aside, "x", encoding="utf-8", newline="") as file:
            file.write(text)
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        os.rename(aside, path)
    except BaseException:
        if os.path.exists(aside):
            os.unlink(aside)
        raise


def remember_request(phase: Phase, folder: str, request: str, key: str) -> None:
    """Says which environment answered a request: in the event, and on the volume for all who share it,
    so that they can tell a hit beforehand."""
    phase.facts["key"] = key
    path = os.path.join(folder, request)
    try:
        if read_fresh(path, 0) != key:
            os.makedirs(folder, exist_ok=True)
            write_whole(path, key)
    except OSError:  # full or read-only: nobody knows it beforehand
        pass


def cache_trouble(error: PhaseError | OSError, cache: str) -> str | None:
    """What is wrong with the cache, if it is the cache that is in trouble: full, read-only, gone."""
    if isinstance(error, PhaseError):
        return error.text if isinstance(error, CacheError) else None
    if error.filename is not None:
        name = os.fsdecode(error.filename)
        if is_below(name, cache) or is_below(cache, name):
            return "%s: %s" % (name, error.strerror)
        return None
    # A write that fails does not say to which file: ask the volume.
    if error.errno in FULL and is_full(cache):
        return "%s: %s" % (cache, error.strerror)
    return None


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or in it."""
    return (os.path.abspath(path) + "/").startswith(os.path.abspath(folder).rstrip("/") + "/")


def is_full(folder: str) -> bool:
    """Whether the volume that holds `folder` has no bytes or no files left."""
    try:
        volume = os.statvfs(folder)
    except OSError:
        return False
    no_files = volume.f_files > 0 and volume.f_favail == 0
    return volume.f_bavail * volume.f_frsize < LEAST_FREE or no_files


# Flags that open a folder itself: never through a symbolic link, and never waiting.
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_folder(name: str, parent: int) -> int:
    """Open the folder `name` in the open folder `parent`, with all rights for its owner."""
    try:
        folder = os.open(name, FOLDER, dir_fd=parent)
    except PermissionError:
        if not hasattr(os, "O_PATH"):
            raise
        # A job took the rights away. chmod would follow a link that replaced the folder meanwhile.
        handle = os.open(name, FOLDER | os.O_PATH, dir_fd=parent)
        try:
            os.chmod("/proc/self/fd/%d" % handle, 0o700)
        finally:
            os.close(handle)
        folder = os.open(name, FOLDER, dir_fd=parent)
    try:
        if os.fstat(folder).st_mode & 0o700 != 0o700:
            os.fchmod(folder, 0o700)
    except OSError:  # another user's: read what can be read
        pass
    return folder


def contents_first(
    parent: int, name: str
) -> Generator[tuple[int, str, os.stat_result], None, None]:
    """Yield (open folder, name, status) of all that is at `name` and below; a folder comes last.

    Depth costs neither descriptors nor recursion: the way up is "..", if that is still the folder
    the walk came from. Symbolic links are not followed and other file systems not entered.
    """
    here = os.open(".", FOLDER, dir_fd=parent)
    left = [[name]]  # names still to visit: of every folder from the top to `here`
    above: list[tuple[os.stat_result, str, os.stat_result]] = []  # folder, its child, its status
    device = None
    try:
        while True:
            if not left[-1]:
                left.pop()
                if not above:
                    return
                folder, name, status = above.pop()
                up = os.open("..", FOLDER, dir_fd=here)
                os.close(here)
                here = up
                if not os.path.samestat(os.fstat(here), folder):
                    return  # a job moved it: what is here now is not ours to visit
                yield here, name, status
                continue
            name = left[-1].pop()
            try:
                status = os.stat(name, dir_fd=here, follow_symlinks=False)
            except OSError:
                continue
            device = status.st_dev if device is None else device
            if status.st_dev != device:
                continue
            if not stat.S_ISDIR(status.st_mode):
                yield here, name, status
                continue
            try:
                inner = open_folder(name, here)
            except OSError:
                yield here, name, status
                continue
            try:
                # A folder that cannot be searched has no way up.
                os.stat(".", dir_fd=inner, follow_symlinks=False)
                names = os.listdir(inner)
                folder = os.fstat(here)
            except OSError:
                os.close(inner)
                yield here, name, status
                continue
            os.close(here)
            here = inner
            left.append(names)
            above.append((folder, name, status))
    finally:
        os.close(here)


def read_regular(path: str, limit: int) -> bytes | None:
    """Return what a regular file holds; None for one that is longer than `limit` bytes.

    Opens no symbolic link and waits for no pipe: `OSError` where the path is anything else.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as stream:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", path)
        if status.st_size > limit:
            return None
        data = stream.read(limit + 1)
    return None if len(data) > limit else data


def remove_tree(path: str, tick: Callable[[], None] = lambda: None) -> int:
    """Delete a file, or a folder and all that is below it; return the bytes that this freed.

    Any depth, any names, any modes; no symbolic link is followed. What cannot be deleted stays.
    `tick` is called for every file.
    """
    folder, name = os.path.split(path)
    try:
        parent = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return 0
    freed = 0
    visit = contents_first(parent, name)
    try:
        for inside, name, status in visit:
            tick()
            is_folder = stat.S_ISDIR(status.st_mode)
            try:
                (os.rmdir if is_folder else os.unlink)(name, dir_fd=inside)
            except OSError:
                continue
            if is_folder or status.st_nlink == 1:
                freed += status.st_blocks * 512
    except OSError:
        pass  # a way up that is closed
    finally:
        visit.close()
        os.close(parent)
    return freed


def read_fresh(path: str, not_before: float) -> str | None:
    """The file's text if it is from `not_before` (epoch seconds) or later, else None: also for what is
    no file, or not text."""
    try:
        if os.lstat(path).st_mtime < not_before:
            return None
        data = read_regular(path, MAX_MARK)
        return None if data is None else data.decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    except OSError as error:
        if error.errno in NO_FILE:
            return None
        raise


def read_json(path: str) -> Any:
    """What a JSON file says; None for what cannot be read, or is not JSON of a sane size and depth."""
    try:
        return json.loads(read_regular(path, MAX_MARK) or b"")
    except (OSError, ValueError, RecursionError):
        return None


def site_packages(environment: str) -> str:
    """The folder of an environment's packages: there is one interpreter in it."""
    folder = os.path.join(environment, "lib")
    return os.path.join(folder, os.listdir(folder)[0], "site-packages")


def image_site_packages() -> str:
    """The folder in which this interpreter, started without -S, looks for .pth files first."""
    import site

    above = os.path.dirname(os.path.dirname(sys.executable))
    is_environment = os.path.exists(os.path.join(above, "pyvenv.cfg"))
    folders = site.getsitepackages([above] if is_environment else None)
    return next(filter(os.path.isdir, folders), folders[0])


def make_output_live(folder: str, source: str) -> None:
    """Have every process of an interpreter import the module `source`; `folder` has its packages."""
    write_whole(os.path.join(folder, LIVE_OUTPUT + ".py"), source)
    write_whole(os.path.join(folder, LIVE_OUTPUT + ".pth"), "import %s\n" % LIVE_OUTPUT)


def make_empty_environment(folder: str, fingerprint: list[str]) -> None:
    """A virtual environment without packages for the interpreter of that fingerprint, by hand:
    starting the interpreter for it would take longer than most jobs do."""
    version = fingerprint[0].split()[0]
    python = fingerprint[2]
    name = "python" + ".".join(version.split(".")[:2])
    os.makedirs(os.path.join(folder, "bin"))
    os.makedirs(os.path.join(folder, "lib", name, "site-packages"))
    for link in ("python", "python3", name):
        os.symlink(python, os.path.join(folder, "bin", link))
    with open(os.path.join(folder, "pyvenv.cfg"), "w", encoding="utf-8") as file:
        file.write("home = %s\n" % os.path.dirname(python))
        file.write("include-system-site-packages = false\n")
        file.write("version = %s\nexecutable = %s\n" % (version, python))


def holdings(environment: str) -> str:
    """A digest that changes when somebody installs into an environment or removes from it.

    One listing, so it costs a warm job next to nothing: it does not see an edit inside a package.
    """
    found = []
    with os.scandir(site_packages(environment)) as entries:
        for entry in entries:
            if entry.name != "__pycache__":
                is_record = entry.name.endswith(".dist-info")
                found.append((entry.name, entry.stat().st_mtime_ns if is_record else 0))
    return digest(sorted(found))


def read_mark(folder: str) -> dict[str, Any] | None:
    """What a whole environment says of itself; None if it is damaged or changed, or its interpreter
    gone."""
    mark = read_json(os.path.join(folder, MARK))
    if not isinstance(mark, dict) or not isinstance(mark.get("packages"), list):
        return None
    try:
        os.stat(os.path.join(folder, "bin", "python"))
        changed = mark.get("holds") not in (None, holdings(folder))  # an older one does not say
    except (OSError, ValueError, LookupError):
        return None
    return None if changed else mark


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def chunks(names: list[str]) -> Iterator[list[str]]:
    """Lists short enough for one event."""
    some: list[str] = []
    size = 0
    for name in names:
        if size + len(name) > MAX_TEXT and some:
            yield some
            some, size = [], 0
        some.append(name)
        size += len(name) + 3
    if some:
        yield some


# ---------------------------------------------------------------------------- locks as text


LOCK_ENTRY = re.compile(r"(?m)^[^\s#-](?:.*\\\n)*.*\n?")


def lock_header(lines: list[str]) -> str:
    return "".join(line + "\n" for line in lines) + ("\n" if lines else "")


def lock_entry(text: str, hashes: list[str], origin: str | None = None) -> str:
    entry = text + "".join(" \\\n    --hash=" + value for value in hashes) + "\n"
    return entry + ("    # from %s\n" % origin if origin else "")


def lock_entries(lock: str) -> list[str]:
    """A lock's entries, each with hashes and newline; options and comments are left out."""
    entries: list[str] = LOCK_ENTRY.findall(lock)
    return [entry if entry.endswith("\n") else entry + "\n" for entry in entries]


def lock_packages(lock: str) -> list[str]:
    """`name==version`, or `name @ url`, of each entry."""
    entries = lock_entries(lock)
    return [re.split(r"\s*\\\n|\s+--hash|\s*;", entry, maxsplit=1)[0].strip() for entry in entries]


def lock_origins(lock: str) -> dict[str, str]:
    """Canonical name to the index that its file comes from, as uv notes it behind the entry."""
    found = re.findall(r"(?m)^([^\s#-](?:.*\\\n)*.*)\n[ \t]+# from (\S+)$", lock)
    return {canonical(entry): url for entry, url in found}


def pinned_project(requirements: list[str], pinned: dict[str, str], indexes: dict[str, str]) -> str:
    """A pyproject.toml with these requirements, each from its index."""

    def toml(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)  # A JSON text is a TOML text.

    lines = ["[project]", 'name = "stoke-request"', 'version = "0"']
    lines.append("dependencies = " + toml(requirements))
    for url in sorted(set(pinned.values())):
        lines += ["[[tool.uv.index]]", "name = " + toml(indexes[url]), "url = " + toml(url)]
        lines.append("explicit = true")
    lines.append("[tool.uv.sources]")
    lines += ["%s = {index = %s}" % (name, toml(indexes[pinned[name]])) for name in pinned]
    return "".join(line + "\n" for line in lines)


def installed(folder: str) -> dict[str, str]:
    """Canonical name to version of each package in an environment."""
    found: dict[str, str] = {}
    libraries = os.path.join(folder, "lib")
    for python in os.listdir(libraries) if os.path.isdir(libraries) else ():
        for name in os.listdir(os.path.join(libraries, python, "site-packages")):
            if name.endswith(".dist-info"):
                package, _, version = name[: -len(".dist-info")].rpartition("-")
                found[canonical(package)] = version
    return found


def applicable(packages: list[str], present: dict[str, str]) -> list[str]:
    """Those packages of a lock that are present: markers leave out the others.

    A lock may hold several versions of a package, each with a marker of its own.
    """
    import collections

    counts = collections.Counter(canonical(package) for package in packages)
    found = []
    for package in packages:
        version = present.get(canonical(package))
        alone = counts[canonical(package)] == 1
        if version is not None and (alone or package.rpartition("==")[2].strip() == version):
            found.append(package)
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;@(]", name, maxsplit=1)[0]).lower()


def keep_to_hashes(lock: str, given: dict[str, list[str]], require: bool = False) -> str:
    """uv replaces the user's hashes by the index's; put back what the user allowed, or refuse.

    With `require`, the user has to have given hashes for every package.
    """
    if not given:
        return lock

    def kept(match: re.Match[str]) -> str:
        entry = match.group()
        allowed = given.get(canonical(entry))
        found = re.findall(r"--hash=(\S+)", entry)
        if require and not allowed:
            raise PhaseError(
                "%s is needed too and has no --hash, and the requirements say --require-hashes"
                % lock_packages(entry)[0],
                (HintCode.ADD_HASHES,),
            )
        if not allowed or not found:
            return entry
        both = [value for value in found if value in allowed]
        if not both:
            raise PhaseError(
                "none of the hashes given for %s is one that the index has; given: %s"
                % (lock_packages(entry)[0], ", ".join(allowed)),
                (HintCode.CHECK_HASHES,),
            )
        return lock_entry(re.split(r"\s*\\\n|\s+--hash", entry, maxsplit=1)[0].strip(), both)

    return LOCK_ENTRY.sub(kept, lock)


# ---------------------------------------------------------------------------- what uv says

# uv begins its own lines like this; older versions draw a tree. It indents the rest of an entry, and
# whatever a build or git printed.
UV_ENTRY = re.compile(
    r"(error: |warning: |hint: |  cause: |  Caused by: |"
    r"  (?:\u00d7|\u251c\u2500\u25b6|\u2570\u2500\u25b6) )(.*)"
)
# Above the text of another program, in an indented part.
UV_SECTION = re.compile(r"\s*(?:\[(?:stdout|stderr)\]|--- (?:stdout|stderr))$")
UV_UNREACHED = re.compile(
    r"(?:error sending request|request or response body error)(?: for url \((\S+)\))?$"
    r"|Failed to download distribution due to network timeout\."
)
UV_UNTRUSTED = "invalid peer certificate: UnknownIssuer"
UV_OFFLINE = "Packages were unavailable because the network was disabled"
UV_OS_ERROR = re.compile(r'(.*)\(os error (\d+)\)(?: at path "(.*)")?$')
# What uv warns of although it concerns nobody here, or only uv's own command line.
UV_NOISE = re.compile(
    r"Failed to (?:hardlink|clone|reflink|symlink) files|.*\(no-op\)"
    # Nothing is left in this file where every package of a lock has an index of its own.
    r"|Requirements file `[^`]*requirements\.install` does not contain any dependencies"
)
MOST_WARNINGS = 20
# A sentence about what uv has and stoke has not: options, commands, files, variables of uv's.
UV_ONLY = re.compile(
    r"\buv\b|(?<![\w-])--[a-z]|\bUV_|\[tool\.|pyproject\.toml|\[\[|`(?:requires-python|tool\.uv)"
)


class UvReport:
    """What uv wrote on stderr: its own words, apart from the words of the programs that it ran."""

    def __init__(self, text: str) -> None:
        self.causes: list[str] = []
        """The error and what caused it, from the outside in."""
        self.hints: list[str] = []
        self.warnings: list[str] = []
        output: list[str] = []
        into = self.causes
        inside = foreign = False
        for line in text.split("\n"):
            entry = UV_ENTRY.match(line)
            if entry:
                kind = entry[1].strip()
                if kind in ("error:", "warning:", "hint:"):
                    kinds = {"error:": self.causes, "warning:": self.warnings, "hint:": self.hints}
                    into = kinds[kind]
                    into.append(entry[2])
                elif into is self.warnings and into:
                    into[-1] += ": " + entry[2]  # a warning's cause
                else:
                    into = self.causes
                    into.append(entry[2])
                inside, foreign = True, False
            elif line.strip() and not line.startswith("  "):
                inside = foreign = False
            elif inside and (foreign or UV_SECTION.match(line)):
                foreign = True
                output.append(line)
            elif inside and line.strip():
                into[-1] += "\n" + line.strip(" \u2502")
        indent = min([len(one) - len(one.lstrip(" ")) for one in output if one.strip()] or [0])
        self.output = "\n".join(one[indent:] for one in output).strip("\n")
        """What a build, git or ssh printed. Nothing in it says what is wrong with us."""

    @property
    def summary(self) -> str:
        """The error and its causes without the output of other programs, a line each."""
        title, *causes = self.causes or [""]
        if title.startswith("No solution found when ") and causes:
            return "no solution: " + "\n".join(causes)
        return "\n".join(self.causes)

    def unreached(self) -> tuple[str, str | None]:
        """(address, reason) if uv could not reach a server; else the reason is None."""
        for number, cause in enumerate(self.causes):
            found = UV_UNREACHED.match(cause)
            if found:
                why = ": ".join(self.causes[number:])
                return found[1] or "", re.sub(r" Try increasing UV_HTTP_TIMEOUT[^:]*", "", why)
        for hint in self.hints:
            if hint.startswith(UV_OFFLINE):
                return "", hint.split(".")[0]
        return "", None

    def refused(self) -> tuple[int | None, str | None]:
        """(errno, path) of the system call of uv's own that failed; each None where uv does not say."""
        for cause in reversed(self.causes):
            found = UV_OS_ERROR.match(cause)
            if found:
                named = found[3] or next(iter(re.findall(r"`(/[^`]*)`", found[1])), None)
                return int(found[2]), named
        return None, None

    def hint(self) -> Hint | None:
        """The first of uv's hints that is to be followed in another way in stoke."""
        for code, found in map(uv_hint, self.hints):
            if code and found:
                return (code, *found.groups())
        return None

    def advice(self) -> str:
        """uv's other hints, in uv's words, as far as they can be followed in stoke."""
        hints = []
        for hint in self.hints:
            if uv_hint(hint)[1] is None:
                sentences = re.split(r"(?<=\.)\s+", hint)
                hints.append(" ".join(one for one in sentences if not UV_ONLY.search(one)))
        return shortened("\n".join(filter(None, hints)), 500)


UV_HINTS = (
    # How a hint of uv's begins, and the hint that stoke gives instead ("" for none): the groups are
    # its parameters.
    (r"Build failures usually indicate", ""),
    (
        r"(?:Only pre|Pre)-releases (?:of|are available for) `([^`]+)`.*?\(e\.g\., ([^)]+)\)",
        HintCode.PRE_RELEASE,
    ),
    (r"`([^`]+)` was requested with a pre-release marker", HintCode.PRE_LINE),
    (
        r"`([^`]+)` was found on (\S+?), but not at the requested version.*?\(e\.g\., ([^)]+)\)",
        HintCode.INDEX_ORDER,
    ),
)


def uv_hint(text: str) -> tuple[str, re.Match[str] | None]:
    """The entry of `UV_HINTS` for a hint of uv's: ("", None) if there is none."""
    for beginning, code in UV_HINTS:
        found = re.match(beginning, text)
        if found:
            return code, found
    return "", None


# ---------------------------------------------------------------------------- fetching uv


def fetch_uv(job: Job) -> str:
    """Puts uv on the volume, from its static wheel, checked against the pinned hash."""
    import platform

    pinned = job.payload["uv"]
    machine = platform.machine()
    wheel = pinned["wheels"].get(machine)
    folder = job.path("bin")
    program = os.path.join(folder, "uv-%s-%s" % (pinned["version"], machine))
    if os.path.exists(program):
        return program
    hint = (HintCode.IMAGE_WITH_UV,)
    if wheel is None:
        raise PhaseError("this image has no uv, and there is none for %s" % machine, hint)
    index = job.payload["index"]["url"] or pinned["index"]
    if not index:
        raise PhaseError("this image has no uv, and there is no index to fetch it from", hint)
    os.makedirs(folder, exist_ok=True)
    with Flock(program + ".lock") as flock:
        flock.take(fcntl.LOCK_EX, lambda: job.events.note("another job fetches uv; waiting"))
        if os.path.exists(program):
            return program
        job.events.note("no uv in this image: putting %s on the volume" % pinned["version"])
        try:
            data = download(job, index.rstrip("/") + "/uv/", wheel["name"])
        except (OSError, ValueError) as error:
            raise PhaseError("could not fetch uv from the index: %s" % error, hint) from None
        if hashlib.sha256(data).hexdigest() != wheel["sha256"]:
            raise PhaseError("the index's %s is not the one this stoke knows" % wheel["name"], hint)
        import io
        import zipfile

        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inside = [name for name in archive.namelist() if name.endswith(".data/scripts/uv")]
            aside = program + ".tmp"
            with open(aside, "wb") as file:
                file.write(archive.read(inside[0]))
        os.chmod(aside, 0o755)  # noqa: S103
        os.rename(aside, program)
    return program


def download(job: Job, page: str, name: str) -> bytes:
    """The file called `name` that an index page (PEP 503) links to."""
    import base64
    import ssl
    import urllib.parse
    import urllib.request

    env = job.uv_environment()
    context = ssl.create_default_context(cafile=env.get("SSL_CERT_FILE"))
    # As uv does: companies' authorities often lack what the strict check asks for since Python 3.13.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    http, https, other, direct = (
        env.get(name) or env.get(name.upper()) or "" for name in (*PROXIES, "no_proxy")
    )
    proxies = {"http": http or other, "https": https or other}

    def get(url: str) -> bytes:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise ValueError("%s is not a web address" % parts.scheme)
        host = parts.netloc.rpartition("@")[2]
        request = urllib.request.Request(
            urllib.parse.urlunsplit(parts._replace(netloc=host)),
            headers={"Accept": "text/html", "User-Agent": "stoke"},
        )
        if parts.username:
            pair = urllib.parse.unquote("%s:%s" % (parts.username, parts.password or ""))
            token = base64.b64encode(pair.encode()).decode()
            request.add_header("Authorization", "Basic " + token)
        passed = urllib.request.proxy_bypass_environment(host, {"no": direct})  # type: ignore[attr-defined,unused-ignore]
        chosen = {kind: at for kind, at in proxies.items() if at and not passed}
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler(chosen), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=60) as answer:
            data: bytes = answer.read()
        return data

    for link in re.findall(r'href="([^"]+)"', get(page).decode(errors="replace")):
        address = urllib.parse.urljoin(page, link.replace("&amp;", "&")).split("#")[0]
        if urllib.parse.unquote(address.rsplit("/", 1)[-1]) == name:
            return get(address)
    raise ValueError("it does not list %s" % name)


# ---------------------------------------------------------------------------- the end


def out_of_memory_kills() -> int:
    """How often the kernel killed in this container for want of memory (cgroup v2, then v1)."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            with open(path) as file:
                for line in file:
                    name, _, count = line.partition(" ")
                    if name == "oom_kill":
                        return int(count)
        except OSError:
            pass
    return 0


def memory_limit() -> int | None:
    """The container's own limit in bytes (cgroup v2, then v1); None where it has none."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                limit = int(file.read())
        except (OSError, ValueError):  # "max"
            continue
        return limit if limit < 1 << 60 else None
    return None


def killed(program: str, number: int, kills: int, container: bool) -> PhaseError:
    """A tool of ours was ended by a signal. `kills` is how often memory had run out before it began."""
    if container and out_of_memory_kills() > kills:
        limit = memory_limit()
        return PhaseError(
            "%s was killed: out of memory" % program,
            (HintCode.MACHINE_MEMORY,)
            if limit is None
            else (HintCode.MORE_MEMORY, "%dm" % (limit >> 19)),
        )
    return PhaseError("%s was killed by signal %d" % (program, number))


def forget_peak_memory() -> None:
    """A child begins with its parent's peak, and fetching uv takes more than most code does."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def end_leftovers(group: int) -> None:
    """Ends what the code left running: all of a container, else the code's own process group."""
    target = -1 if os.getpid() == 1 else -group
    deadline = time.monotonic() + LEFTOVER_GRACE
    number: int = signal.SIGTERM
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            if target == -1:
                return
        try:
            os.kill(target, number)
        except ProcessLookupError:
            return
        if number == signal.SIGKILL and target != -1:
            return
        if time.monotonic() > deadline:
            number = signal.SIGKILL
        elif number == signal.SIGTERM:
            number = 0  # said once; from here on only looking
        time.sleep(0.01)


def main(arguments: list[str]) -> int:
    if arguments == ["--fingerprint"]:
        print(json.dumps(fingerprint()))
        return 0
    options: dict[str, str] = {}
    flags = iter(arguments[1:])
    for flag in flags:
        options[flag] = "" if flag in FLAGS else next(flags)
    with open(arguments[0], "rb") as file:
        payload = json.loads(zlib.decompress(file.read(), 31))
    os.unlink(arguments[0])
    os.makedirs(options["--work"], exist_ok=True)
    job = Job(payload, options)
    job.ending.install(payload["timeout"])
    try:
        code, facts = job.steps()
    except Exception as error:
        text = "the runner failed: %s: %s" % (type(error).__name__, error)
        job.events.emit("error", phase="run", text=job.events.masked(text), hint=None)
        code, facts = EXIT_ENVIRONMENT, {"reason": job.events.masked(text)[:300]}
    remove_tree(job.private_cache)
    job.events.emit("end", time=now(), exit_code=code, **facts)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
