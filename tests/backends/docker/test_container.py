"""The engine's requests for a job hold everything it needs, and no user text."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import pytest

from backends.docker import DockerBackend
from backends.docker.container import DeliveryArchive, archive_of, container_config
from stoke.config.model import Config, DockerConfig, LogConfig
from tests.backends.docker.deliveries import NONCE, delivery

GOLDEN = {
    "Image": "python:3.13",
    "Entrypoint": ["python3", "-I", "-S", "/stoke/runner.py"],
    "Cmd": [
        "/stoke/payload",
        "--work",
        "/stoke/work",
        "--own-files",
        "--keep-copy",
        "--tagged",
        "--container",
        "--results",
        "/mnt/results",
        "--cache",
        "/cache",
    ],
    "User": "0:0",
    "WorkingDir": "/",
    "StopSignal": "SIGTERM",
    "Healthcheck": {"Test": ["NONE"]},
    "Labels": {
        "stoke.managed": "true",
        "stoke.kind": "job",
        "stoke.job": "fit-aaaaaa",
        "stoke.scope": "team",
        "stoke.nonce": NONCE,
    },
    "Volumes": {"/stoke": {}},
    "Tty": False,
    "OpenStdin": False,
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "HostConfig": {
        "Mounts": [
            {
                "Type": "volume",
                "Source": "stoke-team-python",
                "Target": "/cache",
                "VolumeOptions": {
                    "NoCopy": True,
                    "Labels": {
                        "stoke.managed": "true",
                        "stoke.scope": "team",
                        "stoke.kind": "python",
                        "stoke.shared": "true",
                    },
                },
            }
        ],
        "LogConfig": {"Type": "local", "Config": {"max-size": "1048576000", "max-file": "2"}},
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "PidsLimit": 99,
        "Init": False,
        "Privileged": False,
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no"},
        "Memory": 536870912,
        "MemorySwap": 536870912,
        "ShmSize": 536870912,
        "NanoCpus": 1500000000,
        "NetworkMode": "jobs",
    },
}
CONFIG = Config(
    docker=DockerConfig(network="jobs", pids_limit=99), log=LogConfig(max_size=1000 * 1024**2)
)
# Everything here would do something in a shell, a template, a label or an argument list.
HOSTILE = [
    "--privileged",
    "-v=/:/host",
    "$(touch /tmp/pwned)",
    "`id`",
    "a; rm -rf /",
    "{{workflow.uid}}",
    "\x1b]0;owned\x07",
    "[@click=app.quit]x[/]",
    "line\nbreak",
    "'''+str(1)+r'''",
]


def test_the_whole_configuration() -> None:
    made = replace(
        delivery("pass", scope="team", memory="512m", cpu=1.5, image="python:3.13"),
        job_id="fit-aaaaaa",
    )
    assert container_config(made, CONFIG, "python:3.13") == GOLDEN


@pytest.mark.parametrize("text", HOSTILE)
def test_user_text_is_only_in_the_payload(text: str) -> None:
    marked = f"{text} MARK"
    made = delivery(
        f"print({marked!r})",
        name=marked,
        args=[marked],
        env={"VALUE": marked},
        requirements="# MARK\nsix",
    )
    config = container_config(made, Config(), "image")
    assert "MARK" not in json.dumps(config)
    assert text not in json.dumps(config, ensure_ascii=False)
    assert "mark" in made.job_id  # the name lives on in the id, cleaned
    assert set(made.job_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_without_limits_none_are_set() -> None:
    host = container_config(delivery("pass"), Config(), "image")["HostConfig"]
    assert not {"Memory", "MemorySwap", "NanoCpus", "NetworkMode"} & set(host)


def test_without_a_cache_no_volume_is_mounted() -> None:
    config = container_config(delivery("pass", use_cache=False), Config(), "image")
    assert config["HostConfig"]["Mounts"] == []
    assert "--cache" not in config["Cmd"]


def test_system_packages_mount_the_scopes_volume_or_one_of_the_job() -> None:
    config = container_config(delivery("pass", system=["gcc"], scope="team"), Config(), "image")
    assert "--nix" in config["Cmd"]
    mount = config["HostConfig"]["Mounts"][1]
    assert (mount["Source"], mount["Target"]) == ("stoke-team-system", "/nix")
    assert mount["VolumeOptions"]["Labels"]["stoke.kind"] == "system"
    assert list(config["Volumes"]) == ["/stoke"]
    config = container_config(delivery("pass", system=["gcc"], use_cache=False), Config(), "image")
    assert "--nix" in config["Cmd"]
    assert config["HostConfig"]["Mounts"] == []
    assert list(config["Volumes"]) == ["/stoke", "/nix"]


@pytest.mark.parametrize("network", ["host", "container:other"])
def test_on_a_network_of_others_bytes_are_not_counted(network: str) -> None:
    config = Config(docker=DockerConfig(network=network))
    assert "--container" not in container_config(delivery("pass"), config, "image")["Cmd"]
    assert not DockerBackend(config).capabilities.counts_bytes
    assert DockerBackend(Config()).capabilities.counts_bytes


def test_podmans_single_log_file_gets_the_size_of_all_of_dockers() -> None:
    config = Config(log=LogConfig(max_size=10 * 1024**2))
    made = container_config(delivery("pass"), config, "image", "k8s-file")
    wanted = {"Type": "k8s-file", "Config": {"max-size": str(20 * 1024**2)}}
    assert made["HostConfig"]["LogConfig"] == wanted
    # Podman itself keeps the order of the streams, and parts of lines.
    assert "--tagged" not in made["Cmd"]


def test_the_archive_holds_the_files_for_root_alone() -> None:
    made = delivery("x = '" + "a" * 1024**2 + "'")
    archive = b"".join(DeliveryArchive(made))
    assert len(archive) == len(DeliveryArchive(made))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {entry.name: tar.extractfile(entry) for entry in tar}
        held = {name: file.read() for name, file in files.items() if file}
        assert {entry.mode for entry in tar} == {0o600}
        assert {entry.uid for entry in tar} == {0}
    assert held == {
        "runner.py": made.runner,
        "payload": made.payload,
        "spec.json": made.public_spec,
    }


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 20_000])
def test_the_archive_ends_with_exactly_two_zero_blocks(size: int) -> None:
    """Podman stops reading there, and may answer "broken pipe" if more is sent."""
    archive = archive_of({"payload": b"x" * size})
    blocks = -(-size // 512)
    assert len(archive) == 512 * (1 + blocks + 2)
    assert archive[-1024:] == bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile("payload")
        assert file is not None and file.read() == b"x" * size


def test_rendering_needs_no_engine() -> None:
    backend = DockerBackend(Config(docker=DockerConfig(host="unix:///nowhere/docker.sock")))
    made = delivery("pass", image="team/python:3.12")
    shown = json.loads(backend.render(made))
    assert shown["name"] == made.job_id
    assert shown["Image"] == "team/python:3.12"
    assert shown["HostConfig"]["CapDrop"] == ["ALL"]
