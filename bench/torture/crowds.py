"""Attacks with many clients, and with many jobs while the app is open."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

from bench.torture.arena import PATIENCE, STOKE, Arena

JOBS_IN_SEQUENCE = 500


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
    uses: list[tuple[int, int]] = []
    try:
        while done < JOBS_IN_SEQUENCE and not (arena.time_is_up and uses):
            run_job(done)
            done += 1
            if done >= 10:  # The list is full of rows by then, and the log panel has been open.
                uses.append(_use_of(app.pid))
        assert app.poll() is None, "the app has ended"
        first, middle, last = uses[0], uses[len(uses) // 2], uses[-1]
        arena.found = (
            f"{done} jobs; at start, middle and end: MiB {first[0]}, {middle[0]}, {last[0]}; "
            f"descriptors {first[1]}, {middle[1]}, {last[1]}"
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
