"""The program that looks after a cache volume, where it is mounted (Python 3.9 or later).

    python3 -I -S housekeeping.py VOLUME OPERATION [--uv PATH]

OPERATION is the JSON of `stoke.remote.schema.Operation`. Its `do` is one of
    usage   measure what the volume holds
    prune   remove environments, or sets of system packages, that no job uses: with `unused` those
            unused for that many seconds, with `max_bytes` the least recently used until the volume
            holds no more. Then remove what none of the others needs: packages from uv's cache, and
            paths from Nix's store, which takes Nix. With `dry_run` only report that.
    clear   remove everything; refuse while a job uses the volume
    lock    return the lockfile that the environment `key` was built from
    send-results  print the results of the job `job` from `offset` on, in lines
            {"data": base64, "at": offset}
    drop-results  remove the results of `jobs`, and all results older than two weeks
The operations on a workspace are those of `stoke.remote.housekeeping.workspace_volume`.
A stored lockfile younger than `lock_ttl` seconds needs its packages too: a job may be about to build
from it.

Prints JSON on stdout, a line each: {"progress": text} any number of times, at least every second, then
{"result": object} or {"error": text, "hint": text or null}. SIGTERM may end it at any point, because it
moves files into trash/ before it deletes them, and the next run empties that.

Follows no symbolic link, neither to measure nor to delete. Bytes are allocated ones, and a file with
several links counts once. Jobs can write anything to the volume. So every read has a limit, only
regular files are opened, anything else in their place is trash, and `clear` deletes without measuring
first. `stoke.remote.protocol` names what jobs keep on a volume. Besides, there are
    housekeeping.lock  held exclusively while something is removed
    housekeeping.json  sizes of what does not change, so that the next measuring is quick
    trash/             what is being deleted
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys

from stoke.remote.housekeeping.errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from stoke.remote.housekeeping.python_volume import PythonVolume
    from stoke.remote.housekeeping.system_volume import SystemVolume
    from stoke.remote.schema import Operation

STUCK_SECONDS = 120.0
"""Housekeeping that makes no progress for so long ends itself."""


def perform(top: str, operation: Operation, uv: str | None) -> dict[str, Any]:
    """Return the result. `RefusedError` if nothing was done."""
    if operation["kind"] == "workspace":
        from stoke.remote.housekeeping.workspace_volume import WorkspaceVolume

        return WorkspaceVolume(top, _report_progress).perform(operation)
    action = operation["do"]
    if action in ("send-results", "drop-results"):
        from stoke.remote.housekeeping.results import drop_results, send_results

        if action == "drop-results":
            return drop_results(top, operation["jobs"])
        most = operation["max_bytes"] or 0
        return send_results(top, operation["job"], operation["offset"], most, _print_line)
    volume = _open_volume(top, operation["kind"], uv)
    if action == "usage":
        return volume.usage(operation["lock_ttl"])
    if action == "clear":
        return volume.clear()
    if action == "lock":
        return volume.lock(operation["key"])
    return volume.prune(
        operation["unused"], operation["max_bytes"], operation["lock_ttl"], operation["dry_run"]
    )


def _open_volume(top: str, kind: str, uv: str | None) -> PythonVolume | SystemVolume:
    if kind not in ("python", "system"):
        raise RefusedError("there is no housekeeping for %s caches" % kind)
    if not stat.S_ISDIR(os.lstat(top).st_mode):
        raise RefusedError("%s is not a folder" % top)
    if kind == "python":
        from stoke.remote.housekeeping.python_volume import PythonVolume

        return PythonVolume(top, uv, _report_progress)
    from stoke.remote.housekeeping.system_volume import SystemVolume

    return SystemVolume(top, uv, _report_progress)


def main(arguments: list[str]) -> int:
    # The kernel ignores signals without a handler for process 1 of a container.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    signal.signal(signal.SIGALRM, _on_stuck)
    signal.setitimer(signal.ITIMER_REAL, STUCK_SECONDS)
    top, operation = arguments[0], json.loads(arguments[1])
    uv = arguments[3] if len(arguments) > 2 else None
    try:
        _print_line(result=perform(top, operation, uv))
    except RefusedError as error:
        _print_line(error=error.text, hint=error.hint)
        return 1
    except OSError as error:
        _print_line(error="%s: %s" % (error.filename or top, error.strerror), hint=None)
        return 1
    except Exception as error:
        text = "housekeeping failed: %s: %s" % (type(error).__name__, error)
        _print_line(error=text, hint=None)
        return 1
    return 0


def _report_progress(text: str) -> None:
    _print_line(progress=text)


def _print_line(**line: object) -> None:
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()
    signal.setitimer(signal.ITIMER_REAL, STUCK_SECONDS)


def _on_stuck(_number: int, _frame: object) -> None:
    """End this program: the volume's disk does not answer, or the work on it is endless."""
    text = "housekeeping made no progress for %d seconds and was ended" % STUCK_SECONDS
    os.write(1, json.dumps({"error": text, "hint": None}).encode() + b"\n")
    os._exit(1)
