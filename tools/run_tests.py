"""Run the tests three at a time, and the few that fail once more, each alone.

Python's own test runner does the same. A test that passes only alone does not fail the run, but it is
listed at the end: it waits for luck, or shows a race of ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parent.parent
FAILED = TOP / ".pytest_cache/v/cache/lastfailed"
TESTS_FAILED = 1  # pytest's own exit code: it ran, and some tests failed.
FEW = 5


def pytest(*options: str) -> int:
    return subprocess.call([sys.executable, "-m", "pytest", *options], cwd=TOP)


def main() -> int:
    given = sys.argv[1:]
    code = pytest("--cache-clear", "-n", "3", "--dist", "worksteal", *given)
    if code != TESTS_FAILED or not FAILED.exists():
        return code
    failed = list(json.loads(FAILED.read_text()))
    if len(failed) > FEW:
        return code
    print(f"\nonce more, each alone: {len(failed)} failed", flush=True)
    again = [test for test in failed if pytest("-n", "0", "--cache-clear", test) != 0]
    for test in failed:
        print(f"{'FAILED ALSO ALONE' if test in again else 'PASSED ONLY ALONE'} {test}")
    return code if again else 0


if __name__ == "__main__":
    sys.exit(main())
