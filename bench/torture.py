"""Attack this program at random for a while: `make torture`, `SECONDS=60 SEED=7 make torture`.

Each attack is one round of something that must not break, and raises `AssertionError` for a fault.
It runs in a process of its own, which ends every process of the round and removes its folder,
also when the round is cut at the time limit. One round again, without a limit:
`python -m bench.torture ATTACK SEED NUMBER`.
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
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

MAIN = "import sys; from stoke.cli.main import main; sys.exit(main())"
LIMIT = "import resource as r; r.setrlimit(r.RLIMIT_AS, (2 << 30, 2 << 30)); "
STOKE = (sys.executable, "-c", MAIN)
LIMITED_STOKE = (sys.executable, "-c", LIMIT + MAIN)
PATIENCE = 120.0
FULL_DISK = 3 << 20
JOBS_IN_SEQUENCE = 500
# A file that says that containers and volumes of the machine's engine have to be removed.
USES_DOCKER = "uses-docker"
# Exit codes of a round's process.
PASSED, FAULT, SKIPPED, CUT = 0, 1, 2, 3
# Of prctl(2) and umount(2).
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, MNT_DETACH = 1, 36, 2
CALM = """import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""
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
        return _scope_of(self.folder)

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        return self._start([*STOKE, *arguments], more)

    def start_limited(self, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a command that may have 2 GiB of memory."""
        return self._start([*LIMITED_STOKE, *arguments], more)

    def _start(self, command: list[str], more: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
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
        try:
            out, error = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            assert isinstance(process.args, list)
            raise AssertionError(f"stoke {' '.join(process.args[3:5])} hangs") from None
        assert b"Traceback" not in error, error[-2000:].decode(errors="replace")
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
    state = arena.folder / "state"
    with small_disk(state):
        code, _ = flood(arena.random.randrange(40_000, 80_000))
        status, _ = arena.run("run", "-c", code)
        assert status == 0, f"stoke run ends with {status}"
        (job,) = arena.until_finished()
        assert job["state"] == "succeeded", f"the job is {job['state']}"


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


def fill_the_cache(arena: Arena) -> None:
    """Packages do not fit on the cache's disk: the job runs without the cache, the next one with it."""
    with small_disk(arena.folder / "cache"), _index(arena, "127.0.0.1") as url:
        _fill_a_cache(arena, url)


def fill_a_docker_volume(arena: Arena) -> None:
    """The same with a Docker volume."""
    engine = _engine()
    (arena.folder / USES_DOCKER).touch()
    from backends.common.names import SCOPE
    from backends.docker.names import volume_labels, volume_name

    engine.create_volume(
        volume_name(arena.scope, "python"),
        labels=volume_labels(arena.scope, "python"),
        driver_opts={"type": "tmpfs", "device": "tmpfs", "o": f"size={FULL_DISK}"},
    )
    (subnet,) = engine.inspect_network("bridge")["IPAM"]["Config"][:1]
    address = subnet.get("Gateway") or str(next(ip_network(subnet["Subnet"]).hosts()))
    image = os.environ.get("STOKE_TEST_IMAGE", "stoke-test/full:latest")
    volume = f"{volume_name(arena.scope, 'python')}:/cache"
    # Docker empties such a volume when no container has it.
    holder = ["docker", "run", "-d", "-v", volume, "--label", f"{SCOPE}={arena.scope}", image]
    subprocess.run([*holder, "sleep", "600"], check=True, capture_output=True)
    with _index(arena, address) as url:
        _fill_a_cache(arena, url, STOKE_BACKEND="docker", STOKE_DOCKER__IMAGE=image)


def _fill_a_cache(arena: Arena, url: str, **more: str) -> None:
    heavy = "import heavy; print(heavy.version)"
    for _ in range(2):
        status, out = arena.run("run", "-w", "heavy", "--index", url, "-c", heavy, **more)
        assert (status, out) == (0, b"1.0\n"), f"with heavy packages: {status}, {out!r}"
    light = ("--json", "-w", "light", "--index", url, "-c", "import light")
    hits = []
    for _ in range(2):
        status, out = arena.run("run", *light, **more)
        assert status == 0, f"with light packages: {status}"
        hits += [one["hit"] for one in json.loads(out)["phases"] if one["name"] == "python"]
    assert hits == [False, True], f"hits {hits} instead of a miss and a hit"


@contextmanager
def _index(arena: Arena, address: str) -> Iterator[str]:
    from tests.package_index import PackageIndex

    index = PackageIndex(address)
    index.add("light", "1.0")
    index.add("heavy", "1.0", size=arena.random.randrange(FULL_DISK, 4 * FULL_DISK))
    try:
        yield index.url
    finally:
        index.stop()


def _engine() -> Any:
    """Return docker-py's client of the machine's engine."""
    from backends.docker.engine import Engine
    from stoke.errors import EngineError

    try:
        with Engine(None).call("use Docker") as api:
            api.ping()
    except EngineError as error:
        raise SkippedError(error.what) from None
    return api


def kill_an_engine(arena: Arena) -> None:
    """A Docker engine gets SIGKILL while jobs run, and starts again: jobs end, no line comes twice."""
    from tests.backends.docker.test_engine_restart import PrivateEngine, remove_mounts

    if os.geteuid() != 0 or not shutil.which("dockerd"):
        raise SkippedError("needs root and dockerd")
    image = os.environ.get("STOKE_TEST_IMAGE_BARE", "stoke-test/bare:latest")
    if not _engine().images(image):
        raise SkippedError(f"the engine has no image {image}")
    engine = PrivateEngine(arena.folder)
    engine.start()
    try:
        engine.load(image)
        docker = {
            "STOKE_BACKEND": "docker",
            "STOKE_DOCKER__HOST": engine.host,
            "STOKE_DOCKER__IMAGE": image,
            "STOKE_DOCKER__NETWORK": "none",
        }
        code = "import time\nfor n in range(300): print(n, flush=True); time.sleep(0.01)"
        clients = [arena.start("run", "-c", code, **docker) for _ in range(3)]
        time.sleep(arena.random.uniform(0, 6))
        engine.stop(signal.SIGKILL)
        time.sleep(arena.random.uniform(0, 2))
        engine.start()
        for client in clients:
            arena.end(client)
        lost = 0
        for job in arena.until_finished(**docker):
            if job["state"] == "lost":
                continue
            # An engine that dies while it starts a container reports an end of the container.
            assert job["state"] in ("succeeded", "failed"), f"{job['id']} is {job['state']}"
            status, log = arena.run("logs", job["id"], **docker)
            assert status == 0, "stoke logs fails"
            # The engine loses what it has read and not written, and what it cannot read back.
            lines = [int(line) for line in log.split(b"\n")[:-1] if line.isdigit()]
            assert lines == sorted({*lines}), f"{job['id']}: lines twice or out of order"
            lost += 300 - len(lines)
        arena.found = f"3 jobs; {lost} lines lost by the engine"
    finally:
        engine.stop()
        remove_mounts(arena.folder)


def read_hostile_files(arena: Arena) -> None:
    """Every file that a command reads is of a wrong kind or content: an error, within 2 GiB."""
    place = arena.folder / "file"
    kind = arena.random.choice(sorted(HOSTILE_FILES))
    HOSTILE_FILES[kind](place, arena.random)
    uses: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
        "code": (("run", str(place)), {}),
        "requirements": (("run", "-r", str(place), "-c", "1"), {}),
        "lockfile": (("run", "--lock", str(place), "-c", "1"), {}),
        "request": (("submit", str(place)), {}),
        "recording": (("race", "--replay", str(place)), {}),
        "secret": (("run", "--secret", f"A=file:{place}", "-c", "1"), {}),
        "settings": (("jobs",), {"STOKE_CONFIG": str(place)}),
    }
    for use, (arguments, more) in uses.items():
        code, _, error = arena.end(arena.start_limited(*arguments, **more))
        assert 0 <= code < 128, f"{kind} as {use}: {code}"
        assert len(error) < 20_000, f"{kind} as {use}: {len(error)} bytes of errors"
        # Python's own errors quote the code of a job as it is.
        assert use == "code" or b"\x1b" not in error, f"{kind} as {use}: an escape sequence"


def _noise(place: Path, source: random.Random) -> None:
    place.write_bytes(source.randbytes(200_000))


def _sparse(place: Path, _source: random.Random) -> None:
    with place.open("wb") as file:
        file.truncate(6 << 30)


HOSTILE_FILES: dict[str, Callable[[Path, random.Random], object]] = {
    "noise": _noise,
    "sparse": _sparse,
    "zeros without end": lambda place, _: place.symlink_to("/dev/zero"),
    "folder": lambda place, _: place.mkdir(),
    "link to itself": lambda place, _: place.symlink_to(place),
    "deep": lambda place, _: place.write_text("[" * 200_000),
    "deep TOML": lambda place, _: place.write_text("a = " + "[" * 200_000),
    "escapes": lambda place, _: place.write_text('"\x1b]0;x\x07\x1b[8m" = \x1b[2J'),
    "one long line": lambda place, _: place.write_text("x" * 5_000_000),
    "nothing": lambda place, _: place.write_bytes(b""),
    "no text": lambda place, _: place.write_bytes(b"\x00\xff\xfe" * 1000),
}


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
    scope = arena.folder / "cache/scopes" / arena.scope
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

    kind = arena.random.choice(sorted(MALICE))
    command = arena.random.choice([("run", "-c", "1"), ("cache", "ls", "-b", "docker")])
    with fake_engine(arena.folder) as engine:
        engine.any_answer = MALICE[kind]
        docker = {"STOKE_BACKEND": "docker", "STOKE_DOCKER__HOST": engine.url}
        code, _, error = arena.end(arena.start_limited(*command, **docker))
    assert code == 125, f"{kind}: stoke ends with {code}"
    assert len(error) < 10_000, f"{kind}: {len(error)} bytes of errors"


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
    """500 jobs, or as many as the time allows, while the app is open: it does not grow."""
    import pty

    def run_job(number: int) -> None:
        wanted = number % 5
        status, out = arena.run("run", "-c", f"print({number}); raise SystemExit({wanted})")
        assert (status, out) == (wanted, b"%d\n" % number), f"job {number}: {status}, {out!r}"

    run_job(0)  # With a job in the history the app opens without its introduction.
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
    done = 1
    first: tuple[int, int] | None = None
    try:
        while done < JOBS_IN_SEQUENCE and not (arena.time_is_up and first):
            run_job(done)
            done += 1
            if done == 10:  # The list is full of rows by then, and the log panel has been open.
                first = _use_of(app.pid)
        assert app.poll() is None, "the app has ended"
        assert first is not None
        last = _use_of(app.pid)
        arena.found = (
            f"{done} jobs; MiB {first[0]} to {last[0]}, descriptors {first[1]} to {last[1]}"
        )
        assert last[0] - first[0] < 24 and last[1] - first[1] < 8, f"the app grew: {arena.found}"
        ended = [(job["state"], job["exit_code"]) for job in arena.jobs()]
        right = [("failed" if n % 5 else "succeeded", n % 5) for n in reversed(range(done))]
        assert ended == right, "the history differs from what the commands returned"
        os.write(ours, b"q")
        assert app.wait(PATIENCE) == 0, f"the app ends with {app.returncode}"
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
    "kill an engine": kill_an_engine,
    "cut a flood": cut_a_flood,
    "fill the disk": fill_the_disk,
    "fill the cache": fill_the_cache,
    "fill a Docker volume": fill_a_docker_volume,
    "spoil the history": spoil_the_history,
    "spoil a volume": spoil_a_volume,
    "read hostile files": read_hostile_files,
    "stop a deaf job": stop_a_deaf_job,
    "meet a hostile engine": meet_a_hostile_engine,
    "crowd": crowd,
    "sequence with the app": sequence_with_the_app,
}


# ---------------------------------------------------------------------------- one round


def attack(
    name: str, seed: int, number: int, seconds: float, cut_after: float | None = None
) -> tuple[int, str]:
    """Run one round. Return PASSED, FAULT, SKIPPED or CUT, and its text.

    An attack without an end of its own takes `seconds`; each is cut after `cut_after`, or then.
    """
    command = [sys.executable, "-m", "bench.torture", name, str(seed), str(number), str(seconds)]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            out, _ = process.communicate(timeout=cut_after or seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # It removes what it has made.
            process.communicate()
            return CUT, ""
        except BaseException:
            process.terminate()
            raise
    return process.returncode, out.strip()


def play_round(name: str, seed: int, number: int, seconds: float) -> int:
    """Run one round in a child, then end all processes below this one and remove the round's folder."""
    # Every process that loses its parent becomes a child of this one.
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    def cut(*_: object) -> None:
        raise InterruptedError

    folder = None
    try:
        signal.signal(signal.SIGTERM, cut)
        folder = Path(tempfile.mkdtemp(prefix="stoke-torture-"))
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            arena = Arena(folder, random.Random(f"{seed}/{name}/{number}"), seconds)
            status, text = _result(arena, name)
            print(text, flush=True)
            os._exit(status)
        while True:
            ended, status = os.wait()
            if ended == child:
                # A signal's number is negative, and a fault.
                return max(FAULT, code) if (code := os.waitstatus_to_exitcode(status)) else PASSED
    except InterruptedError:
        return CUT
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_children()
        if folder is not None:
            if (folder / USES_DOCKER).exists():
                _remove_from_docker(_scope_of(folder))
            _remove(folder)


def _result(arena: Arena, name: str) -> tuple[int, str]:
    try:
        ATTACKS[name](arena)
    except SkippedError as error:
        return SKIPPED, str(error)
    except AssertionError as error:
        return FAULT, str(error)
    except Exception:
        return FAULT, traceback.format_exc()
    return PASSED, arena.found


def _end_children() -> None:
    while True:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                after_name = stat.read_text(errors="replace").rpartition(")")[2].split()
                if int(after_name[1]) == os.getpid():
                    os.kill(int(stat.parent.name), signal.SIGKILL)
            except OSError:
                pass  # It has ended.
        try:
            os.wait()
        except ChildProcessError:
            return


def _remove(folder: Path) -> None:
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in reversed(mounted):
        if Path(place).is_relative_to(folder):
            libc.umount2(os.fsencode(place), MNT_DETACH)
    for path, folders, _ in os.walk(folder):
        for one in folders:
            if not os.path.islink(os.path.join(path, one)):
                os.chmod(os.path.join(path, one), 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _scope_of(folder: Path) -> str:
    return "torture-" + hashlib.sha256(folder.name.encode()).hexdigest()[:8]


def _remove_from_docker(scope: str) -> None:
    from backends.common.names import SCOPE

    try:
        engine = _engine()
    except SkippedError:
        return
    ours = {"label": [f"{SCOPE}={scope}"]}
    for container in engine.containers(all=True, filters=ours):
        engine.remove_container(container["Id"], force=True, v=True)
    for volume in engine.volumes(filters=ours)["Volumes"] or []:
        engine.remove_volume(volume["Name"])


# ---------------------------------------------------------------------------- the table


@dataclass
class Row:
    name: str
    rounds: int = 0
    seconds: float = 0.0
    was_cut: bool = False
    text: str = ""
    faults: list[str] = field(default_factory=list)


def main() -> int:
    seconds = float(os.environ.get("SECONDS", "600"))
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed {seed}; again: SEED={seed} make torture", flush=True)
    rows = [Row(name) for name in ATTACKS]
    print(f"{'attack':22} {'rounds':>6} {'cut':>3} {'faults':>6} {'seconds':>7}  checked")
    ends = time.monotonic() + seconds
    for number, row in enumerate(rows):
        _fill(row, seed, (ends - time.monotonic()) / (len(rows) - number))
        what = row.text or ATTACKS[row.name].__doc__
        if row.was_cut and not row.rounds:
            what = f"NOTHING: one round takes longer than {row.seconds:.0f} s here"
        print(
            f"{row.name:22} {row.rounds:6} {row.was_cut:3} {len(row.faults):6} {row.seconds:7.1f}",
            what,
            flush=True,
        )
        for fault in row.faults[:5]:
            print(f"    {fault}", flush=True)
    return 1 if any(row.faults for row in rows) else 0


def _fill(row: Row, seed: int, seconds: float) -> None:
    """Run rounds until the time is over. What an attack leaves of its time goes to those after it."""
    began = time.monotonic()
    while row.rounds == 0 or time.monotonic() - began < seconds:
        left = seconds - (time.monotonic() - began)
        code, text = attack(row.name, seed, row.rounds, max(left, 1.0))
        if code == SKIPPED:
            row.text = f"skipped: {text}"
            break
        if code == CUT:
            row.was_cut = True
            break
        if code != PASSED:
            again = f"python -m bench.torture {row.name!r} {seed} {row.rounds}"
            row.faults.append(f"round {row.rounds}: {text}\n    again: {again}")
        elif text:
            row.text = text
        row.rounds += 1
        if row.name == "sequence with the app":
            break
    row.seconds = time.monotonic() - began


if __name__ == "__main__":
    if len(sys.argv) > 1:
        attack_name, wanted_seed, wanted_round, *limit = sys.argv[1:]
        sys.exit(
            play_round(attack_name, int(wanted_seed), int(wanted_round), float(*limit or ["inf"]))
        )
    sys.exit(main())
