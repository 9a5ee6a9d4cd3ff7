"""Hints about the Docker engine, followed until it is reached and takes the job."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.docker import DockerBackend
from backends.docker.engine import DEFAULT_SOCKET, find_address
from backends.docker.names import volume_name
from stoke.config.loader import load_config
from stoke.config.model import Config, DockerConfig
from stoke.errors import StokeError
from tests.backends.docker.deliveries import delivery, ended, unreported
from tests.backends.docker.fake_engine import fake_engine, json_answer
from tests.hints import command, exported, filled, is_hint, refused
from tests.network import Authority

# --- where the engine is ---------------------------------------------------------------------------


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of Docker's own program, which it and we read."""
    folder = tmp_path / "docker"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    for name in ("DOCKER_CONTEXT", "DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    return folder


def docker(*arguments: str) -> None:
    if shutil.which("docker") is None:
        pytest.skip("Docker's own program is not here")
    subprocess.run(["docker", *arguments], check=True, capture_output=True, timeout=60)


def test_a_context_that_is_chosen_and_gone(docker_config: Path) -> None:
    (docker_config / "config.json").write_text('{"currentContext": "gone"}')
    said = refused(lambda: find_address(None, {}), "docker context use default")
    docker(*command(said, "docker"))
    assert find_address(None, {}).url == DEFAULT_SOCKET


@pytest.mark.usefixtures("docker_config")
def test_a_variable_that_names_a_deleted_context() -> None:
    environ = {"DOCKER_CONTEXT": "gone"}
    said = refused(lambda: find_address(None, environ), "unset DOCKER_CONTEXT")
    del environ[said.removeprefix("unset ")]
    assert find_address(None, environ).url == DEFAULT_SOCKET


@pytest.mark.parametrize(
    ("configured", "environ"), [("ssh://me@host", {}), (None, {"DOCKER_HOST": "ssh://me@host"})]
)
def test_an_address_that_is_replaced_by_a_forwarded_socket(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, configured: str | None, environ: dict[str, str]
) -> None:
    """ssh itself is not run."""
    if configured:
        (own_home / "config.toml").write_text(f'docker.host = "{configured}"\n')
    said = refused(
        lambda: find_address(load_config().docker.host, environ),
        "forward the engine's socket: ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock HOST, "
        "then export {}=unix:///tmp/docker.sock",
    )
    for name, value in exported(said).items():
        monkeypatch.setenv(name, value)
    found = find_address(load_config().docker.host, {**environ, **exported(said)})
    here = command(said.partition(" HOST,")[0], "ssh")[-1].partition(":")[0]
    assert found.url == f"unix://{here}"


def test_an_address_without_tls_is_given_certificates(tmp_path: Path) -> None:
    url = "tcp://10.0.0.1:2376"
    template = "export DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=/folder/with/its/certificates"
    said = refused(lambda: find_address(url, {}), template)
    # The folder that is only an example: the next error says what belongs there.
    missing = "put ca.pem, cert.pem and key.pem there, or: export DOCKER_CERT_PATH=/their/folder"
    environ = exported(said)
    said = refused(lambda: find_address(url, environ), missing)
    for name in said.removeprefix("put ").partition(" there")[0].replace(" and", ",").split(", "):
        (tmp_path / name).touch()
    (variable,) = exported(said)
    found = find_address(url, {**environ, variable: str(tmp_path)})
    assert found.tls is not None and found.tls.verify


@pytest.mark.usefixtures("docker_config")
def test_a_context_without_tls_is_given_certificates(tmp_path: Path) -> None:
    files = Authority(tmp_path, "10.0.0.1").file.parent
    docker("context", "create", "far", "--docker", "host=tcp://10.0.0.1:2376")
    environ = {"DOCKER_CONTEXT": "far"}
    said = refused(
        lambda: find_address(None, environ),
        "add certificates: docker context update {} --docker {}",
    )
    for example, file in (
        ("/folder/ca.pem", files / "authority.crt"),
        ("/folder/cert.pem", files / "server.crt"),
        ("/folder/key.pem", files / "server.key"),
    ):
        assert example in said
        said = said.replace(example, str(file))
    docker(*command(said, "docker"))
    found = find_address(None, environ)
    assert found.tls is not None and found.tls.verify


# --- an engine that does not work: only its administrator can follow, so: is it that one fault? -------


def backend_at(url: str) -> DockerBackend:
    return DockerBackend(Config(docker=DockerConfig(host=url)))


START = "start it: sudo systemctl start docker; or run on this machine: -b local"


def test_an_engine_to_start_is_one_that_nothing_listens_for(tmp_path: Path) -> None:
    backend = backend_at(f"unix://{tmp_path}/engine.sock")
    refused(backend.volumes, f"install Docker, or {START}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/engine.sock")
    refused(backend.volumes, START)
    # Started: an engine at that socket.
    (tmp_path / "engine.sock").unlink()
    with fake_engine(tmp_path) as engine:
        engine.answers["volumes"] = [json_answer({"Volumes": []})]
        assert backend.volumes() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_a_user_outside_the_sockets_group_joins_it() -> None:
    """The test does not change the machine's groups, but starts a process in the group."""
    user, group = 65534, 54321
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made, fake_engine(Path(made)) as engine:
        os.chmod(made, 0o755)
        socket_file = engine.url.removeprefix("unix://")
        os.chown(socket_file, 0, group)
        os.chmod(socket_file, 0o660)
        engine.answers["volumes"] = [json_answer({"Volumes": []})]

        def tried(groups: list[int]) -> str | None:
            """The hint that the user gets, None without an error."""
            ours, theirs = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    os.setgroups(groups)
                    os.setgid(user)
                    os.setuid(user)
                    backend_at(engine.url).volumes()
                except StokeError as error:
                    os.write(theirs, f"{error.hint}".encode())
                finally:
                    os._exit(0)
            os.close(theirs)
            os.waitpid(child, 0)
            with open(ours) as reader:
                return reader.read() or None

        said = is_hint(
            tried([]),
            "join its group: sudo usermod -aG docker $USER, and log in again; or run on this machine: "
            "-b local",
        )
        assert command(said.partition(",")[0], "usermod") == ["-aG", "docker", "$USER"]
        assert tried([group]) is None


def test_an_engine_is_started_or_checked_until_it_answers(tmp_path: Path) -> None:
    with fake_engine(tmp_path) as engine:
        backend = backend_at(engine.url)
        assert backend.inspect("job-aaaaaa").status == "running"
        engine.answers["json"] = [b""]
        template = "start it: sudo systemctl start docker; or run on this machine: -b local"
        refused(lambda: backend.inspect("job-aaaaaa"), template)
        engine.answers["json"] = [json_answer([])]
        refused(lambda: backend.inspect("job-aaaaaa"), "check the engine: docker info")
        engine.answers["json"] = [json_answer({"message": "gone"}, 404)]
        assert backend.inspect("job-aaaaaa").status == "absent"


INFO = {
    "ServerVersion": "1",
    "DockerRootDir": "/var/lib/docker",
    "Driver": "overlay2",
    "Plugins": {"Log": ["local", "json-file"]},
    "MemoryLimit": True,
    "SwapLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
}


@pytest.mark.parametrize(
    ("what", "broken", "template"),
    [
        (
            "log driver",
            {"Plugins": {"Log": ["json-file"]}},
            "use an engine that has the log driver {}",
        ),
        (
            "limits",
            {"SwapLimit": False},
            "turn these controllers on in the kernel: cgroup_enable=memory swapaccount=1",
        ),
        (
            "limits",
            {"Rootless": True, "CgroupVersion": "1"},
            "use cgroups v2 (kernel: systemd.unified_cgroup_hierarchy=1), or run Podman as root",
        ),
    ],
)
def test_features_that_doctor_reports_missing_are_missing(
    tmp_path: Path, what: str, broken: dict[str, Any], template: str
) -> None:
    with fake_engine(tmp_path) as engine:
        engine.answers["info"] = [json_answer({**INFO, **broken})]
        checked = backend_at(engine.url).check()
        failing = {one.what: one.hint for one in checked if one.works is False}
        assert list(failing) == [what]
        said = is_hint(failing[what], template)
        if what == "log driver":
            assert filled(said, template) == ("'local'",)
        engine.answers["info"] = [json_answer(INFO)]
        assert not any(one.works is False for one in backend_at(engine.url).check())


# --- on a real engine --------------------------------------------------------------------------------


@pytest.fixture
def backend(docker_image: str) -> Iterator[DockerBackend]:
    backend = DockerBackend(Config(docker=DockerConfig(image=docker_image)))
    yield backend
    backend.close()


@pytest.fixture
def removed(docker_engine: Any) -> Iterator[Callable[[str], None]]:
    """Containers of these ids are gone after the test."""
    ids: list[str] = []
    yield ids.append
    for one in ids:
        docker_engine.remove_container(one, force=True)


def runs(backend: DockerBackend, code: str, **fields: Any) -> bool:
    made = delivery(code, **fields)
    backend.submit(made, unreported)
    code_of = ended(backend, made.job_id).exit_code
    backend.remove(made.job_id)
    return code_of == 0


@pytest.mark.docker
def test_a_name_that_is_taken_is_freed(
    backend: DockerBackend,
    docker_engine: Any,
    docker_image: str,
    docker_scope: str,
    removed: Callable[[str], None],
) -> None:
    made = delivery("pass", scope=docker_scope)
    removed(docker_engine.create_container(docker_image, ["true"], name=made.job_id)["Id"])
    said = refused(
        lambda: backend.submit(made, unreported), "remove or rename it: docker rename {} NAME"
    )
    docker(*command(said.replace("NAME", f"{made.job_id}-old"), "docker"))
    backend.submit(made, unreported)
    assert ended(backend, made.job_id).exit_code == 0


@pytest.mark.docker
@pytest.mark.parametrize("fault", ["absent", "without python"])
def test_another_image_is_named(
    backend: DockerBackend, docker_engine: Any, docker_image: str, docker_scope: str, fault: str
) -> None:
    if fault == "absent":
        image = "stoke-test/there-is-none:1"
        template = "build one: stoke setup image; or name one that the engine has: --image IMAGE"
    else:
        image = f"stoke-test/empty:{docker_scope}"
        docker_engine.import_image_from_data(
            bytes(10240), repository="stoke-test/empty", tag=docker_scope
        )
        template = "name one with Python 3.9 or later: --image IMAGE"
    try:
        said = refused(
            lambda: backend.submit(delivery("pass", scope=docker_scope, image=image), unreported),
            template,
        )
    finally:
        if fault != "absent":
            docker_engine.remove_image(image)
    assert said.split()[-2:] == ["--image", "IMAGE"]
    assert runs(backend, "pass", scope=docker_scope, image=docker_image)


@pytest.mark.docker
def test_a_foreign_volume_is_removed_or_avoided(
    backend: DockerBackend,
    docker_engine: Any,
    docker_scope: str,
    docker_cleanup: Callable[[str], None],
) -> None:
    docker_engine.create_volume(volume_name(docker_scope, "python"))
    template = (
        "choose another scope: --scope NAME; or, if it is yours to remove: docker volume rm {}"
    )
    said = refused(
        lambda: backend.submit(delivery("pass", scope=docker_scope), unreported), template
    )
    docker_cleanup(f"{docker_scope}-other")
    assert runs(backend, "pass", scope=f"{docker_scope}-other")
    docker(*command(said, "docker"))
    assert runs(backend, "pass", scope=docker_scope)


@pytest.mark.docker
def test_the_users_of_a_volume_are_shown(
    backend: DockerBackend,
    docker_engine: Any,
    docker_image: str,
    docker_scope: str,
    removed: Callable[[str], None],
) -> None:
    assert runs(backend, "pass", scope=docker_scope)
    (volume,) = [one for one in backend.volumes() if one.scope == docker_scope]
    binds = docker_engine.create_host_config(binds=[f"{volume.name}:/theirs"])
    theirs = docker_engine.create_container(docker_image, ["sleep", "600"], host_config=binds)["Id"]
    docker_engine.start(theirs)

    def clear() -> None:
        backend.housekeep(volume, {"kind": "python", "do": "clear"}, lambda _: None)

    try:
        said = refused(clear, "find it: docker ps --filter volume={}")
        listed = subprocess.run(
            [*shlex.split(said.partition(": ")[2]), "--quiet", "--no-trunc"],
            stdout=subprocess.PIPE,
            check=True,
        )
        (seen,) = listed.stdout.decode().split()
        assert seen == theirs
    finally:
        docker_engine.remove_container(theirs, force=True)
    clear()
