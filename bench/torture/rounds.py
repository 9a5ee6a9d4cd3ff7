"""One round of an attack, in a process of its own that leaves nothing behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from bench.torture.arena import (
    MNT_DETACH,
    USES_DOCKER,
    Arena,
    SkippedError,
    docker_engine,
    libc,
    scope_of,
)
from bench.torture.crowds import crowd, sequence_with_the_app
from bench.torture.full_disks import fill_a_docker_volume, fill_the_cache, fill_the_disk
from bench.torture.hostile import (
    meet_a_hostile_engine,
    read_hostile_files,
    spoil_a_volume,
    spoil_the_history,
)
from bench.torture.kills import cut_a_flood, kill_an_engine, kill_the_client, stop_a_deaf_job

# Exit codes of a round's process.
PASSED, FAULT, SKIPPED, CUT = 0, 1, 2, 3
# Of prctl(2).
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

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


def attack(
    name: str, seed: int, number: int, seconds: float, cut_after: float | None = None
) -> tuple[int, str]:
    """Run one round. Return PASSED, FAULT, SKIPPED or CUT, and its text.

    An attack without an end of its own takes `seconds`; each is cut after `cut_after`, or then.
    """
    command = [sys.executable, "-m", "bench.torture", name, str(seed), str(number), str(seconds)]
    root = Path(__file__).parent.parent.parent
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
                _remove_from_docker(scope_of(folder))
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


def _remove_from_docker(scope: str) -> None:
    from backends.common.names import SCOPE

    try:
        engine = docker_engine()
    except SkippedError:
        return
    ours = {"label": [f"{SCOPE}={scope}"]}
    for container in engine.containers(all=True, filters=ours):
        engine.remove_container(container["Id"], force=True, v=True)
    for volume in engine.volumes(filters=ours)["Volumes"] or []:
        engine.remove_volume(volume["Name"])
