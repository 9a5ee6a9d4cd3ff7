"""On a real engine: what only Docker can do, and what can go wrong between it and us."""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from backends.docker import DockerBackend
from backends.docker.names import volume_name
from stoke.backend.api import EngineStatus
from stoke.errors import EngineError
from stoke.history.job import new_job_id
from stoke.logs.follower import Follower
from stoke.logs.spool import STDERR, STDOUT
from stoke.remote.events import Event
from tests.backends.docker.deliveries import NONCE, ended, output
from tests.backends.docker.real import DEAF_FOREVER, WAITS, in_another_program, start, until_output
from tests.lab import until
from tests.spools import lines_in

pytestmark = pytest.mark.docker

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


@pytest.mark.parametrize("soon", [False, True])
def test_removal_deletes_the_files(
    backend: DockerBackend, docker_engine: Any, docker_scope: str, soon: bool
) -> None:
    """Also if the program ended that began it."""
    made = start(backend, "pass", docker_scope)
    ended(backend, made.job_id)
    mounts = docker_engine.inspect_container(made.job_id)["Mounts"]
    (files,) = [mount["Name"] for mount in mounts if mount["Destination"] == "/stoke"]
    if soon:
        code = "backend.remove_soon(sys.argv[1]); os._exit(0)"
        assert in_another_program(code, made.job_id).returncode == 0
        until(lambda: backend.inspect(made.job_id).status == "absent", "the removal")
    else:
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


# ---------------------------------------------------------------------------- renamed by a person


def test_a_renamed_container_is_followed_stopped_and_removed(
    backend: DockerBackend, docker_engine: Any, docker_scope: str, bare_image: str
) -> None:
    made = start(backend, WAITS, docker_scope)
    until_output(backend, made.job_id, b"up\n")
    name = f"renamed-{made.job_id}"
    docker_engine.rename(made.job_id, name)
    # Another person's container has the job's name now.
    docker_engine.create_container(bare_image, ["true"], name=made.job_id)
    try:
        assert backend.inspect(made.job_id).status == EngineStatus.RUNNING
        (found,) = [job for job in backend.jobs() if job.scope == docker_scope]
        assert found.job_id == made.job_id and found.read_spec() is not None
        backend.stop(made.job_id, 0)
        ended(backend, made.job_id)
        assert b"up" in output(backend, made.job_id)
        backend.remove(made.job_id)
        assert backend.inspect(made.job_id).status == EngineStatus.ABSENT
        assert docker_engine.inspect_container(made.job_id)["State"]["Status"] == "created"
    finally:
        docker_engine.remove_container(made.job_id)


def test_a_container_of_a_job_s_image_is_no_job(
    backend: DockerBackend, docker_engine: Any, docker_scope: str
) -> None:
    """`docker commit` copies the labels of a job's container to the image."""
    made = start(backend, "print(1)", docker_scope)
    ended(backend, made.job_id)
    image = docker_engine.commit(made.job_id)["Id"]
    copy = docker_engine.create_container(image, ["true"])["Id"]
    try:
        backend.remove(made.job_id)
        assert backend.inspect(made.job_id).status == EngineStatus.ABSENT
        assert [job for job in backend.jobs() if job.scope == docker_scope] == []
        backend.remove(made.job_id)
        assert docker_engine.inspect_container(copy)["State"]["Status"] == "created"
    finally:
        docker_engine.remove_container(copy)
        docker_engine.remove_image(image)
