"""Ten jobs with the same packages from an empty cache, against ten without a cache, in Docker."""

from __future__ import annotations

import json
import subprocess

from bench.docker import RUN, docker_home
from bench.measure import IMPORTS, PACKAGES

JOBS = 10


def main() -> None:
    with docker_home() as (env, scope):
        seconds, received = {}, {}
        for how, flags in (("with", []), ("without", ["--no-cache"])):
            command = [*RUN, "--json", "--scope", scope, *flags]
            for package in PACKAGES:
                command += ["--with", package]
            documents = []
            for _ in range(JOBS):
                done = subprocess.run(
                    [*command, "-c", IMPORTS], env=env, capture_output=True, check=True
                )
                documents.append(json.loads(done.stdout))
            phases = [
                phase
                for document in documents
                for phase in document["phases"]
                if phase["name"] in ("lock", "system", "python")
            ]
            seconds[how] = sum(phase["seconds"] for phase in phases)
            received[how] = sum(phase["bytes"] for phase in phases)
    faster = seconds["without"] / seconds["with"]
    fewer = 100 * (1 - received["with"] / received["without"])
    print(
        f"ten jobs: environment phases {seconds['with']:.2f} s with a cache, "
        f"{seconds['without']:.2f} s without = {faster:.1f} x less (>= 8) "
        + ("ok" if faster >= 8 else "NOT REACHED")
    )
    print(
        f"ten jobs: received {received['with'] / 1e6:.1f} MB with a cache, "
        f"{received['without'] / 1e6:.1f} MB without = {fewer:.1f} % fewer (>= 88 %) "
        + ("ok" if fewer >= 88 else "NOT REACHED"),
        flush=True,
    )
