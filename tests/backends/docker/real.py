"""Helpers of the tests with a real Docker engine."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from backends.docker import DockerBackend
from stoke.backend.api import Delivery, Volume
from tests.backends.docker.deliveries import delivery, output, unreported, until

WAITS = "import time; print('up', flush=True); time.sleep(600)"
DEAF = (
    "import signal; signal.signal(signal.SIGTERM, lambda *_: print('heard', flush=True));" + WAITS
)
CLEAR = {"kind": "python", "do": "clear"}
DEAF_FOREVER = DEAF.replace("time.sleep(600)", "\nwhile True: time.sleep(1)")


def start(backend: DockerBackend, code: str, scope: str, **fields: Any) -> Delivery:
    made = delivery(code, scope=scope, **fields)
    backend.submit(made, unreported)
    return made


def quiet(line: str) -> None:
    """Discard progress."""


def until_output(backend: DockerBackend, job_id: str, text: bytes) -> None:
    until(lambda: text in output(backend, job_id), f"{text!r} from {job_id}")


def python_volume(backend: DockerBackend, scope: str) -> Volume:
    (volume,) = [volume for volume in backend.volumes() if volume.scope == scope]
    return volume


def in_another_program(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` with `backend` and what this module imports; it may not come to its end."""
    head = (
        "import os, signal, sys\n"
        "from backends.docker import DockerBackend\n"
        "from stoke.config.model import Config\n"
        "from tests.backends.docker.deliveries import delivery, unreported\n"
        "backend = DockerBackend(Config())\n"
    )
    return subprocess.run(
        [sys.executable, "-c", head + code, *arguments], capture_output=True, text=True, timeout=60
    )
