"""Ten workspaces with the same packages, launched one after another in Docker: with the caches of one
scope, against a scope each."""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from bench.docker import IMAGE, RUN, bridge_address, docker, docker_home
from bench.measure import IMPORTS, PACKAGES, STOKE
from tests.nix_cache import NixCache, make_files

WORKSPACES = 10
SYSTEM = "tree"
CODE = f"""
import os, subprocess, time
print("began", time.time())
{IMPORTS}
assert subprocess.run(["{SYSTEM}"], capture_output=True, check=True).stdout
open(os.environ["STOKE_WORKSPACE"] + "/mine.txt", "x").close()
"""
PHASES = ("lock", "system", "python")


@dataclass
class Launches:
    """What ten launches took together: seconds, bytes received, and bytes on disk afterwards.

    A launch is over when the code begins: what it imports and does is the same for both.
    """

    environment: float = 0.0
    launch: float = 0.0
    received: int = 0
    disk: int = 0


def main() -> None:
    from backends.docker.engine import Engine

    address = bridge_address()
    engine = Engine(None)
    with engine.call("make the packages") as api:
        served = NixCache(address, make_files(api, IMAGE))
    engine.close()
    with docker_home() as (env, scope):
        env["STOKE_NIX"] = json.dumps(served.settings(substitute=True))
        # The image and this machine's own files are warm for both sides.
        _launch(env, f"{scope}-first", f"{scope}-first")
        try:
            apart = [f"{scope}-{number}" for number in range(WORKSPACES)]
            shared = _all(env, [scope] * WORKSPACES, f"{scope}-shared")
            unshared = _all(env, apart, f"{scope}-apart")
        finally:
            _clean(scope)
    served.stop()
    _times("environment phases", unshared.environment, shared.environment, 8)
    _times("launches", unshared.launch, shared.launch, 6)
    _fewer("received", unshared.received, shared.received)
    _fewer("on disk", unshared.disk, shared.disk)


def _all(env: dict[str, str], scopes: list[str], name: str) -> Launches:
    done = Launches()
    for number, scope in enumerate(scopes):
        asked = time.time()
        phases, began = _launch(env, scope, f"{name}.{number}")
        done.launch += began - asked
        done.environment += sum(phase["seconds"] for phase in phases)
        done.received += sum(phase["bytes"] or 0 for phase in phases)
    measured = _measured(
        env, "workspace", "list", *(f"{name}.{number}" for number in range(WORKSPACES))
    )
    for scope in set(scopes):
        measured += _measured(env, "cache", "ls", "--scope", scope)
    done.disk = sum(one["bytes"] for one in measured)
    return done


def _launch(env: dict[str, str], scope: str, workspace: str) -> tuple[list[dict[str, Any]], float]:
    """Run one job and return its environment phases, and when its code began."""
    command = [*RUN, "--json", "--scope", scope, "--workspace", workspace, "--system", SYSTEM]
    for package in PACKAGES:
        command += ["--with", package]
    done = subprocess.run([*command, "-c", CODE], env=env, capture_output=True)
    if done.returncode:
        raise SystemExit(f"a job failed:\n{done.stderr.decode()}\n{done.stdout.decode()}")
    document = json.loads(done.stdout)
    phases = [phase for phase in document["phases"] if phase["name"] in PHASES]
    (line,) = re.findall(rb"^began ([0-9.]+)$", done.stderr, re.MULTILINE)
    return phases, float(line)


def _measured(env: dict[str, str], *words: str) -> list[dict[str, Any]]:
    command = [STOKE, *words, "-b", "docker", "--measure", "--json"]
    measured = {**env, "STOKE_DOCKER__IMAGE": IMAGE}
    done = subprocess.run(command, env=measured, capture_output=True)
    if done.returncode:
        raise SystemExit(f"cannot measure:\n{done.stderr.decode()}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _clean(scope: str) -> None:
    listed = docker("volume", "ls", "--quiet", "--filter", "label=stoke.managed=true").split()
    ours = (f"stoke-{scope}-", f"stoke-workspace.{scope}-")
    for volume in listed:
        if volume.startswith(ours):
            docker("volume", "rm", "--force", volume)


def _times(what: str, apart: float, shared: float, limit: float) -> None:
    ratio = apart / shared
    print(
        f"ten workspaces, {what}: {shared:.2f} s shared, {apart:.2f} s apart = {ratio:.1f} x less "
        f"(>= {limit}) {'ok' if ratio >= limit else 'NOT REACHED'}",
        flush=True,
    )


def _fewer(what: str, apart: int, shared: int) -> None:
    fewer = 100 * (1 - shared / apart)
    print(
        f"ten workspaces, {what}: {shared / 1e6:.1f} MB shared, {apart / 1e6:.1f} MB apart = "
        f"{fewer:.1f} % fewer (>= 85 %) {'ok' if fewer >= 85 else 'NOT REACHED'}",
        flush=True,
    )
