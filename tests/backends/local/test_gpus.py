"""GPUs are handed out to one job at a time. Their list is given, because few machines have any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.local import LocalBackend
from backends.local.gpus import list_gpus, take_gpus
from stoke.backend.api import EngineStatus
from stoke.config.model import Config, LocalConfig
from stoke.errors import EngineError
from tests.backends.argo.deliveries import delivery
from tests.hints import refused
from tests.lab import until

TWO = LocalConfig(gpus=("0", "GPU-8932f937"))
SHOWS = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)"


@pytest.fixture
def backend(own_home: Path) -> Iterator[LocalBackend]:
    backend = LocalBackend(Config(local=TWO))
    yield backend
    backend.close()


def submitted(backend: LocalBackend, code: str, gpu: int | None) -> str:
    job = delivery(code, use_cache=False, gpu=gpu)
    backend.submit(job, lambda *_: None)
    return job.job_id


def output(backend: LocalBackend, job_id: str) -> bytes:
    frames = [frame for batch in backend.logs(job_id, 0, follow=False) for frame in batch]
    return b"".join(frame.data for frame in frames if frame.stream == 1)


def wait_for(backend: LocalBackend, job_id: str) -> None:
    until(lambda: backend.inspect(job_id).status == EngineStatus.EXITED, "the end")


def test_jobs_at_the_same_time_have_different_gpus(backend: LocalBackend) -> None:
    jobs = [submitted(backend, f"{SHOWS}; time.sleep(600)", 1) for _ in range(2)]
    until(lambda: all(output(backend, job) for job in jobs), "the first lines")
    assert {output(backend, job) for job in jobs} == {b"0\n", b"GPU-8932f937\n"}
    template = "wait until one ends: stoke jobs; or share one: --env CUDA_VISIBLE_DEVICES=0"
    said = refused(lambda: submitted(backend, "pass", 1), template)
    name, _, value = said.partition("--env ")[2].split()[0].partition("=")
    shared = delivery(SHOWS, use_cache=False, env={name: value})
    backend.submit(shared, lambda *_: None)
    wait_for(backend, shared.job_id)
    assert output(backend, shared.job_id) == b"0\n"
    # A job that asks for none is not in the way, and is not kept from any.
    wait_for(backend, submitted(backend, "pass", None))
    for job in jobs:
        backend.stop(job, 0)
        wait_for(backend, job)
    both = submitted(backend, SHOWS, 2)
    wait_for(backend, both)
    assert output(backend, both) == b"0,GPU-8932f937\n"


def test_a_gpu_is_free_again_when_its_supervisor_was_killed(backend: LocalBackend) -> None:
    job = submitted(backend, f"{SHOWS}; time.sleep(600)", 2)
    until(lambda: output(backend, job) != b"", "the first line")
    os.kill(backend._supervisors[-1], 9)
    until(lambda: backend.inspect(job).status == EngineStatus.ABSENT, "the loss")
    wait_for(backend, submitted(backend, SHOWS, 2))
    backend.stop(job, 0)


def test_more_than_there_are_is_refused_before_anything_is_created(backend: LocalBackend) -> None:
    template = (
        "name those that jobs may have: [local] gpus in config.toml; or run elsewhere: -b argo"
    )
    refused(lambda: submitted(backend, "pass", 3), template)
    assert backend.jobs() == []
    more = LocalBackend(Config(local=LocalConfig(gpus=("0", "1", "2"))))
    wait_for(more, submitted(more, "pass", 3))
    more.close()


def test_a_refused_job_keeps_no_gpu(own_home: Path) -> None:
    for _ in range(3):
        with pytest.raises(EngineError):
            held = take_gpus(1, TWO)
            try:
                take_gpus(2, TWO)
            finally:
                held.close()
    take_gpus(2, TWO).close()


def test_the_users_own_variable_names_the_gpus() -> None:
    assert list_gpus(LocalConfig(), {"CUDA_VISIBLE_DEVICES": "1, 3"}) == ("1", "3")
    assert list_gpus(LocalConfig(), {"CUDA_VISIBLE_DEVICES": "-1"}) == ()
    assert list_gpus(LocalConfig(), {"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert list_gpus(TWO, {"CUDA_VISIBLE_DEVICES": "1"}) == TWO.gpus


@pytest.mark.parametrize(
    ("script", "gpus"),
    [
        ("echo GPU-1; echo GPU-2", ("GPU-1", "GPU-2")),
        ("echo broken driver >&2; exit 9", ()),
        ("", ()),
    ],
)
def test_nvidia_smi_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, gpus: tuple[str, ...]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert list_gpus(LocalConfig(), {}) == gpus
