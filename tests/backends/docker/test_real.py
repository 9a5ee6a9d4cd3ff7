"""On a real engine: what only Docker can do, and what can go wrong between it and us."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backends.docker.backend as backend_module
from backends.common.names import KIND, SCOPE
from backends.docker import DockerBackend
from backends.docker.engine import AnswerError
from backends.docker.names import housekeeping_labels, volume_labels, volume_name
from stoke.backend.api import Delivery, Volume
from stoke.backend.pool import Backends
from stoke.config.model import Config, DockerConfig
from stoke.errors import EngineError, RequestError
from stoke.history.job import JobState, new_job_id
from stoke.logs.follower import Follower
from stoke.logs.spool import STDERR, STDOUT
from stoke.remote.events import Event
from tests.backends.docker.deliveries import NONCE, delivery, ended, output, unreported, until
from tests.lab import Lab
from tests.spools import lines_in

pytestmark = pytest.mark.docker

WAITS = "import time; print('up', flush=True); time.sleep(600)"
DEAF = (
    "import signal; signal.signal(signal.SIGTERM, lambda *_: print('heard', flush=True));" + WAITS
)
CLEAR = {"kind": "python", "do": "clear"}
DEAF_FOREVER = DEAF.replace("time.sleep(600)", "\nwhile True: time.sleep(1)")


@pytest.fixture
def backend(docker_image: str) -> Iterator[DockerBackend]:
    backend = DockerBackend(Config(docker=DockerConfig(image=docker_image)))
    yield backend
    backend.close()


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


# ---------------------------------------------------------------------------- submitting


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
        patched.setattr(backend, "_deliver_and_start", lambda *_: None)
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
    monkeypatch.setattr(backend, "_deliver_and_start", fails)
    with pytest.raises(type(error)):
        backend.submit(made, unreported)
    assert backend.inspect(made.job_id).status == "absent"


def test_a_start_whose_answer_was_lost_is_a_start(
    backend: DockerBackend, docker_scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = backend._deliver_and_start

    def loses_the_answer(made: Delivery, image: str) -> None:
        whole(made, image)
        raise EngineError("lost the Docker engine")

    made = delivery("print('ran')", scope=docker_scope)
    monkeypatch.setattr(backend, "_deliver_and_start", loses_the_answer)
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
    backend: DockerBackend, docker_engine: Any, docker_scope: str, place: str
) -> None:
    image = f"stoke-test/file:{docker_scope}"
    data = archive_with(tarfile.TarInfo(place))
    docker_engine.import_image_from_data(data, repository="stoke-test/file", tag=docker_scope)
    try:
        made = delivery("pass", scope=docker_scope, image=image)
        with pytest.raises(EngineError, match=f"has a file at /{place},") as caught:
            backend.submit(made, unreported)
        assert image in caught.value.what and "--image" in (caught.value.hint or "")
        assert backend.inspect(made.job_id).status == "absent"
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


# ---------------------------------------------------------------------------- logs


def test_bytes_arrive_exactly_through_the_local_driver(
    backend: DockerBackend, docker_scope: str
) -> None:
    # Every byte; lines at and around the engine's 16 KiB; characters across that edge; no end.
    code = (
        "import os\n"
        "edge = 16 * 1024\n"
        "out = bytes(range(256)) * 9 + b'\\r\\n\\0\\n'\n"
        "for size in (edge - 1, edge, edge + 1, 5 * edge): out += b'x' * size + b'\\n'\n"
        "out += b'a' * (edge - 1) + '\\N{SNAKE}'.encode() + b'\\n\\xff\\xfe no end'\n"
        "at = 0\n"
        "while at < len(out): at += os.write(1, out[at:])\n"
    )
    made = start(backend, code, docker_scope)
    ended(backend, made.job_id)
    names: dict[str, Any] = {}
    exec(code.replace("os.write(1, out[at:])", "len(out)"), names)
    assert output(backend, made.job_id) == names["out"]


def test_reading_continues_from_a_time(backend: DockerBackend, docker_scope: str) -> None:
    code = "import time\nfor n in range(50): print(n, flush=True); time.sleep(0.001)"
    made = start(backend, code, docker_scope)
    ended(backend, made.job_id)
    everything = [f for batch in backend.logs(made.job_id, 0, False) for f in batch]
    middle = everything[25].time
    rest = [f for batch in backend.logs(made.job_id, middle, False) for f in batch]
    assert rest == [frame for frame in everything if frame.time >= middle]
    past = [f for batch in backend.logs(made.job_id, middle + 1, False) for f in batch]
    assert past == [frame for frame in everything if frame.time > middle]


def test_c17_a_restarted_container_continues_the_same_log(
    backend: DockerBackend, docker_engine: Any, docker_scope: str, tmp_path: Path
) -> None:
    """Another program restarts it: stoke starts a job once, and it cannot run again."""
    code = "import sys, time; print('once', flush=True); time.sleep(1); sys.exit(3)"
    made = start(backend, code, docker_scope)
    policy = {"Name": "on-failure", "MaximumRetryCount": 1}
    docker_engine.update_container(made.job_id, restart_policy=policy)
    events: list[Event] = []
    follower = Follower(
        backend,
        made.job_id,
        NONCE,
        tmp_path,
        events.append,
        lambda: None,
        lambda error: None,
    )
    last = follower.run()
    assert last is not None and last.status == "exited"
    lines = lines_in(tmp_path)
    assert [line.text for line in lines if line.stream == STDOUT] == [b"once\n"]
    again = b"".join(line.text for line in lines if line.stream == STDERR)
    assert again.count(b"Traceback") == 1 and b"No such file" in again
    assert [event["exit_code"] for event in events if event["event"] == "end"] == [3]
    assert (follower.spool.gaps, last.exit_code) == (0, 1)


def test_closing_a_followed_log_unblocks_its_reader(
    backend: DockerBackend, docker_scope: str
) -> None:
    made = start(backend, WAITS, docker_scope)
    log = backend.logs(made.job_id, 0, follow=True)
    heard = threading.Event()

    def follow() -> None:
        for batch in log:
            if any(b"up" in frame.data for frame in batch):
                heard.set()

    reader = threading.Thread(target=follow)
    reader.start()
    assert heard.wait(60)
    log.close()
    reader.join(20)
    assert not reader.is_alive()


def test_removal_ends_a_followed_log_and_deletes_it(
    backend: DockerBackend, docker_scope: str
) -> None:
    made = start(backend, WAITS, docker_scope)
    until_output(backend, made.job_id, b"up\n")
    log = backend.logs(made.job_id, 0, follow=True)
    backend.remove(made.job_id)
    for _ in log:
        pass
    with pytest.raises(EngineError, match="no such container"):
        backend.logs(made.job_id, 0, follow=True)


# ---------------------------------------------------------------------------- ending


@pytest.mark.parametrize(
    ("code", "grace", "exit_code", "heard"),
    [(WAITS, 600, 143, 0), (DEAF_FOREVER, 1, 137, 1), (DEAF_FOREVER, 0, 137, 0)],
    ids=["polite", "deaf", "at once"],
)
def test_a_stop_continues_after_the_requesting_process_has_ended(
    backend: DockerBackend,
    docker_scope: str,
    code: str,
    grace: float,
    exit_code: int,
    heard: int,
) -> None:
    made = start(backend, code, docker_scope)
    until_output(backend, made.job_id, b"up\n")
    done = in_another_program(
        "backend.stop(sys.argv[1], float(sys.argv[2])); os._exit(0)", made.job_id, str(grace)
    )
    assert done.returncode == 0, done.stderr
    assert ended(backend, made.job_id).exit_code == exit_code
    assert output(backend, made.job_id).count(b"heard\n") == heard


def test_an_out_of_memory_kill_is_named(backend: DockerBackend, docker_scope: str) -> None:
    made = start(backend, "x = bytearray(400 * 1024**2)", docker_scope, memory="64m")
    assert ended(backend, made.job_id).reason == "out of memory"


def test_a_paused_job_runs(backend: DockerBackend, docker_engine: Any, docker_scope: str) -> None:
    made = start(backend, WAITS, docker_scope)
    docker_engine.pause(made.job_id)
    assert backend.inspect(made.job_id).status == "running"
    docker_engine.unpause(made.job_id)


def test_a_missing_container_is_no_error(backend: DockerBackend) -> None:
    gone = new_job_id("gone")
    assert backend.inspect(gone).status == "absent"
    backend.stop(gone, 1)
    backend.stop(gone, 0)
    backend.remove(gone)


def test_removal_deletes_the_files(
    backend: DockerBackend, docker_engine: Any, docker_scope: str
) -> None:
    made = start(backend, "pass", docker_scope)
    ended(backend, made.job_id)
    mounts = docker_engine.inspect_container(made.job_id)["Mounts"]
    (files,) = [mount["Name"] for mount in mounts if mount["Destination"] == "/stoke"]
    backend.remove(made.job_id)
    names = [one["Name"] for one in docker_engine.volumes()["Volumes"]]
    assert files not in names
    assert volume_name(docker_scope, "python") in names


# ---------------------------------------------------------------------------- result


def test_jobs_are_found_by_label_with_their_spec(backend: DockerBackend, docker_scope: str) -> None:
    made = start(backend, WAITS, docker_scope)
    (found,) = [job for job in backend.jobs() if job.scope == docker_scope]
    assert (found.job_id, found.nonce) == (made.job_id, made.nonce)
    assert found.read_spec() == made.public_spec
    state = backend.inspect(made.job_id)
    assert state.started_at and abs(found.submitted_at - state.started_at) < 60


@pytest.mark.parametrize(
    "spoil",
    [
        "os.remove(path)",
        "open(path, 'w').write('not json')",
        "os.remove(path); os.symlink('/etc/shadow', path)",
        "os.remove(path); os.mkdir(path)",
        "os.truncate(path, 1 << 33)",
        "os.remove(path); os.mkfifo(path)",
        "os.remove(path); os.mkdir(path); open(path + '/spec.json', 'w').truncate(6 << 30)",
        "open(path, 'w').write('[' * 100000)",
        "open(path, 'w').write('[' + '[],' * 20000000 + '[]]')",
    ],
)
def test_a_spec_that_the_code_has_spoilt_is_none(
    backend: DockerBackend, docker_scope: str, spoil: str
) -> None:
    code = f"import os; path = '/stoke/spec.json'; {spoil}; print('spoilt')"
    made = start(backend, code, docker_scope)
    assert ended(backend, made.job_id).exit_code == 0
    (found,) = [job for job in backend.jobs() if job.scope == docker_scope]
    before = peak_memory()
    began = time.monotonic()
    assert found.read_spec() is None
    assert peak_memory() - before < 600_000_000
    assert time.monotonic() - began < 30


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---------------------------------------------------------------------------- caches


def test_a_volume_that_another_container_mounts_is_not_cleared(
    backend: DockerBackend, docker_engine: Any, docker_image: str, docker_scope: str
) -> None:
    made = start(backend, "pass", docker_scope)
    ended(backend, made.job_id)
    backend.remove(made.job_id)
    name = volume_name(docker_scope, "python")
    binds = docker_engine.create_host_config(binds=[f"{name}:/theirs"])
    other = docker_engine.create_container(docker_image, ["sleep", "600"], host_config=binds)["Id"]
    docker_engine.start(other)
    try:
        with pytest.raises(EngineError, match="stoke did not create") as caught:
            backend.housekeep(python_volume(backend, docker_scope), CLEAR, quiet)
        assert name in (caught.value.hint or "")
    finally:
        docker_engine.remove_container(other, force=True)


def test_scopes_whose_names_begin_alike_are_apart(
    backend: DockerBackend, docker_scope: str, docker_cleanup: Any
) -> None:
    longer = f"{docker_scope}-python"
    docker_cleanup(longer)
    made = start(backend, WAITS, longer)
    short = start(backend, "pass", docker_scope)
    ended(backend, short.job_id)
    backend.remove(short.job_id)
    assert python_volume(backend, docker_scope).in_use_by == ()
    backend.housekeep(python_volume(backend, docker_scope), CLEAR, quiet)
    assert python_volume(backend, longer).in_use_by == (made.job_id,)


def housekeepers(engine: Any, scope: str) -> list[Any]:
    label = [f"{SCOPE}={scope}", f"{KIND}=housekeeping"]
    found: list[Any] = engine.containers(all=True, filters={"label": label})
    return found


def test_housekeeping_leaves_no_container(
    backend: DockerBackend, docker_engine: Any, docker_scope: str
) -> None:
    made = start(backend, "pass", docker_scope)
    ended(backend, made.job_id)
    usage = {"kind": "python", "do": "usage", "lock_ttl": 60}
    assert backend.housekeep(python_volume(backend, docker_scope), usage, quiet)["bytes"] > 0
    assert housekeepers(docker_engine, docker_scope) == []

    def given_up(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.housekeep(python_volume(backend, docker_scope), usage, given_up)
    assert housekeepers(docker_engine, docker_scope) == []


def test_housekeeping_of_a_killed_program_is_removed(
    backend: DockerBackend, docker_engine: Any, docker_image: str, docker_scope: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made = start(backend, "pass", docker_scope)
    ended(backend, made.job_id)
    config = docker_engine.create_container_config(
        docker_image, ["true"], labels=housekeeping_labels(docker_scope)
    )
    docker_engine.create_container_from_config(config)  # and there it died
    usage = {"kind": "python", "do": "usage", "lock_ttl": 60}
    backend.housekeep(python_volume(backend, docker_scope), usage, quiet)
    (left,) = housekeepers(docker_engine, docker_scope)  # it may be about to start it
    # Not less: the containers of other tests are there as well, made and about to be started.
    monkeypatch.setattr("backends.docker.housekeeping.ABANDONED_SECONDS", 3.0)
    until(lambda: time.time() > left["Created"] + 4.0, "its age")
    backend.housekeep(python_volume(backend, docker_scope), usage, quiet)
    assert housekeepers(docker_engine, docker_scope) == []


# ---------------------------------------------------------------------------- setting up


def test_doctor_reports_a_working_engine(backend: DockerBackend, docker_image: str) -> None:
    results = {result.what: result for result in backend.check()}
    assert results["engine"].works and "Docker" in results["engine"].detail
    assert results["image"].works and docker_image in results["image"].detail
    assert results["log driver"].works


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
