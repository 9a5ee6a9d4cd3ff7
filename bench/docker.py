"""A Docker engine for benchmarks: an image, a scope of its own, and the plain `docker` to compare."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network

from bench.measure import STOKE, own_home

IMAGE = os.environ.get("STOKE_TEST_IMAGE", "stoke-test/full:latest")
RUN = [STOKE, "run", "-b", "docker", "--image", IMAGE]
BAKED = "stoke-bench/baked:latest"


@contextmanager
def docker_home() -> Iterator[tuple[dict[str, str], str]]:
    """Give (environment, scope) for `RUN`; the scope's volumes are removed at the end."""
    if subprocess.run(["docker", "version"], capture_output=True).returncode != 0:
        sys.exit("this benchmark needs a Docker engine")
    scope = f"bench-{secrets.token_hex(4)}"
    with own_home() as env:
        try:
            yield env, scope
        finally:
            for kind in ("python", "system"):
                subprocess.run(
                    ["docker", "volume", "rm", "--force", f"stoke-{scope}-{kind}"],
                    capture_output=True,
                )


def bridge_address() -> str:
    """Return the address at which containers reach servers on this machine."""
    subnet = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]
    return str(subnet.get("Gateway") or ip_network(subnet["Subnet"])[1])


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"docker {' '.join(words)}: {done.stderr}")
    return done.stdout


def trust() -> list[str]:
    """Return options that make plain containers trust this machine's own authorities."""
    bundle = os.environ.get("SSL_CERT_FILE")
    return ["-v", f"{bundle}:/ca.pem:ro", "-e", "SSL_CERT_FILE=/ca.pem"] if bundle else []


def bake(packages: tuple[str, ...]) -> None:
    """Build BAKED: the image with the packages installed and their bytecode compiled."""
    if any(BAKED in (image.get("RepoTags") or []) for image in _images()):
        return
    name = f"stoke-bake-{secrets.token_hex(4)}"
    script = "uv venv /opt/env && uv pip install --compile-bytecode --python /opt/env/bin/python "
    docker("run", "--name", name, *trust(), IMAGE, "sh", "-c", script + " ".join(packages))
    docker("commit", name, BAKED)
    docker("rm", "--volumes", name)


def _images() -> list[dict[str, list[str]]]:
    return [
        {"RepoTags": [f"{row['Repository']}:{row['Tag']}"]}
        for row in map(json.loads, docker("images", "--format", "{{json .}}").splitlines())
    ]
