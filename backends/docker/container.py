"""A job as the engine sees it: the container's configuration and the files copied into it.

Pure functions. The configuration holds no user text: code, arguments, environment and secrets are
inside the payload.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backends.common.names import CACHE, MOUNT_POINTS, NIX
from backends.docker.names import (
    housekeeping_labels,
    job_labels,
    volume_labels,
    volume_name,
    workspace_labels,
    workspace_volume,
)
from stoke.backend.api import Delivery, Volume
from stoke.config.model import Config
from stoke.delivery.bind_mounts import BindMount, resolve_mounts
from stoke.errors import EngineError
from stoke.remote.command import runner_arguments
from stoke.remote.protocol import RESULTS_MOUNT, JobFolder, RunnerOption
from stoke.request.mounts import MOUNT_ROOT
from stoke.request.workspace_name import WORKSPACE

FOLDER = "/stoke"
SPEC = "spec.json"
PACK = "pack"
INPUTS = "inputs"
CHUNK = 1024**2
END_OF_ARCHIVE = bytes(2 * tarfile.BLOCKSIZE)
HOUSEKEEPING = "housekeeping.py"
# Keeps exact bytes; json-file replaces bytes that are not UTF-8 by U+FFFD.
LOG_DRIVER = "local"
# For engines without it: Podman's own driver, which is exact too, and Docker's oldest, which is
# not.
PODMAN_LOG_DRIVER = "k8s-file"
FALLBACK_LOG_DRIVERS = (PODMAN_LOG_DRIVER, "json-file")
# The engine drops whole files, so with two of them at least `log.max_size` bytes are always kept.
LOG_FILES = 2
LEAST_LOG_FILE = 20_000_000
# The size of /dev/shm for a job without a memory limit. With Docker's default of 64 MiB, PyTorch's
# data loaders end with a bus error. It is an upper bound and takes no memory until it is written
# to.
SHM_SIZE = 8 * 1024**3


def container_config(
    delivery: Delivery, config: Config, image: str, log_driver: str = LOG_DRIVER
) -> dict[str, Any]:
    """Return the body of the engine's `POST /containers/create`."""
    spec = delivery.spec
    flags = [RunnerOption.OWN_FILES, RunnerOption.KEEP_COPY]
    if log_driver != PODMAN_LOG_DRIVER:
        # Docker reads the two pipes separately, so it may store their lines in another order, and
        # it keeps a line until it ends. Podman does neither.
        flags.append(RunnerOption.TAGGED)
    mounts = []
    if spec.use_cache:
        mounts.append(_cache_mount(spec.scope, "python", CACHE))
    # An anonymous volume, removed with the container. Files copied onto a volume exist before the
    # start, and also if the root file system is read-only.
    volumes: dict[str, dict[str, str]] = {FOLDER: {}}
    if spec.system:
        flags.append(RunnerOption.NIX)
        if spec.use_cache:
            mounts.append(_cache_mount(spec.scope, "system", NIX))
        else:
            volumes[NIX] = {}
    if has_own_network(config):
        flags.append(RunnerOption.CONTAINER)
    if spec.workspace is not None:
        mounts.append(workspace_mount(spec.workspace, spec.scope))
    binds = resolve_mounts(spec, config)
    mounts += [_bind_mount(bind) for bind in binds]
    command = runner_arguments(
        f"{FOLDER}/payload",
        work=f"{FOLDER}/{JobFolder.WORK}",
        cache=CACHE if spec.use_cache else None,
        pack=f"{FOLDER}/{PACK}" if delivery.project and delivery.project.pack else None,
        workspace=WORKSPACE if spec.workspace is not None else None,
        results=RESULTS_MOUNT,
        inputs=f"{FOLDER}/{INPUTS}" if delivery.inputs else None,
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
        # The runner is the first process and reaps orphans; the engine's init would hide it.
        "Init": False,
        "Privileged": False,
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no"},
    }
    if binds:
        # Files of this machine belong to other users than the container's root, who may read them only
        # with this capability, as in `docker run`.
        host["CapAdd"] = ["DAC_OVERRIDE"]
    if spec.memory is not None:
        # Equal values forbid swap, so that the limit is exact.
        host |= {"Memory": spec.memory, "MemorySwap": spec.memory}
    host["ShmSize"] = spec.shm_size or spec.memory or SHM_SIZE
    if spec.cpu is not None:
        host["NanoCpus"] = round(spec.cpu * 1e9)
    if spec.gpu is not None:
        # As `docker run --gpus N`.
        host["DeviceRequests"] = [{"Driver": "", "Count": spec.gpu, "Capabilities": [["gpu"]]}]
    if config.docker.network is not None:
        host["NetworkMode"] = config.docker.network
    return {
        "Image": image,
        "Entrypoint": ["python3", "-I", "-S", f"{FOLDER}/runner.py"],
        "Cmd": command,
        "User": "0:0",
        "WorkingDir": "/",
        # Overrides the image's settings.
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": spec.labels | job_labels(delivery.job_id, spec.scope, delivery.nonce),
        "Volumes": volumes,
        "Tty": False,
        "OpenStdin": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "HostConfig": host,
        **({"Env": [f"{MOUNT_ROOT}=/"]} if binds else {}),
    }


def _log_options(max_size: int, log_driver: str) -> dict[str, str]:
    if log_driver == PODMAN_LOG_DRIVER:
        # Podman keeps one file and drops all of it when it is full, so that file gets the whole
        # size.
        return {"max-size": str(LOG_FILES * max_size)}
    return {"max-size": str(max_size), "max-file": str(LOG_FILES)}


def has_own_network(config: Config) -> bool:
    """Whether the bytes that a container receives can be told from those of other containers."""
    network = config.docker.network or ""
    return network != "host" and not network.startswith("container:")


def housekeeping_config(
    volume: Volume, operation: Mapping[str, object], config: Config, image: str
) -> dict[str, Any]:
    """Return the same for a container that measures, prunes or clears a volume.

    It needs no network. The engine removes it at its end, also if this program was killed.
    """
    target = MOUNT_POINTS[volume.kind]
    mounts = [_cache_mount(volume.scope, volume.kind, target)]
    arguments = [f"{FOLDER}/{HOUSEKEEPING}", target, json.dumps(operation)]
    labels = housekeeping_labels(volume.scope)
    body = helper_config(arguments, mounts, labels, config, image)
    body["HostConfig"]["AutoRemove"] = True
    return body


def helper_config(
    arguments: list[str],
    mounts: list[dict[str, Any]],
    labels: dict[str, str],
    config: Config,
    image: str,
) -> dict[str, Any]:
    """Return the body of `POST /containers/create` for a program of stoke's own, which needs no
    network."""
    return {
        "Image": image,
        "Entrypoint": ["python3", "-I", "-S", arguments[0]],
        "Cmd": arguments[1:],
        "User": "0:0",
        "WorkingDir": "/",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": labels,
        "Volumes": {FOLDER: {}},
        "Tty": False,
        "OpenStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "Mounts": mounts,
            "LogConfig": {"Type": "none"},
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": config.docker.pids_limit,
            "Init": False,
            "Privileged": False,
            "AutoRemove": False,
            "RestartPolicy": {"Name": "no"},
        },
    }


class DeliveryArchive:
    """The tar that is unpacked into `/stoke` before the start. Only root can read its files.

    It is iterated once, because a pack and inputs are too long to be read at once. It has a length,
    because Podman closes the connection after the archive, before the end of a body sent in chunks.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._files = archive_of(
            {
                "runner.py": delivery.runner,
                "payload": delivery.payload,
                SPEC: delivery.public_spec,
            }
        )
        pack = delivery.project.pack if delivery.project else None
        long = {PACK: pack, INPUTS: delivery.inputs}
        self._long = {
            name: (path, path.stat().st_size) for name, path in long.items() if path is not None
        }

    def __len__(self) -> int:
        blocks = sum(1 + -(-size // tarfile.BLOCKSIZE) for _, size in self._long.values())
        return len(self._files) + blocks * tarfile.BLOCKSIZE

    def __iter__(self) -> Iterator[bytes]:
        yield self._files[: -len(END_OF_ARCHIVE)]
        for name, (path, size) in self._long.items():
            yield from _archived(name, path, size)
        yield END_OF_ARCHIVE


def _archived(name: str, path: Path, size: int) -> Iterator[bytes]:
    """Yield a file as it is in a tar archive."""
    entry = tarfile.TarInfo(name)
    entry.size = left = size
    entry.mode = 0o600
    yield entry.tobuf()
    with path.open("rb") as file:
        while left:
            piece = file.read(min(left, CHUNK))
            if not piece:
                raise EngineError(f"{path} became shorter while it was sent")
            left -= len(piece)
            yield piece
    yield bytes(-size % tarfile.BLOCKSIZE)


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
    # archive, and answers 500 ("broken pipe") if the rest is still on its way by then.
    return out.getvalue()[:end] + END_OF_ARCHIVE


def _cache_mount(scope: str, kind: str, target: str) -> dict[str, Any]:
    """Return the mount of a cache volume.

    If the volume is removed just before the start, the engine creates it again, and the labels
    given here show that it is ours.
    """
    return {
        "Type": "volume",
        "Source": volume_name(scope, kind),
        "Target": target,
        "VolumeOptions": {"NoCopy": True, "Labels": volume_labels(scope, kind)},
    }


def workspace_mount(name: str, scope: str, target: str = WORKSPACE) -> dict[str, Any]:
    """Return the mount of a workspace's volume, made as `_cache_mount` says."""
    return {
        "Type": "volume",
        "Source": workspace_volume(name),
        "Target": target,
        "VolumeOptions": {"NoCopy": True, "Labels": workspace_labels(name, scope)},
    }


def _bind_mount(bind: BindMount) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": bind.source,
        "Target": bind.target,
        "ReadOnly": not bind.writable,
        "BindOptions": {"Propagation": "rprivate"},
    }


def log_settings(record: dict[str, Any]) -> tuple[str, int, bool]:
    """Return the driver, the bytes of a file and whether lines are marked, for a container's log.

    For a container that stoke did not create, the smallest size that a driver chooses on its own.
    """
    settings = record["HostConfig"]["LogConfig"]
    driver: str = settings["Type"]
    size = settings.get("Config", {}).get("max-size", "")
    file_size = int(size) if re.fullmatch("[0-9]{1,18}", size) else LEAST_LOG_FILE
    return driver, file_size, RunnerOption.TAGGED in (record["Config"].get("Cmd") or ())
