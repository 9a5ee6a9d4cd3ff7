"""Attacks with files, histories, cache volumes and engines of wrong kinds and content."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

from bench.torture.arena import Arena


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
        code, _, error = arena.wait(arena.start_limited(*arguments, **more))
        if use == "code":
            # Python's own errors quote the code of a job as it is, however long.
            error = error.replace(_errors_of_the_job(arena), b"")
        assert 0 <= code < 128, f"{kind} as {use}: {code}"
        assert b"Traceback" not in error, error[-2000:].decode(errors="replace")
        assert len(error) < 5_000, f"{kind} as {use}: {len(error)} bytes of errors"
        assert b"\x1b" not in error, f"{kind} as {use}: an escape sequence"


def _errors_of_the_job(arena: Arena) -> bytes:
    """Return what the only job wrote to stderr; nothing if its request was refused."""
    jobs = arena.until_finished()
    return arena.wait(arena.start("logs", jobs[0]["id"]))[2] if jobs else b""


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
