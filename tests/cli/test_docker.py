"""The commands on a real Docker engine: what differs there from jobs on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from backends.docker.container import archive_of
from tests.cli.conftest import Stoke, only_job
from tests.lab import until
from tests.nix_cache import NixCache, make_files
from tests.package_index import PackageIndex

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
    # The command does not wait for the engine to remove it.
    until(lambda: not docker_engine.containers(all=True, filters={"name": [job_id]}), "the removal")
    assert stoke("logs", job_id).stdout == b"kept\n"


def test_a_job_of_another_history_is_adopted(
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


def gateway(docker_engine: Any) -> str:
    """Where containers reach servers of the test."""
    subnet = docker_engine.inspect_network("bridge")["IPAM"]["Config"][0]
    return subnet.get("Gateway") or str(ip_network(subnet["Subnet"])[1])


@pytest.fixture
def nix(docker_engine: Any, docker_image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package collection of our own, which jobs take."""
    served = NixCache(gateway(docker_engine), make_files(docker_engine, docker_image))
    monkeypatch.setenv("STOKE_NIX", json.dumps(served.settings()))
    monkeypatch.setenv("STOKE_BACKEND", "docker")
    monkeypatch.setenv("STOKE_DOCKER__IMAGE", docker_image)
    yield
    served.stop()


@pytest.mark.usefixtures("nix")
def test_system_packages_are_warmed_shown_and_pruned(
    stoke: Stoke, place: list[str], bare_image: str
) -> None:
    scope = ["--scope", place[-1]]
    warmed = stoke("cache", "warm", "-s", "tree\nheavy", "-s", "leaf", *scope)
    assert warmed.returncode == 0, warmed.stderr
    job = json.loads(
        stoke("run", "-q", "--json", *scope, "-s", "leaf,tree,heavy", "-c", "1").stdout
    )
    assert [one["hit"] for one in job["phases"] if one["name"] == "system"] == [True]
    assert stoke("run", "-q", *scope, "-s", "bush", "-c", "1").returncode == 0

    last, first = json.loads(stoke("cache", "show", place[-1], "--kind", "system", "--json").stdout)
    assert (last["packages"], first["packages"]) == (["bush"], ["heavy", "leaf", "tree"])
    assert first["would_free"] > 40_000_000
    table = stoke("cache", "show", place[-1], "--kind", "system")
    assert table.stdout.startswith(b"SET ") and b" are unused" in table.stderr

    dry = stoke("cache", "prune", *scope, "--unused", "0s", "--dry-run")
    assert dry.returncode == 0 and b"2 sets and 5 store paths to drop" in dry.stderr
    without = stoke(
        "cache", "prune", *scope, "--unused", "0s", "--yes", "-q",
        env={"STOKE_DOCKER__IMAGE": bare_image},
    )  # fmt: skip
    assert without.returncode == 125
    assert b"no Nix" in without.stderr and b"stoke setup image" in without.stderr
    pruned = stoke("cache", "prune", *scope, "--unused", "0s", "--yes", "--kind", "system")
    assert pruned.returncode == 0 and re.search(rb"freed 4[5-7]\.\d MiB", pruned.stderr)
    # What the most used request names is warmed again, its system packages too.
    assert stoke("cache", "warm", "--top", "1", *scope).returncode == 0
    (again,) = json.loads(stoke("cache", "show", place[-1], "--kind", "system", "--json").stdout)
    assert again["packages"] == ["heavy", "leaf", "tree"]


@pytest.fixture
def image_with_variables(docker_engine: Any, docker_image: str, docker_scope: str) -> Iterator[str]:
    """An image whose owner keeps a module in /app and names that folder in PYTHONPATH."""
    made = docker_engine.create_container(docker_image, ["true"], name=f"{docker_scope}-made")
    try:
        docker_engine.put_archive(made["Id"], "/", archive_of({"app/ours.py": b"name = 'ours'\n"}))
        committed = docker_engine.commit(
            made["Id"], docker_scope, changes=["ENV PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1"]
        )
        yield f"{docker_scope}:latest"
        docker_engine.remove_image(committed["Id"], force=True)
    finally:
        docker_engine.remove_container(made["Id"])


def test_an_images_own_variables_count_with_and_without_packages(
    stoke: Stoke, image_with_variables: str, docker_scope: str, docker_engine: Any
) -> None:
    code = "import os, sys, ours; print(ours.name, os.environ['PYTHONPATH'], '/app' in sys.path)"
    place = ["-b", "docker", "--image", image_with_variables, "--scope", docker_scope]
    index = PackageIndex(gateway(docker_engine))
    index.add("alpha", "1.0")
    for packages in ([], ["--index", index.url, "-w", "alpha"]):
        done = stoke("run", "-q", *place, *packages, "-c", code)
        assert (done.stdout, done.stderr) == (b"ours /app True\n", b""), packages
    index.stop()
