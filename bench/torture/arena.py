"""What every attack has: a state and a cache folder, commands, floods and small disks."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAIN = "import sys; from stoke.cli.main import main; sys.exit(main())"
LIMIT = "import resource as r; r.setrlimit(r.RLIMIT_AS, (2 << 30, 2 << 30)); "
STOKE = (sys.executable, "-c", MAIN)
LIMITED_STOKE = (sys.executable, "-c", LIMIT + MAIN)
PATIENCE = 120.0
FULL_DISK = 3 << 20
# A file that says that containers and volumes of the machine's engine have to be removed.
USES_DOCKER = "uses-docker"
MNT_DETACH = 2  # Of umount(2).
libc = ctypes.CDLL(None, use_errno=True)


class SkippedError(Exception):
    """This machine cannot run the attack; the text says why."""


@dataclass
class Arena:
    """A state and a cache folder, and the commands that use them."""

    folder: Path
    random: random.Random
    seconds: float = float("inf")
    """How long the round may take; an attack without an end of its own ends before that."""
    found: str = ""
    """Figures for the table."""

    def __post_init__(self) -> None:
        self._until = time.monotonic() + self.seconds * 0.7

    @property
    def time_is_up(self) -> bool:
        return time.monotonic() > self._until

    def environment(self, **more: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("STOKE_")}
        return {
            **own,
            "STOKE_STATE_DIR": str(self.folder / "state"),
            "STOKE_CACHE_DIR": str(self.folder / "cache"),
            "STOKE_CONFIG": str(self.folder / "config.toml"),
            "STOKE_BACKEND": "local",
            "STOKE_SCOPE": self.scope,
            "STOKE_DEBUG": "1",  # A crash prints its traceback.
            "UV_HTTP_RETRIES": "0",
            **more,
        }

    @property
    def scope(self) -> str:
        return scope_of(self.folder)

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        return self._start([*STOKE, *arguments], more)

    def start_limited(self, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a command that may have 2 GiB of memory."""
        return self._start([*LIMITED_STOKE, *arguments], more)

    def _start(self, command: list[str], more: dict[str, str]) -> subprocess.Popen[bytes]:
        # In this repository, `stoke run` would send it as a project.
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        return subprocess.Popen(
            command,
            cwd=empty,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(**more),
        )

    def run(self, *arguments: str, **more: str) -> tuple[int, bytes]:
        """Return the exit code and standard output of a command, which must end and not crash."""
        return self.end(self.start(*arguments, **more))[:2]

    def end(self, process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
        """Return exit code, standard output and error of a command, which must end and not crash."""
        code, out, error = self.wait(process)
        assert b"Traceback" not in error, error[-2000:].decode(errors="replace")
        return code, out, error

    def wait(self, process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
        """Return the same of a command that may print the traceback of a job."""
        try:
            out, error = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            assert isinstance(process.args, list)
            raise AssertionError(f"stoke {' '.join(process.args[3:5])} hangs") from None
        return process.returncode, out, error

    def jobs(self, **more: str) -> list[dict[str, Any]]:
        code, out = self.run("jobs", "--all", "--json", **more)
        assert code == 0, "stoke jobs fails"
        listed: list[dict[str, Any]] = json.loads(out)
        return listed

    def until_finished(self, **more: str) -> list[dict[str, Any]]:
        deadline = time.monotonic() + PATIENCE
        while True:
            jobs = self.jobs(**more)
            left = [one for one in jobs if one["state"] in ("queued", "running") or one["stale"]]
            if not left:
                return jobs
            assert time.monotonic() < deadline, f"never ends: {[one['id'] for one in left]}"
            time.sleep(0.2)


def flood(lines: int) -> tuple[str, str]:
    """Code that prints so many lines, and the hash of what it prints."""
    text = "".join(f"{number:099d}\n" for number in range(lines))
    code = f"for i in range({lines}): print('%099d' % i)"
    return code, hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def small_disk(folder: Path, size: int = FULL_DISK) -> Iterator[None]:
    if os.geteuid() != 0:
        raise SkippedError("needs root, for a small file system")
    folder.mkdir(mode=0o700, exist_ok=True)
    options = f"mode=700,size={size}".encode()
    if libc.mount(b"torture", os.fsencode(folder), b"tmpfs", 0, options) != 0:
        raise SkippedError(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        libc.umount2(os.fsencode(folder), MNT_DETACH)


def scope_of(folder: Path) -> str:
    return "torture-" + hashlib.sha256(folder.name.encode()).hexdigest()[:8]


def docker_engine() -> Any:
    """Return docker-py's client of the machine's engine."""
    from backends.docker.engine import Engine
    from stoke.errors import EngineError

    try:
        with Engine(None).call("use Docker") as api:
            api.ping()
    except EngineError as error:
        raise SkippedError(error.what) from None
    return api
