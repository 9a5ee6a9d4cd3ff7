"""A cold Docker job, against `uv pip install` and a run by hand in a container, cache empty."""

from __future__ import annotations

import secrets
import subprocess

from bench.docker import IMAGE, RUN, docker_home, trust
from bench.measure import IMPORTS, PACKAGES, pairs, report, seconds

BY_HAND = (
    "uv venv --quiet /tmp/env && uv pip install --quiet --python /tmp/env/bin/python "
    + " ".join(PACKAGES)
    + f" && /tmp/env/bin/python -c '{IMPORTS}'"
)


def main() -> None:
    with docker_home() as (env, scope):
        scopes = []

        def ours() -> float:
            scopes.append(f"{scope}-{secrets.token_hex(4)}")
            command = [*RUN, "-q", "--scope", scopes[-1]]
            for package in PACKAGES:
                command += ["--with", package]
            return seconds([*command, "-c", IMPORTS], env)

        def theirs() -> float:
            return seconds(["docker", "run", "--rm", *trust(), IMAGE, "sh", "-c", BY_HAND])

        try:
            mine, other, ratio = pairs(ours, theirs, 7)
        finally:
            for used in scopes:
                subprocess.run(
                    ["docker", "volume", "rm", "--force", f"stoke-{used}-python"],
                    capture_output=True,
                )
        report("docker, cold: stoke run", mine, other, ratio, 1.2)
