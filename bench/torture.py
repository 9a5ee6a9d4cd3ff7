"""Attack this program at random for a while: `make torture`, `SECONDS=60 SEED=7 make torture`.

Each attack is one round of something that must not break: it raises `AssertionError` for a fault.
Everything happens in a folder of its own, with the local backend, and is removed at the end.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAIN = "import sys; from stoke.cli.main import main; sys.exit(main())"
STOKE = (sys.executable, "-c", MAIN)
PATIENCE = 120.0
FULL_DISK = 3 << 20
CALM = """import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


class SkippedError(Exception):
    """This machine cannot run the attack; the text says why."""


@dataclass
class Arena:
    """A state and a cache folder of its own, and the commands that use them."""

    folder: Path
    random: random.Random

    def environment(self, **more: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("STOKE_")}
        return {
            **own,
            "STOKE_STATE_DIR": str(self.folder / "state"),
            "STOKE_CACHE_DIR": str(self.folder / "cache"),
            "STOKE_CONFIG": str(self.folder / "config.toml"),
            "STOKE_BACKEND": "local",
            "STOKE_DEBUG": "1",  # A crash prints its traceback.
            **more,
        }

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*STOKE, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(**more),
        )

    def run(self, *arguments: str, **more: str) -> tuple[int, bytes]:
        """The exit code and standard output of a command, which must come back and not crash."""
        process = self.start(*arguments, **more)
        try:
            out, error = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"stoke {arguments[0]} hangs") from None
        assert b"Traceback" not in error, error[-2000:].decode(errors="replace")
        return process.returncode, out

    def jobs(self) -> list[dict[str, Any]]:
        code, out = self.run("jobs", "--all", "--json")
        assert code == 0, "stoke jobs fails"
        listed: list[dict[str, Any]] = json.loads(out)
        return listed

    def until_finished(self) -> list[dict[str, Any]]:
        deadline = time.monotonic() + PATIENCE
        while True:
            jobs = self.jobs()
            left = [one for one in jobs if one["state"] in ("queued", "running")]
            if not left:
                return jobs
            assert time.monotonic() < deadline, f"never ends: {[one['id'] for one in left]}"
            time.sleep(0.2)


def flood(lines: int) -> tuple[str, str]:
    """Code that prints so many lines, and the hash of what it prints."""
    text = "".join(f"{number:099d}\n" for number in range(lines))
    code = f"for i in range({lines}): print('%099d' % i)"
    return code, hashlib.sha256(text.encode()).hexdigest()


def kill_the_client(arena: Arena) -> None:
    """`stoke run` gets SIGKILL at a random moment: its job ends, and its log is whole."""
    code, wanted = flood(2_000)
    client = arena.start("run", "-c", code)
    try:
        client.communicate(timeout=arena.random.uniform(0, 3))
    except subprocess.TimeoutExpired:
        client.kill()
        client.communicate()
    for job in arena.until_finished():
        if job["state"] != "lost":
            assert job["state"] == "succeeded", f"{job['id']} is {job['state']}"
            _, log = arena.run("logs", job["id"])
            assert hashlib.sha256(log).hexdigest() == wanted, f"{job['id']}: the log differs"


def cut_a_flood(arena: Arena) -> None:
    """Followers of a large log are killed one after the other; the log is whole in the end."""
    code, wanted = flood(arena.random.randrange(20_000, 200_000))
    status, out = arena.run("run", "--detach", "-c", code)
    assert status == 0, "stoke run --detach fails"
    job = out.decode().split()[-1]
    for _ in range(3):
        follower = arena.start("logs", "--follow", job)
        try:
            follower.communicate(timeout=arena.random.uniform(0.2, 1.5))
        except subprocess.TimeoutExpired:
            follower.kill()
            follower.communicate()
    arena.until_finished()
    _, log = arena.run("logs", job)
    assert hashlib.sha256(log).hexdigest() == wanted, "the log differs"


def fill_the_disk(arena: Arena) -> None:
    """The state is on a file system that the job's log fills: the job succeeds all the same."""
    if os.geteuid() != 0:
        raise SkippedError("needs root, for a small file system")
    state = arena.folder / "state"
    state.mkdir(mode=0o700)
    size = f"size={FULL_DISK}".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"torture", os.fsencode(state), b"tmpfs", 0, size) != 0:
        raise SkippedError(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    try:
        os.chmod(state, 0o700)
        code, _ = flood(arena.random.randrange(40_000, 80_000))
        status, _ = arena.run("run", "-c", code)
        assert status == 0, f"stoke run ends with {status}"
        (job,) = arena.until_finished()
        assert job["state"] == "succeeded", f"the job is {job['state']}"
    finally:
        libc.umount2(os.fsencode(state), 2)  # MNT_DETACH


def spoil_the_history(arena: Arena) -> None:
    """Random values in random columns of the history: every listing still answers."""
    assert arena.run("run", "-c", "print(1)")[0] == 0
    wrong = [None, -1, 1 << 62, 1e308, "", "x" * 100_000, "[" * 50_000, "\x1b[31m", b"\xff\x00"]
    with sqlite3.connect(arena.folder / "state/history.sqlite") as history:
        for _ in range(5):
            table = arena.random.choice(["jobs", "phases"])
            columns = [row[1] for row in history.execute(f"PRAGMA table_info({table})")]
            column, value = arena.random.choice(columns), arena.random.choice(wrong)
            try:
                history.execute(f"UPDATE {table} SET {column} = ?", (value,))
            except sqlite3.IntegrityError:
                pass
    arena.jobs()
    for command in (("jobs",), ("jobs", "--all"), ("cache", "stats")):
        assert arena.run(*command)[0] == 0, f"stoke {' '.join(command)} fails"


def spoil_a_volume(arena: Arena) -> None:
    """Things of wrong kinds with names that housekeeping uses: `cache clear` removes all of it."""
    assert arena.run("run", "-c", "print(1)")[0] == 0
    scope = arena.folder / "cache/scopes/default"
    (scope / "python").mkdir(parents=True, exist_ok=True)
    names = ["trash", "in-use.lock", "housekeeping.lock", "housekeeping.json.1", "marks", "env"]
    for top in (scope, scope / "python"):
        for name in arena.random.sample(names, 3):
            place = top / name
            if place.is_symlink() or place.exists():
                continue
            _make_trouble(arena.random, place)
    for command in (("cache", "ls"), ("cache", "prune", "--unused", "0d", "--yes")):
        status, _ = arena.run(*command)
        assert status in (0, 125), f"stoke {' '.join(command)} ends with {status}"
    assert arena.run("cache", "clear", "--yes")[0] == 0, "stoke cache clear fails"
    # Housekeeping's own folder for what it removes may stay, empty.
    left = [
        one.name
        for one in (scope / "python").iterdir()
        if one.name in names and one.is_dir() and any(one.iterdir())
    ]
    assert not left, f"stoke cache clear leaves {left}"
    assert arena.run("run", "-c", "print(1)")[0] == 0, "no job runs afterwards"


def _make_trouble(source: random.Random, place: Path) -> None:
    kind = source.choice(["pipe", "folder", "link", "huge", "closed", "deep"])
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "link":
        place.symlink_to("/etc")
    elif kind == "huge":
        with place.open("wb") as file:
            file.truncate(6 << 30)
    elif kind == "deep":
        place.mkdir()
        here = place
        for _ in range(200):
            here = here / "d"
            here.mkdir()
    else:
        place.mkdir(mode=0o700 if kind == "folder" else 0)


def stop_a_deaf_job(arena: Arena) -> None:
    """A job that ignores SIGTERM and SIGINT ends with its grace."""
    status, out = arena.run("run", "--detach", "-c", CALM)
    assert status == 0, "stoke run --detach fails"
    job = out.decode().split()[-1]
    deadline = time.monotonic() + PATIENCE
    while b"deaf" not in arena.run("logs", job)[1]:
        assert time.monotonic() < deadline, "the job never began"
    how = arena.random.choice([("--now",), ()])
    assert arena.run("stop", *how, job)[0] == 0, "stoke stop fails"
    (ended,) = arena.until_finished()
    assert ended["state"] == "stopped", f"the job is {ended['state']}"


def meet_a_hostile_engine(arena: Arena) -> None:
    """A Docker engine answers with what no engine says: an error, within 2 GiB of memory."""
    from tests.backends.docker.fake_engine import fake_engine
    from tests.malice import MALICE

    limit = "import resource as r; r.setrlimit(r.RLIMIT_AS, (2 << 30, 2 << 30)); "
    command = [sys.executable, "-c", limit + MAIN]
    kind = arena.random.choice(sorted(MALICE))
    with fake_engine(arena.folder) as engine:
        engine.any_answer = MALICE[kind]
        done = subprocess.run(
            [*command, *arena.random.choice([("run", "-c", "1"), ("cache", "ls", "-b", "docker")])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            env=arena.environment(STOKE_BACKEND="docker", STOKE_DOCKER__HOST=engine.url),
        )
    assert done.returncode == 125, f"{kind}: stoke ends with {done.returncode}"
    assert b"Traceback" not in done.stderr and len(done.stderr) < 10_000, kind


def crowd(arena: Arena) -> None:
    """Two users' worth of schedulers, one cache: every job succeeds with its own output."""
    clients = [
        (number, arena.start("run", "-c", f"print({number})", STOKE_STATE_DIR=str(state)))
        for number in range(8)
        for state in [arena.folder / f"state{number % 2}"]
    ]
    for number, client in clients:
        out, error = client.communicate(timeout=PATIENCE)
        assert client.returncode == 0, error[-500:].decode(errors="replace")
        assert out == b"%d\n" % number, f"{out!r} instead of {number}"


def sequence_with_the_app(arena: Arena) -> None:
    """Jobs one after the other while the app is open: its memory and descriptors stay flat."""
    import pty
    import threading

    ours, theirs = pty.openpty()
    variables = arena.environment(TERM="xterm-256color", LINES="40", COLUMNS="120")
    app = subprocess.Popen(
        [*STOKE], stdin=theirs, stdout=theirs, stderr=theirs, env=variables, start_new_session=True
    )
    os.close(theirs)

    def drain() -> None:
        try:
            while os.read(ours, 1 << 16):
                pass
        except OSError:
            pass  # Linux says so when the other side is closed.

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        for _ in range(5):
            assert arena.run("run", "-c", "print(1)")[0] == 0
        memory, files = _use_of(app.pid)
        for _ in range(20):
            assert arena.run("run", "-c", "print(1)")[0] == 0
        assert app.poll() is None, "the app has ended"
        more_memory, more_files = _use_of(app.pid)
        assert more_memory - memory < 16, f"the app grew by {more_memory - memory} MiB"
        assert more_files - files < 8, f"the app has {more_files - files} more descriptors"
    finally:
        app.kill()
        app.wait()
        reader.join()
        os.close(ours)


def _use_of(pid: int) -> tuple[int, int]:
    """Resident MiB and open descriptors of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20, len(os.listdir(f"/proc/{pid}/fd"))


ATTACKS: dict[str, Callable[[Arena], None]] = {
    "kill the client": kill_the_client,
    "cut a flood": cut_a_flood,
    "fill the disk": fill_the_disk,
    "spoil the history": spoil_the_history,
    "spoil a volume": spoil_a_volume,
    "stop a deaf job": stop_a_deaf_job,
    "meet a hostile engine": meet_a_hostile_engine,
    "crowd": crowd,
    "sequence with the app": sequence_with_the_app,
}


@dataclass
class Row:
    name: str
    rounds: int = 0
    seconds: float = 0.0
    skipped: str = ""
    faults: list[str] = field(default_factory=list)


def attack(name: str, seed: int, number: int) -> None:
    """One round, in a folder of its own. Raises `AssertionError` or `SkippedError`."""
    folder = Path(tempfile.mkdtemp(prefix="stoke-torture-"))
    try:
        ATTACKS[name](Arena(folder, random.Random(f"{seed}/{name}/{number}")))
    finally:
        _end_jobs(folder)
        _remove(folder)


def _end_jobs(folder: Path) -> None:
    """A round that failed in the middle leaves no job behind: SIGQUIT ends a supervisor's job."""
    for started in folder.glob("state*/local/*/started.json"):
        if (started.parent / "status.json").exists():
            continue
        try:
            os.kill(int(json.loads(started.read_bytes())["pid"]), signal.SIGQUIT)
        except (OSError, ValueError, LookupError, TypeError):
            pass


def _remove(folder: Path) -> None:
    for path, folders, _ in os.walk(folder):
        for one in folders:
            if not os.path.islink(os.path.join(path, one)):
                os.chmod(os.path.join(path, one), 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    seconds = float(os.environ.get("SECONDS", "600"))
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed {seed}; again: SEED={seed} make torture", flush=True)
    rows = [Row(name) for name in ATTACKS]
    print(f"{'attack':24} {'rounds':>6} {'faults':>6} {'seconds':>8}  checked")
    for row in rows:
        began = time.monotonic()
        while row.rounds == 0 or time.monotonic() - began < seconds / len(rows):
            try:
                attack(row.name, seed, row.rounds)
            except SkippedError as error:
                row.skipped = str(error)
                break
            except AssertionError as error:
                row.faults.append(f"round {row.rounds}: {error}")
            row.rounds += 1
        row.seconds = time.monotonic() - began
        what = f"skipped: {row.skipped}" if row.skipped else ATTACKS[row.name].__doc__
        print(
            f"{row.name:24} {row.rounds:6} {len(row.faults):6} {row.seconds:8.1f}  {what}",
            flush=True,
        )
        for fault in row.faults[:5]:
            print(f"    {fault}", flush=True)
    return 1 if any(row.faults for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
