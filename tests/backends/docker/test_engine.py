"""The address of the engine, and the errors for one that cannot be reached."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
from http.client import RemoteDisconnected
from pathlib import Path

import pytest

from backends.docker import DockerBackend
from backends.docker.engine import DEFAULT_SOCKET, as_engine_error, find_address
from stoke.config.model import Config, DockerConfig
from stoke.errors import EngineError
from tests.backends.docker.fake_engine import HOLD, JOB, fake_engine, json_answer


def backend_at(url: str) -> DockerBackend:
    return DockerBackend(Config(docker=DockerConfig(host=url)))


def test_nothing_of_docker_is_imported_before_the_first_call() -> None:
    code = (
        "import sys\n"
        "from stoke.backend.registry import load_backend\n"
        "from stoke.config.model import Config\n"
        "load_backend('docker', Config()).capabilities\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('docker', 'requests', 'urllib3')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_configuration_wins_then_the_variable_then_the_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    assert find_address(None, {}).url == DEFAULT_SOCKET
    host = {"DOCKER_HOST": "unix:///run/user/1000/docker.sock"}
    assert find_address(None, host).url == host["DOCKER_HOST"]
    assert find_address("unix:///own.sock", host).url == "unix:///own.sock"

    meta = tmp_path / "contexts/meta" / hashlib.sha256(b"rootless").hexdigest()
    meta.mkdir(parents=True)
    endpoints = {"docker": {"Host": "unix:///rootless.sock", "SkipTLSVerify": False}}
    description = {"Name": "rootless", "Metadata": {}, "Endpoints": endpoints}
    (meta / "meta.json").write_text(json.dumps(description))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "rootless"}))
    found = find_address(None, {})
    assert found.url == "unix:///rootless.sock" and "rootless" in found.source
    assert find_address(None, host).url == host["DOCKER_HOST"]


def test_a_context_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(EngineError, match="no docker context 'elsewhere'"):
        find_address(None, {"DOCKER_CONTEXT": "elsewhere"})


@pytest.mark.parametrize("url", ["tcp://10.0.0.1:2375", "https://10.0.0.1:2376"])
def test_an_engine_over_the_network_needs_tls_that_is_verified(url: str, tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    folder = {"DOCKER_CERT_PATH": str(tmp_path)}
    for unsafe in ({}, {**folder, "DOCKER_TLS_VERIFY": ""}):
        with pytest.raises(EngineError, match="without verified TLS") as caught:
            find_address(url, unsafe)
        assert "DOCKER_TLS_VERIFY=1" in (caught.value.hint or "")
    safe = find_address(url, {**folder, "DOCKER_TLS_VERIFY": "1"})
    assert safe.tls is not None and safe.tls.verify


def test_certificates_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=str(tmp_path)):
        find_address(
            "tcp://10.0.0.1:2376", {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
        )


@pytest.mark.parametrize("url", ["ssh://me@host", "npipe:////./pipe/docker", "http://host:1"])
def test_other_kinds_of_address_are_refused(url: str) -> None:
    with pytest.raises(EngineError, match="neither"):
        find_address(url, {})


def test_no_engine(tmp_path: Path) -> None:
    backend = backend_at(f"unix://{tmp_path}/absent.sock")
    with pytest.raises(EngineError, match="there is no Docker engine") as caught:
        backend.inspect("job-aaaaaa")
    assert "install Docker" in (caught.value.hint or "")
    (result,) = backend.check()
    assert not result.works and result.hint


def test_an_engine_that_was_stopped(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/left.sock")
    with pytest.raises(EngineError, match="is not running") as caught:
        backend_at(f"unix://{tmp_path}/left.sock").volumes()
    assert "systemctl start docker" in (caught.value.hint or "")


def test_an_engine_that_takes_long_to_remove_a_job(tmp_path: Path) -> None:
    with fake_engine(tmp_path) as engine:
        engine.answers[JOB] = [HOLD]
        backend_at(engine.url).remove_soon(JOB)
        assert engine.requests[-1].endswith(f"/containers/{JOB}?v=True&force=True")
        engine.answers[JOB] = [json_answer({"message": "no disk"}, 500)]
        with pytest.raises(EngineError, match="no disk"):
            backend_at(engine.url).remove_soon(JOB)


def test_no_permission() -> None:
    import requests
    import urllib3

    # As requests hands it up, three wrappers deep; root, whom tests often are, is never refused.
    wrapped = requests.exceptions.ConnectionError(
        urllib3.exceptions.ProtocolError(
            "Connection aborted.", PermissionError(13, "Permission denied")
        )
    )
    error = as_engine_error(wrapped, "start a job", DEFAULT_SOCKET)
    assert "no permission" in error.what and "usermod -aG docker" in (error.hint or "")


def test_a_connection_that_the_engine_closes_is_named() -> None:
    import requests
    import urllib3

    wrapped = requests.exceptions.ConnectionError(
        urllib3.exceptions.ProtocolError(
            "Connection aborted.", RemoteDisconnected("Remote end closed connection")
        )
    )
    error = as_engine_error(wrapped, "start a job", DEFAULT_SOCKET)
    assert error.what == (
        f"cannot start a job: lost the Docker engine at {DEFAULT_SOCKET}: it closed the connection"
    )


def test_an_engine_that_disappears_during_a_response(tmp_path: Path) -> None:
    with fake_engine(tmp_path) as engine:
        engine.answers["json"] = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"]
        with pytest.raises(EngineError):
            backend_at(engine.url).inspect("job-aaaaaa")
        engine.answers["json"] = [b""]
        with pytest.raises(EngineError):
            backend_at(engine.url).inspect("job-aaaaaa")


def test_an_engine_that_comes_back_is_used_again(tmp_path: Path) -> None:
    with fake_engine(tmp_path) as engine:
        backend = backend_at(engine.url)
        assert backend.inspect("job-aaaaaa").status == "running"
    (tmp_path / "engine.sock").unlink()
    with pytest.raises(EngineError):
        backend.inspect("job-aaaaaa")
    with fake_engine(tmp_path):
        assert backend.inspect("job-aaaaaa").status == "running"


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (500, "write /var/lib/docker/x: no space left on device", "free disk space"),
        (500, "driver failed", "journalctl -u docker"),
        (403, "authorization denied by plugin", "allow it"),
    ],
)
def test_the_engines_own_words_are_kept(
    tmp_path: Path, status: int, message: str, hint: str
) -> None:
    with fake_engine(tmp_path) as engine:
        engine.answers["json"] = [json_answer({"message": message}, status)]
        with pytest.raises(EngineError) as caught:
            backend_at(engine.url).inspect("job-aaaaaa")
    assert message in caught.value.what and hint in (caught.value.hint or "")
