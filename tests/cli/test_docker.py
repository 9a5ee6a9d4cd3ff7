"""The commands on a real Docker engine: what differs there from jobs on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Stoke, only_job

pytestmark = pytest.mark.docker


@pytest.fixture
def place(docker_image: str, docker_scope: str) -> list[str]:
    return ["-b", "docker", "--image", docker_image, "--scope", docker_scope]


def test_streams_exit_code_and_document(stoke: Stoke, place: list[str]) -> None:
    code = "import os, sys; os.write(1, b'\\xff out'); os.write(2, b'err'); sys.exit(3)"
    done = stoke("run", "-q", *place, "--memory", "256m", "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"\xff out", b"err")
    document = json.loads(stoke("show", "--json", only_job().id).stdout)
    assert (document["backend"], document["spec"]["memory"]) == ("docker", 256 * 1024**2)


def test_a_log_outlives_its_container(stoke: Stoke, place: list[str], docker_engine: Any) -> None:
    assert stoke("run", "-q", *place, "-c", "print('kept')").returncode == 0
    job_id = only_job().id
    names = [name for one in docker_engine.containers(all=True) for name in one["Names"]]
    assert f"/{job_id}" not in names
    assert stoke("logs", job_id).stdout == b"kept\n"


def test_a_job_of_somebody_elses_history_is_found_again(
    stoke: Stoke, place: list[str], tmp_path: Path
) -> None:
    code = "import time\nprint('began', flush=True)\nwhile True: time.sleep(0.05)"
    elsewhere = {"STOKE_STATE_DIR": f"{tmp_path}/elsewhere"}
    done = stoke("run", "--detach", *place, "-c", code, env=elsewhere)
    job_id = done.stdout.decode().strip()
    assert stoke("show", job_id).returncode == 1
    listed = stoke("jobs", "--all", env={"STOKE_BACKEND": "docker"}).stdout.decode()
    assert job_id in listed
    assert stoke("stop", "--now", job_id).returncode == 0
    assert stoke("logs", job_id).stdout == b"began\n"


def test_caches_of_a_scope_are_listed_and_cleared(stoke: Stoke, place: list[str]) -> None:
    fill = "open('/cache/ballast', 'wb').write(b'x' * 100_000)"
    assert stoke("run", "-q", *place, "-c", fill).returncode == 0
    scope = place[-1]

    def volume() -> dict[str, Any]:
        listed = json.loads(stoke("cache", "ls", "-b", "docker", "--measure", "--json").stdout)
        (found,) = [volume for volume in listed if volume["scope"] == scope]
        return dict(found)

    before = volume()
    assert (before["kind"], before["in_use_by"]) == ("python", [])
    assert before["bytes"] >= 100_000
    done = stoke("cache", "clear", "-b", "docker", "--scope", scope, "--yes")
    assert done.returncode == 0, done.stderr
    assert volume()["bytes"] < 50_000
