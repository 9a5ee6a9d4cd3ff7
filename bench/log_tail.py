"""The log of a running container at full speed: ours into the spool, `docker logs -f` into a file."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backends.docker.container import LOG_DRIVER, LOG_FILES
from backends.docker.engine import find_address
from backends.docker.names import job_labels
from bench.cutting_proxy import CuttingProxy
from bench.docker import IMAGE, docker
from stoke.config.model import LogConfig

TOP = Path(__file__).parent.parent

LINES = 1_000_000
PAIRS = 3
CUTS = 20
# Waits for a signal, so that both sides are connected before the first line.
CODE = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
signal.sigwait([signal.SIGUSR1])
for start in range(0, LINES, 1000):
    sys.stdout.write("".join(f"{n:099d}\\n" for n in range(start, start + 1000)))
"""


@dataclass
class Tail:
    """The figures of one side: final lines, whether they match the job's, seconds, MB of growth."""

    lines: int
    exact: bool
    seconds: float
    grown: float = 0


def main() -> None:
    expected = hashlib.sha256(b"".join(b"%099d\n" % n for n in range(LINES))).digest()
    host = find_address(None, os.environ).url
    ours, theirs = [], []
    for number in range(PAIRS):
        if number % 2:
            theirs.append(_cli(expected))
        ours.append(_ours(host, expected))
        if not number % 2:
            theirs.append(_cli(expected))
    _report(f"tail of {LINES} lines", ours, theirs)
    ratio = statistics.median(
        (a.lines / a.seconds) / (b.lines / b.seconds) for a, b in zip(ours, theirs, strict=True)
    )
    print(
        f"tail: {ratio:.2f} x docker logs -f (>= 0.95) {'ok' if ratio >= 0.95 else 'NOT REACHED'}"
    )
    # A line takes about 150 bytes, so the cuts end before the log.
    most = LINES * 150 // CUTS
    with (
        tempfile.TemporaryDirectory(prefix="stoke-") as folder,
        CuttingProxy(Path(folder) / "s", host, CUTS, most) as proxy,
    ):
        cut = _ours(proxy.url, expected)
    _report(f"tail with {proxy.cuts} cuts", [cut], [])


def _report(what: str, ours: list[Tail], theirs: list[Tail]) -> None:
    for name, tails in (("ours", ours), ("docker logs -f", theirs)):
        for tail in tails:
            verdict = "exact" if tail.exact else f"NOT EXACT ({tail.lines} lines)"
            print(
                f"{what}, {name}: {tail.lines / tail.seconds:.0f} lines/s, {verdict}"
                + (f", grew by {tail.grown:.1f} MB" if name == "ours" else ""),
                flush=True,
            )


def _ours(host: str, expected: bytes) -> Tail:
    with waiting_container() as name, tempfile.TemporaryDirectory(prefix="stoke-bench-") as folder:
        command = [sys.executable, "-m", "bench.log_follow", host, name, folder]
        process = subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        began = _go(name)
        figures = json.loads(process.stdout.readline())
        seconds = time.perf_counter() - began
        process.wait()
        exact = _digest(Path(folder) / "log") == expected and figures["gaps"] == 0
        return Tail(figures["lines"], exact, seconds, figures["grown"])


def _cli(expected: bytes) -> Tail:
    with waiting_container() as name, tempfile.NamedTemporaryFile(prefix="stoke-bench-") as file:
        process = subprocess.Popen(["docker", "logs", "-f", name], stdout=file)
        time.sleep(0.5)
        began = _go(name)
        process.wait()
        seconds = time.perf_counter() - began
        with open(file.name, "rb") as again:
            lines = sum(block.count(b"\n") for block in iter(lambda: again.read(1 << 20), b""))
        return Tail(lines, _digest(Path(file.name)) == expected, seconds)


def _go(name: str) -> float:
    docker("kill", "--signal", "USR1", name)
    return time.perf_counter()


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@contextmanager
def waiting_container(lines: int = LINES) -> Iterator[str]:
    """A container with a job's labels and log settings that waits for USR1; removed at the end."""
    name = f"stoke-bench-{secrets.token_hex(4)}"
    labels = job_labels(name, "bench", "0" * 16)
    options = [f"--label={key}={value}" for key, value in labels.items()]
    size = LogConfig().max_size
    options += [f"--log-driver={LOG_DRIVER}", f"--log-opt=max-size={size}"]
    options += [f"--log-opt=max-file={LOG_FILES}"]
    docker(
        "run",
        "-d",
        "--name",
        name,
        *options,
        "--entrypoint=python3",
        IMAGE,
        "-c",
        f"LINES = {lines}{CODE}",
    )
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)
