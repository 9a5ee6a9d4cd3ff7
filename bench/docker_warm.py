"""A warm Docker job, against `docker run` of an image with the same packages baked in."""

from __future__ import annotations

import json
import subprocess

from bench.docker import BAKED, RUN, bake, docker_home
from bench.measure import IMPORTS, PACKAGES, pairs, report, seconds


def main() -> None:
    bake(PACKAGES)
    with docker_home() as (env, scope):
        command = [*RUN, "--scope", scope]
        for package in PACKAGES:
            command += ["--with", package]
        seconds([*command, "-c", IMPORTS], env)  # cold: fills the cache
        ours, theirs, ratio = pairs(
            lambda: seconds([*command, "-q", "-c", IMPORTS], env),
            lambda: seconds(["docker", "run", "--rm", BAKED, "/opt/env/bin/python", "-c", IMPORTS]),
            15,
        )
        report("docker, warm: stoke run", ours, theirs, ratio, 1.3)
        done = subprocess.run(
            [*command, "--json", "-c", IMPORTS], env=env, capture_output=True, check=True
        )
    phases = [
        phase
        for phase in json.loads(done.stdout)["phases"]
        if phase["name"] in ("lock", "system", "python")
    ]
    taken = 1000 * sum(phase["seconds"] for phase in phases)
    received = sum(phase["bytes"] for phase in phases)
    print(
        f"docker, warm: environment phases {taken:.1f} ms (<= 10) "
        f"{'ok' if taken <= 10 else 'NOT REACHED'}, {received} bytes received (0) "
        f"{'ok' if received == 0 else 'NOT REACHED'}",
        flush=True,
    )
