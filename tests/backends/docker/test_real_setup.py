"""The doctor and image builds on a real Docker engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.docker import DockerBackend
from backends.docker.check import check_gpus
from stoke.config.model import Config, DockerConfig
from stoke.errors import EngineError
from tests.backends.docker.deliveries import ended, output
from tests.backends.docker.real import (
    quiet,
    start,
)

pytestmark = pytest.mark.docker


def test_doctor_reports_a_working_engine(backend: DockerBackend, docker_image: str) -> None:
    results = {result.what: result for result in backend.check()}
    assert results["engine"].works and "Docker" in results["engine"].detail
    assert results["image"].works and docker_image in results["image"].detail
    assert results["log driver"].works


def test_doctor_claims_no_gpus_that_the_engine_does_not_report(
    backend: DockerBackend, docker_engine: Any
) -> None:
    (found,) = [result for result in backend.check() if result.what == "gpus"]
    reported = docker_engine.info()
    assert found == check_gpus(reported)
    runtimes: dict[str, Any] = {name: {} for name in reported["Runtimes"] if name != "nvidia"}
    without = check_gpus({**reported, "Runtimes": runtimes})
    assert (without.works, without.detail.split(":")[0]) == (None, "unknown")
    assert check_gpus({**reported, "Runtimes": {**runtimes, "nvidia": {}}}).works is True


def test_the_doctor_names_an_absent_image(docker_engine: Any) -> None:
    backend = DockerBackend(Config(docker=DockerConfig(image="stoke-test/there-is-none:1")))
    (finding,) = [finding for finding in backend.check() if finding.what == "image"]
    assert "there-is-none:1 is missing; the first job pulls it" in finding.detail
    assert "stoke setup image" in finding.detail


@pytest.mark.network
def test_our_image_is_built_and_runs_jobs(
    backend: DockerBackend, docker_engine: Any, bare_image: str, docker_scope: str
) -> None:
    tag = f"stoke-test/built:{docker_scope}"
    said: list[str] = []
    try:
        assert backend.setup_image(bare_image, tag, said.append) == tag
        assert any(line.startswith("Step 1/") for line in said)
        labels = docker_engine.inspect_image(tag)["Config"]["Labels"]
        code = (
            "import os, subprocess\n"
            "print(os.path.exists('/nix'), subprocess.check_output(['uv', '--version']).decode())\n"
            "subprocess.run(['nix', '--version'], check=True)"
        )
        made = start(backend, code, docker_scope, image=tag)
        assert ended(backend, made.job_id).exit_code == 0
        assert output(backend, made.job_id).startswith(f"False uv {labels['stoke.uv']}".encode())
        backend.remove(made.job_id)
    finally:
        docker_engine.remove_image(tag, force=True)


def test_a_build_that_fails_names_its_step(backend: DockerBackend, docker_engine: Any) -> None:
    docker_engine.import_image_from_data(bytes(10240), repository="stoke-test/empty", tag="base")
    try:
        with pytest.raises(EngineError, match="RUN apt-get update") as caught:
            backend.setup_image("stoke-test/empty:base", "stoke-test/never:1", quiet)
        assert "stoke-test/empty:base" in caught.value.what
        assert "--base" in (caught.value.hint or "")
    finally:
        docker_engine.remove_image("stoke-test/empty:base")


def test_labels_hold_no_user_text(
    backend: DockerBackend, docker_engine: Any, docker_scope: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    made = start(
        backend,
        "print('MARK')",
        docker_scope,
        args=["MARK"],
        env={"VALUE": "MARK"},
        secrets={"TOKEN": f"file:{secret}"},
    )
    record = json.dumps(docker_engine.inspect_container(made.job_id))
    assert "MARK" not in record and "hunter2" not in record
