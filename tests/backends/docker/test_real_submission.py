"""Submission to a real Docker engine, and its refusals and interruptions."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

import backends.docker.backend as backend_module
from backends.docker import DockerBackend
from backends.docker.engine import AnswerError
from backends.docker.names import volume_labels, volume_name
from stoke.backend.api import Volume
from stoke.backend.pool import Backends
from stoke.config.model import Config, DockerConfig
from stoke.errors import EngineError, RequestError
from stoke.history.job import JobState
from tests.backends.docker.deliveries import delivery, ended, output, unreported
from tests.backends.docker.real import (
    CLEAR,
    WAITS,
    in_another_program,
    quiet,
    start,
)
from tests.hints import is_hint
from tests.lab import Lab

pytestmark = pytest.mark.docker


def test_a_job_and_its_state_in_the_engine(
    backend: DockerBackend, docker_engine: Any, docker_scope: str
) -> None:
    phases: list[tuple[str, bool]] = []
    made = delivery("import os; print(os.getuid(), os.getpid() != 1)", scope=docker_scope)
    backend.submit(made, lambda name, start, seconds: phases.append((name, seconds is None)))
    state = ended(backend, made.job_id)
    assert (state.status, state.exit_code, state.reason) == ("exited", 0, None)
    assert state.started_at and state.finished_at and state.finished_at >= state.started_at
    assert output(backend, made.job_id) == b"0 True\n"
    assert phases == [("start", True), ("start", False)]

    record = docker_engine.inspect_container(made.job_id)
    host = record["HostConfig"]
    assert host["CapDrop"] == ["ALL"] and host["SecurityOpt"] == ["no-new-privileges"]
    assert host["LogConfig"]["Type"] == "local"
    (volume,) = docker_engine.volumes(filters={"name": volume_name(docker_scope, "python")})[
        "Volumes"
    ]
    assert volume["Labels"] == volume_labels(docker_scope, "python")


def test_any_image_with_python_runs_jobs(
    backend: DockerBackend, bare_image: str, docker_scope: str
) -> None:
    made = start(backend, "print('bare')", docker_scope, image=bare_image)
    assert ended(backend, made.job_id).exit_code == 0
    assert output(backend, made.job_id) == b"bare\n"


def test_the_same_submit_again_is_the_same_job(
    backend: DockerBackend, docker_engine: Any, docker_scope: str
) -> None:
    made = start(backend, WAITS, docker_scope)
    before = docker_engine.inspect_container(made.job_id)
    backend.submit(made, unreported)
    after = docker_engine.inspect_container(made.job_id)
    assert (after["Id"], after["State"]["Pid"]) == (before["Id"], before["State"]["Pid"])


def test_a_submit_that_stopped_halfway_is_completed_by_the_next(
    backend: DockerBackend, docker_scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = delivery("print('whole')", scope=docker_scope)
    with monkeypatch.context() as patched:
        patched.setattr(backend, "_deliver", lambda *_: None)
        patched.setattr(backend, "_start", lambda *_: None)
        backend.submit(made, unreported)
    assert backend.inspect(made.job_id).status == "created"
    backend.submit(made, unreported)
    assert ended(backend, made.job_id).exit_code == 0
    assert output(backend, made.job_id) == b"whole\n"


@pytest.mark.parametrize("moment", ["put_archive", "start"])
def test_killed_between_create_and_start_only_a_labelled_container_stays(
    backend: DockerBackend, docker_engine: Any, docker_scope: str, docker_image: str, moment: str
) -> None:
    code = (
        "import docker\n"
        "scope, image, moment = sys.argv[1:]\n"
        "made = delivery('pass', scope=scope, image=image)\n"
        "print(made.job_id, flush=True)\n"
        "setattr(docker.APIClient, moment, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))\n"
        "backend.submit(made, unreported)\n"
    )
    done = in_another_program(code, docker_scope, docker_image, moment)
    assert done.returncode == -9, done.stderr
    job_id = done.stdout.strip()
    assert backend.inspect(job_id).status == "created"
    assert docker_engine.inspect_container(job_id)["Config"]["Labels"]["stoke.managed"] == "true"
    assert job_id in [job.job_id for job in backend.jobs()]
    backend.remove(job_id)
    assert backend.inspect(job_id).status == "absent"


@pytest.mark.parametrize("error", [EngineError("the disk is full"), KeyboardInterrupt()])
def test_a_submit_that_fails_leaves_no_container(
    backend: DockerBackend,
    docker_scope: str,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    def fails(*_: object) -> None:
        raise error

    made = delivery("pass", scope=docker_scope)
    monkeypatch.setattr(backend, "_deliver", fails)
    with pytest.raises(type(error)):
        backend.submit(made, unreported)
    assert backend.inspect(made.job_id).status == "absent"


def test_a_start_whose_answer_was_lost_is_a_start(
    backend: DockerBackend, docker_scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = backend._start

    def loses_the_answer(job_id: str, image: str) -> None:
        whole(job_id, image)
        raise EngineError("lost the Docker engine")

    made = delivery("print('ran')", scope=docker_scope)
    monkeypatch.setattr(backend, "_start", loses_the_answer)
    backend.submit(made, unreported)
    assert ended(backend, made.job_id).exit_code == 0


def test_a_container_that_only_has_the_name_is_left_alone(
    backend: DockerBackend, docker_engine: Any, docker_image: str, docker_scope: str
) -> None:
    made = delivery("pass", scope=docker_scope)
    other = docker_engine.create_container(docker_image, ["true"], name=made.job_id)["Id"]
    try:
        with pytest.raises(EngineError, match="is already called"):
            backend.submit(made, unreported)
        assert backend.inspect(made.job_id).status == "absent"
        backend.stop(made.job_id, 0)
        backend.remove(made.job_id)
        assert docker_engine.inspect_container(other)["State"]["Status"] == "created"
    finally:
        docker_engine.remove_container(other, force=True)


def test_a_volume_that_only_has_the_name_is_refused(
    backend: DockerBackend, docker_engine: Any, docker_scope: str
) -> None:
    name = volume_name(docker_scope, "python")
    docker_engine.create_volume(name)
    try:
        made = delivery("pass", scope=docker_scope)
        with pytest.raises(EngineError, match="was not created by stoke"):
            backend.submit(made, unreported)
        assert backend.inspect(made.job_id).status == "absent"
        assert [volume for volume in backend.volumes() if volume.name == name] == []
        with pytest.raises(EngineError, match="was not created by stoke"):
            backend.housekeep(Volume("docker", docker_scope, "python", name), CLEAR, quiet)
        assert docker_engine.inspect_volume(name)
    finally:
        docker_engine.remove_volume(name)


def test_an_image_that_cannot_be_had(backend: DockerBackend, docker_scope: str) -> None:
    made = delivery("pass", scope=docker_scope, image="stoke-test/there-is-none:1")
    phases: list[str] = []
    with pytest.raises(EngineError, match="stoke-test/there-is-none:1") as caught:
        backend.submit(made, lambda name, start, seconds: phases.append(name))
    hint = caught.value.hint or ""
    assert "stoke setup image" in hint and "--image" in hint
    assert phases == ["pull"]
    assert backend.inspect(made.job_id).status == "absent"


def test_an_image_without_python(
    backend: DockerBackend, docker_engine: Any, docker_scope: str
) -> None:
    image = f"stoke-test/empty:{docker_scope}"
    empty = bytes(10240)  # a tar with nothing in it
    docker_engine.import_image_from_data(empty, repository="stoke-test/empty", tag=docker_scope)
    try:
        made = delivery("pass", scope=docker_scope, image=image)
        with pytest.raises(EngineError, match="has no python3") as caught:
            backend.submit(made, unreported)
        assert image in caught.value.what and "--image" in (caught.value.hint or "")
        assert backend.inspect(made.job_id).status == "absent"
    finally:
        docker_engine.remove_image(image)


def archive_with(*entries: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry in entries:
            tar.addfile(entry)
    return out.getvalue()


@pytest.mark.parametrize("place", ["stoke", "cache"])
def test_an_image_with_a_file_where_a_job_needs_a_folder(
    backend: DockerBackend, docker_engine: Any, docker_image: str, docker_scope: str, place: str
) -> None:
    image = f"stoke-test/file:{docker_scope}"
    data = archive_with(tarfile.TarInfo(place))
    docker_engine.import_image_from_data(data, repository="stoke-test/file", tag=docker_scope)
    try:
        made = delivery("pass", scope=docker_scope, image=image)
        with pytest.raises(EngineError, match=f"has a file at /{place},") as caught:
            backend.submit(made, unreported)
        assert image in caught.value.what
        is_hint(caught.value.hint, "name an image without it: --image IMAGE")
        assert backend.inspect(made.job_id).status == "absent"
        another = delivery("pass", scope=docker_scope, image=docker_image)
        backend.submit(another, unreported)
        assert ended(backend, another.job_id).exit_code == 0
    finally:
        docker_engine.remove_image(image)


@pytest.fixture
def image_without_a_python(docker_engine: Any, bare_image: str, docker_scope: str) -> Iterator[str]:
    """The first python3 on its PATH is a program that does nothing and succeeds."""
    folder = tarfile.TarInfo("first")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
    program = tarfile.TarInfo("first/python3")
    program.type, program.linkname = tarfile.SYMTYPE, "/bin/true"
    made = docker_engine.create_container(bare_image, ["true"], name=f"{docker_scope}-made")
    try:
        docker_engine.put_archive(made["Id"], "/", archive_with(folder, program))
        docker_engine.commit(made["Id"], docker_scope, changes=["ENV PATH=/first:/usr/bin"])
        yield f"{docker_scope}:latest"
        docker_engine.remove_image(f"{docker_scope}:latest", force=True)
    finally:
        docker_engine.remove_container(made["Id"])


def test_an_image_whose_python3_is_another_program_is_no_success(
    image_without_a_python: str, docker_scope: str
) -> None:
    config = Config(docker=DockerConfig(image=image_without_a_python))
    backends = Backends(config)
    job = Lab(backends.get("docker"), config, docker_scope, "").run("print('ran')").job
    backends.close()
    assert (job.state, job.exit_code) == (JobState.FAILED, 125)
    assert "the code did not run" in (job.reason or "")


# Docker 20.10 and Docker 29.
@pytest.mark.parametrize("begins", ["Range of CPUs is from", "range of CPUs is from"])
def test_more_cpus_than_there_are_in_the_words_of_each_engine(begins: str) -> None:
    words = f"{begins} 0.01 to 2.00, as there are only 2 CPUs available"
    with pytest.raises(RequestError) as caught:
        backend_module._refuse_limits(AnswerError(words, None, 400, words))
    assert caught.value.field == "cpu"


def test_more_cpus_than_there_are(backend: DockerBackend, docker_scope: str) -> None:
    with pytest.raises(RequestError, match="cpu") as caught:
        start(backend, "pass", docker_scope, cpu=4096)
    assert caught.value.field == "cpu"


def test_without_the_log_driver_the_fallback_is_used(
    backend: DockerBackend,
    docker_engine: Any,
    docker_scope: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend_module, "LOG_DRIVER", "stoke-test-none")
    made = start(backend, "print('plain')", docker_scope)
    assert ended(backend, made.job_id).exit_code == 0
    assert output(backend, made.job_id) == b"plain\n"
    driver = docker_engine.inspect_container(made.job_id)["HostConfig"]["LogConfig"]["Type"]
    assert driver == "json-file"


def test_a_gpu_that_the_engine_cannot_give_is_refused_with_what_helps(
    backend: DockerBackend, docker_engine: Any, docker_scope: str
) -> None:
    if "nvidia" in docker_engine.info()["Runtimes"]:
        pytest.skip("this engine gives GPUs")
    with pytest.raises(EngineError, match="device driver") as refused:
        backend.submit(delivery("pass", scope=docker_scope, gpu=1), unreported)
    assert "or leave out --gpu" in str(refused.value.hint)


def test_labels_of_a_request_are_on_its_container(
    backend: DockerBackend, docker_engine: Any, docker_scope: str
) -> None:
    made = delivery("pass", scope=docker_scope, labels={"team": "vision"})
    backend.submit(made, unreported)
    labels = docker_engine.inspect_container(made.job_id)["Config"]["Labels"]
    assert labels["team"] == "vision" and labels["stoke.managed"] == "true"
    ended(backend, made.job_id)
