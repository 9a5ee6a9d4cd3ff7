"""List a cache with 1,000 environments: the first time, and after it was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stoke.remote.bundle import housekeeping_source
from stoke.remote.protocol import METADATA

ENVIRONMENTS = 1000
PACKAGES = 40
FILES = 3  # files of each package in an environment
LIMIT = 1.0


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="stoke-bench-") as folder:
        fill(Path(folder))
        first, usage = seconds_of_usage(folder)
        again = sorted(seconds_of_usage(folder)[0] for _ in range(5))[2]
        start = time.perf_counter()
        du = subprocess.run(["du", "-s", "--block-size=1", folder], capture_output=True, check=True)
        by_du = time.perf_counter() - start
        size = int(du.stdout.split()[0])
    assert len(usage["environments"]) == ENVIRONMENTS
    assert abs(usage["bytes"] - size) < 0.01 * size, (usage["bytes"], size)
    print(
        f"usage of {ENVIRONMENTS} environments with {PACKAGES} packages each: first {first:.2f} s, "
        f"then {again:.2f} s (<= {LIMIT}), du {by_du:.2f} s "
        + ("ok" if again <= LIMIT else "NOT REACHED"),
        flush=True,
    )


def fill(top: Path) -> None:
    """Create files as uv does: packages in its cache, environments as hard links into them."""
    archives = {}
    for number in range(PACKAGES * 5):
        name = f"package{number}"
        archive = top / "uv/archive-v0" / f"archive{number}"
        archive.mkdir(parents=True)
        for file in range(FILES):
            (archive / f"{file}.py").write_bytes(b"#" * 5000)
        pointer = top / "uv/wheels-v7/pypi" / name
        pointer.mkdir(parents=True)
        (pointer / "1.0-py3-none-any").symlink_to(f"../../../archive-v0/archive{number}")
        archives[name] = archive
    names = list(archives)
    for number in range(ENVIRONMENTS):
        key = f"{number:032x}"
        folder = top / "venvs" / key
        chosen = [names[(number + step * 7) % len(names)] for step in range(PACKAGES)]
        site = folder / "lib/python3.13/site-packages"
        for name in chosen:
            (site / name).mkdir(parents=True)
            for file in range(FILES):
                os.link(archives[name] / f"{file}.py", site / name / f"{file}.py")
        packages = [f"{name}==1.0" for name in chosen]
        hashes = "".join(f" \\\n    --hash=sha256:{'0' * 64}" for _ in range(10))
        lock = "".join(f"{package}{hashes}\n" for package in packages)
        mark = {"packages": packages, "built_at": time.time(), "lock": lock}
        (folder / METADATA).write_text(json.dumps(mark))
        (folder.with_name(key + ".lock")).write_bytes(b".")


def seconds_of_usage(folder: str) -> tuple[float, dict[str, Any]]:
    operation = json.dumps({"kind": "python", "do": "usage", "lock_ttl": 86400})
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-", folder, operation],
        input=housekeeping_source("python"),
        capture_output=True,
        check=True,
    )
    taken = time.perf_counter() - start
    return taken, json.loads(done.stdout.splitlines()[-1])["result"]
