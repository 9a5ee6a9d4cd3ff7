"""The sources of mounts, checked against this machine's files."""

from __future__ import annotations

import json
import os
import shlex
import socket
from pathlib import Path

import pytest

from backends.argo import ArgoBackend
from backends.docker import DockerBackend
from backends.local import LocalBackend
from stoke.config.loader import load_config
from stoke.config.model import ArgoConfig, Config, DockerConfig, MountsConfig
from stoke.delivery import bind_mounts
from stoke.delivery.bind_mounts import BindMount, resolve_mounts
from stoke.errors import RequestError
from stoke.files.paths import cache_dir, make_private, state_dir
from stoke.jobs.prepare import check_request
from stoke.request.sources import request_from_options
from stoke.request.spec import JobSpec
from tests.hints import filled, refused


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    (folder / "data").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def spec(source: str | Path, target: str = "/stoke-test-data") -> JobSpec:
    return request_from_options(code="1", mounts=[f"{source}:{target}"])


def why(source: str | Path, config: Config | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        resolve_mounts(spec(source), config or Config())
    assert caught.value.field == "mounts"
    return caught.value.why


def test_links_are_resolved(here: Path) -> None:
    (here / "link").symlink_to("data")
    asked = request_from_options(code="1", mounts=[f"{here}/link:/a:rw", f"{here}/data/../data:/b"])
    source = str(here / "data")
    assert resolve_mounts(asked, Config()) == [
        BindMount(source, "/a", True),
        BindMount(source, "/b", False),
    ]


def test_a_source_has_to_be_in_an_allowed_folder(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (here / "out").symlink_to(other)
    for source in (other, here / "out", f"{here}/../other"):
        assert "is outside of the folders that may be mounted" in why(source)
    assert f"(a link to {other})" in why(here / "out")
    template = "allow it with mounts.roots in config.toml, or: export STOKE_MOUNTS__ROOTS={}"
    said = refused(lambda: resolve_mounts(spec(here / "out"), Config()), template)
    (roots,) = shlex.split(filled(said, template)[0])
    assert str(other) in json.loads(roots)
    monkeypatch.setenv("STOKE_MOUNTS__ROOTS", roots)
    assert resolve_mounts(spec(here / "out"), load_config())[0].source == str(other)
    # Configured folders replace the defaults.
    only = Config(mounts=MountsConfig(roots=(str(other),)))
    assert "is outside" in why(here / "data", only)


def test_a_missing_source_and_other_kinds_of_file_are_refused(here: Path) -> None:
    assert "No such file" in why(here / "nothing")
    (here / "loop").symlink_to("loop")
    assert "cannot be mounted" in why(here / "loop")
    os.mkfifo(here / "pipe")
    assert "is a named pipe" in why(here / "pipe")
    (here / "null").symlink_to("/dev/null")
    assert "is a device" in why(here / "null")


@pytest.mark.parametrize("source", ["/", "/proc", "/proc/self", "/sys", "/dev/shm"])
def test_the_system_is_refused_also_where_all_is_allowed(here: Path, source: str) -> None:
    (here / "link").symlink_to(source)
    config = Config(mounts=MountsConfig(roots=("/",)))
    for one in (source, here / "link"):
        if one != "/":
            assert "belongs to the system" in why(one, config)
    assert "belongs to the system" in why("/.", config)


def test_what_stoke_stores_is_refused(here: Path, own_home: Path) -> None:
    config = Config(mounts=MountsConfig(roots=("/",)))
    for folder in (state_dir(), cache_dir()):
        make_private(folder / "within")
        assert "belongs to stoke" in why(folder, config)
        assert "belongs to stoke" in why(folder / "within", config)
        said = refused(lambda: resolve_mounts(spec(own_home), config), "mount a folder in it")
        assert said
    (own_home / "mine").mkdir()
    assert resolve_mounts(spec(own_home / "mine"), config)


def test_an_engines_socket_is_refused_under_every_name(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "outer" / "run"
    run.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(run)  # A socket's path is short.
        listening.bind("engine.sock")
        monkeypatch.chdir(here)
        path = run / "engine.sock"
        config = Config(
            docker=DockerConfig(host=f"unix://{path}"), mounts=MountsConfig(roots=(str(tmp_path),))
        )
        os.link(path, here / "data" / "harmless")
        (here / "linked").symlink_to(run)
        assert "is a socket" in why(path, config)
        assert "is a socket" in why(here / "data" / "harmless", config)
        for folder in (run, run.parent, here / "linked", here / "data"):
            assert "could run any container" in why(folder, config)
        (here / "free").mkdir()
        assert resolve_mounts(spec(here / "free"), config)


def test_the_usual_sockets_are_known(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setenv("DOCKER_HOST", "unix:///some/docker.sock")
    known = set(bind_mounts._sockets(Config()))
    assert {"/var/run/docker.sock", "/run/user/7/docker.sock", "/some/docker.sock"} <= known


def test_a_claim_is_for_a_cluster(here: Path) -> None:
    asked = request_from_options(code="1", mounts=["claim:data:/data"])
    template = "mount a folder, or choose the cluster: -b argo"
    refused(lambda: resolve_mounts(asked, Config()), template)
    assert resolve_mounts(spec(here / "data"), Config())


def test_a_path_that_this_machine_has_is_refused_on_local(here: Path) -> None:
    local = LocalBackend(Config())
    template = "choose another path, or run in a container: -b docker"
    refused(lambda: check_request(spec(here / "data", "/tmp"), local), template)
    note = check_request(spec(here / "data"), local)
    assert note is not None and "$STOKE_MOUNT_ROOT/stoke-test-data" in note
    # The same folder is at its own path already.
    assert check_request(spec(here / "data", str(here / "data")), local) is None


def test_an_engine_elsewhere_has_no_files_of_this_machine(here: Path) -> None:
    far = DockerBackend(Config(docker=DockerConfig(host="tcp://engine.example.org:2376")))
    template = "use an engine on this machine, or fetch the data in the code"
    refused(lambda: check_request(spec(here / "data"), far), template)
    near = DockerBackend(Config(docker=DockerConfig(host=f"unix://{here}/no.sock")))
    assert check_request(spec(here / "data"), near) is None


def test_a_pod_sees_claims_only(here: Path) -> None:
    argo = ArgoBackend(Config())
    template = "put the data into a claim: --mount claim:NAME:/path; or run here: -b docker"
    said = refused(lambda: check_request(spec(here / "data"), argo), template)
    claim = said.partition("--mount ")[2].partition(";")[0]
    asked = request_from_options(code="1", mounts=[claim.replace("NAME", "data")])
    assert check_request(asked, argo) is None
    ours = request_from_options(code="1", mounts=["claim:stoke-default-python:/data:rw"])
    with pytest.raises(RequestError, match="a claim of stoke itself"):
        check_request(ours, argo)
    by_template = ArgoBackend(Config(argo=ArgoConfig(by_template=True)))
    template = "leave them out, and fetch the data in the code"
    refused(lambda: check_request(asked, by_template), template)
    assert check_request(request_from_options(code="1"), by_template) is None
