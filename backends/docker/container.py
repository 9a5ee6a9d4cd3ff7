"""What a job is to the engine: the container's configuration and the files put into it.

Pure functions. Nothing a person wrote stands in what the engine is told: code, arguments,
environment and secrets are inside the payload.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

from backends.docker.names import (
    housekeeping_labels,
    job_labels,
    volume_labels,
    volume_name,
)
from stoke.backend.api import Delivery, Volume
from stoke.config.model import Config
from stoke.remote.command import runner_arguments
from stoke.remote.protocol import Option

FOLDER = "/stoke"
CACHE = "/cache"
NIX = "/nix"
SPEC = "spec.json"
# Where each kind of cache volume is mounted.
TARGETS = {"python": CACHE, "system": NIX}
HOUSEKEEPING = "housekeeping.py"
# Exact bytes; json-file turns what is not UTF-8 into U+FFFD.
LOG_DRIVER = "local"
# For engines without it: Podman's own driver, which is exact too, and Docker's oldest, which is not.
PODMAN_LOG_DRIVER = "k8s-file"
FALLBACK_LOG_DRIVERS = (PODMAN_LOG_DRIVER, "json-file")
# The engine drops whole files: with two of them, at least `log.max_size` is always there.
LOG_FILES = 2
LEAST_LOG_FILE = 20_000_000
# Of /dev/shm, where nothing says how much memory the job has. Docker's own 64 MiB end the data loaders
# of PyTorch with a bus error. It is a bound, and takes no memory until it is written to.
SHM_SIZE = 8 * 1024**3


def container_config(
    delivery: Delivery, config: Config, image: str, log_driver: str = LOG_DRIVER
) -> dict[str, Any]:
    """The body of the engine's `POST /containers/create`."""
    spec = delivery.spec
    flags = [Option.OWN_FILES]
    if log_driver != PODMAN_LOG_DRIVER:
        # Docker reads the two streams apart, and keeps a line until it ends. Podman does neither.
        flags.append(Option.TAGGED)
    mounts = []
    if spec.use_cache:
        mounts.append(_cache_mount(spec.scope, "python", CACHE))
    # Anonymous, and gone with the container. Files copied onto a volume are there before the start,
    # and where the root is read-only.
    volumes: dict[str, dict[str, str]] = {FOLDER: {}}
    if spec.system:
        flags.append(Option.NIX)
        if spec.use_cache:
            mounts.append(_cache_mount(spec.scope, "system", NIX))
        else:
            volumes[NIX] = {}
    if has_own_network(config):
        flags.append(Option.CONTAINER)
    command = runner_arguments(
        f"{FOLDER}/payload",
        work=f"{FOLDER}/work",
        cache=CACHE if spec.use_cache else None,
        flags=tuple(flags),
    )
    host: dict[str, Any] = {
        "Mounts": mounts,
        "LogConfig": {
            "Type": log_driver,
            "Config": _log_options(config.log.max_size, log_driver),
        },
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "PidsLimit": config.docker.pids_limit,
        # The runner is the first process and reaps; the engine's own would hide it.
        "Init": False,
        "Privileged": False,
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no"},
    }
    if spec.memory is not None:
        # Equal: no swap beyond it, so the limit is what it says.
        host |= {"Memory": spec.memory, "MemorySwap": spec.memory}
    host["ShmSize"] = spec.shm_size or spec.memory or SHM_SIZE
    if spec.cpu is not None:
        host["NanoCpus"] = round(spec.cpu * 1e9)
    if config.docker.network is not None:
        host["NetworkMode"] = config.docker.network
    return {
        "Image": image,
        "Entrypoint": ["python3", "-I", "-S", f"{FOLDER}/runner.py"],
        "Cmd": command,
        "User": "0:0",
        "WorkingDir": "/",
        # An image may say otherwise to each of these.
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": job_labels(delivery.job_id, spec.scope, delivery.nonce),
        "Volumes": volumes,
        "Tty": False,
        "OpenStdin": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "HostConfig": host,
    }


def _log_options(max_size: int, log_driver: str) -> dict[str, str]:
    if log_driver == PODMAN_LOG_DRIVER:
        # It has one file and drops all of it when it is full, so that file gets the room of all.
        return {"max-size": str(LOG_FILES * max_size)}
    return {"max-size": str(max_size), "max-file": str(LOG_FILES)}


def has_own_network(config: Config) -> bool:
    """Whether what a container receives can be told from what others receive."""
    network = config.docker.network or ""
    return network != "host" and not network.startswith("container:")


def housekeeping_config(
    volume: Volume, operation: Mapping[str, object], config: Config, image: str
) -> dict[str, Any]:
    """The same for a container that looks after a volume. It needs no network; the engine removes it
    when it ends, also where nobody is left who would."""
    target = TARGETS[volume.kind]
    return {
        "Image": image,
        "Entrypoint": ["python3", "-I", "-S", f"{FOLDER}/{HOUSEKEEPING}"],
        "Cmd": [target, json.dumps(operation)],
        "User": "0:0",
        "WorkingDir": "/",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": housekeeping_labels(volume.scope),
        "Volumes": {FOLDER: {}},
        "Tty": False,
        "OpenStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "Mounts": [_cache_mount(volume.scope, volume.kind, target)],
            "LogConfig": {"Type": "none"},
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": config.docker.pids_limit,
            "Init": False,
            "Privileged": False,
            "AutoRemove": True,
            "RestartPolicy": {"Name": "no"},
        },
    }


def delivery_archive(delivery: Delivery) -> bytes:
    """The tar that is unpacked into `/stoke` before the start; only root can read what is in it."""
    files = {
        "runner.py": delivery.runner,
        "payload": delivery.payload,
        SPEC: delivery.public_spec,
    }
    return archive_of(files)


def archive_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o600
            tar.addfile(entry, io.BytesIO(data))
        end = tar.offset
    # tarfile pads archives to 10,240 bytes. Podman stops reading at the two zero blocks that end an
    # archive, and answers 500 ("broken pipe") if it has not taken over the rest by then.
    return out.getvalue()[:end] + bytes(2 * tarfile.BLOCKSIZE)


def _cache_mount(scope: str, kind: str, target: str) -> dict[str, Any]:
    """The labels are for the moment in which somebody removes the volume under us: the engine would
    make it again, and without them nobody would know whose it is."""
    return {
        "Type": "volume",
        "Source": volume_name(scope, kind),
        "Target": target,
        "VolumeOptions": {"NoCopy": True, "Labels": volume_labels(scope, kind)},
    }


def log_settings(record: dict[str, Any]) -> tuple[str, int, bool]:
    """(driver, bytes of a file, whether it is tagged) of a container's log, as `container_config` asked
    for them.

    For a container that somebody else made, the smallest that a driver chooses by itself.
    """
    settings = record["HostConfig"]["LogConfig"]
    size = (settings["Config"] or {}).get("max-size", "")
    file_size = int(size) if size.isdecimal() else LEAST_LOG_FILE
    return settings["Type"], file_size, Option.TAGGED in (record["Config"].get("Cmd") or ())
