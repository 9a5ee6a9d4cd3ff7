"""What the screens write to a terminal of 120x40 while ten jobs run and no key is pressed."""

from __future__ import annotations

import subprocess
import time

from bench.measure import STOKE, own_home
from bench.slow_link import far_terminal

JOBS = 10
SETTLE_SECONDS, SECONDS = 15.0, 30.0
LIMIT = 2 * 1024
"""Bytes per second."""
# Load and memory differ from one report to the next.
_CODE = """
import random, time
held = []
while True:
    until = time.monotonic() + random.uniform(0, 0.2)
    while time.monotonic() < until:
        sum(range(1000))
    held = [bytes(random.randrange(1, 40_000_000))]
    time.sleep(random.uniform(0.5, 2))
"""


def main() -> None:
    with own_home() as env:
        env["STOKE_QUEUE__SLOTS"] = str(JOBS)
        ids = []
        for number in range(JOBS):
            job = [STOKE, "run", "--detach", "--name", f"live-{number}", "-c", _CODE]
            done = subprocess.run(job, env=env, check=True, capture_output=True, text=True)
            ids.append(done.stdout.split()[0])
        try:
            with far_terminal([STOKE], env, None, 0.0) as terminal:
                terminal.until("why / load")
                time.sleep(SETTLE_SECONDS)
                before = terminal.received
                time.sleep(SECONDS)
                rate = (terminal.received - before) / SECONDS
        finally:
            subprocess.run([STOKE, "stop", *ids], env=env, check=True, capture_output=True)
    verdict = "ok" if rate <= LIMIT else "NOT REACHED"
    print(f"ten running jobs at rest: {rate:.0f} bytes/s (<= {LIMIT}) {verdict}", flush=True)


if __name__ == "__main__":
    main()
