"""A warm system phase in a volume with 1,000 other sets, against Nix evaluating the same package."""

from __future__ import annotations

import json
import statistics
import subprocess

from bench.docker import IMAGE, RUN, bridge_address, docker_home
from tests.nix_cache import NixCache, make_files

ROOTS = 1000
COUNT = 15

# Copies of the existing set, each with its file lock, as a thousand earlier requests leave them.
FILLS = f"""
import glob, hashlib, os, shutil
(one,) = glob.glob("/nix/var/nix/gcroots/jobs/*")
for number in range({ROOTS}):
    key = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    shutil.copytree(one, os.path.join(os.path.dirname(one), key), symlinks=True)
    open("/nix/var/stoke/" + key + ".lock", "w").close()
print(len(os.listdir(os.path.dirname(one))))
"""

# The alternative for a user: evaluate the package, and find that it is installed.
ASKS = """
import os, subprocess, sys, time
command = ["nix-build", "--no-out-link", "-E", sys.argv[1], "-A", "tree"]
for _ in range(16):
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    print(time.perf_counter() - start)
"""


def main() -> None:
    from backends.docker.engine import Engine

    address = bridge_address()
    engine = Engine(None)
    with engine.call("make the packages") as api:
        served = NixCache(address, make_files(api, IMAGE))
    engine.close()
    settings = served.settings()
    with docker_home() as (env, scope):
        env["STOKE_NIX"] = json.dumps(settings)
        command = [*RUN, "--scope", scope, "--system", "tree"]

        def run(code: str, *arguments: str) -> str:
            done = subprocess.run(
                [*command, "-q", "-c", code, "--", *arguments],
                env=env, capture_output=True, text=True, check=True,
            )  # fmt: skip
            return done.stdout

        run("pass")
        sets = int(run(FILLS))
        ours = []
        for _ in range(COUNT):
            done = subprocess.run(
                [*command, "--json", "-c", "pass"], env=env, capture_output=True, check=True
            )
            (phase,) = [p for p in json.loads(done.stdout)["phases"] if p["name"] == "system"]
            if not phase["hit"]:
                raise SystemExit(f"a warm job did not find its packages: {phase}")
            ours.append(1000 * phase["seconds"])
        pin = f'fetchTarball {{ url = "{settings["url"]}"; sha256 = "{settings["sha256"]}"; }}'
        said = run(ASKS, f"import ({pin}) {{ }}").split()
        theirs = [1000 * float(seconds) for seconds in said[1:]]
    served.stop()
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"system, warm among {sets} sets: {mine:.2f} ms, at most {max(ours):.2f} (<= 10) "
        f"{'ok' if max(ours) <= 10 else 'NOT REACHED'}; nix-build of it {other:.0f} ms "
        f"= {mine / other:.3f} x",
        flush=True,
    )
