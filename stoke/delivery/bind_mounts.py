"""Check the sources of mounts on the machine that submits a job, and resolve them."""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.files.paths import cache_dir, current_folder, state_dir
from stoke.request.mounts import parse_mount
from stoke.request.spec import JobSpec

_FIELD = "mounts"
_SYSTEM = ("/proc", "/sys", "/dev")
_SOCKETS = (
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
)
_MOST_ENTRIES = 10_000

Identity = tuple[int, int]
"""Device and inode: the same for every name of a file or folder."""


@dataclass(frozen=True)
class BindMount:
    """A file or folder of this machine that a job sees."""

    source: str
    """The path without links."""
    target: str
    writable: bool


def resolve_mounts(spec: JobSpec, config: Config) -> list[BindMount]:
    """Return the mounts of a request for a backend whose jobs see this machine's files.

    `RequestError` for a source that is missing, outside of the allowed folders once its links are
    resolved, or one that would hand over more than its files: a socket, a device, /proc, what stoke
    itself stores, or a folder that holds the socket of a container engine.
    """
    binds = []
    for text in spec.mounts:
        mount = parse_mount(text)
        if mount.is_claim:
            raise RequestError(
                _FIELD,
                f"claim:{mount.source} is a claim of a cluster, which this backend does not have",
                "mount a folder, or choose the cluster: -b argo",
            )
        source = _real_path(mount.source)
        _check_kind(source)
        _check_protected(source, config)
        _check_roots(mount.source, source, config)
        binds.append(BindMount(source, mount.target, mount.writable))
    return binds


def _real_path(source: str) -> str:
    try:
        return os.path.realpath(source, strict=True)
    except OSError as error:
        raise RequestError(_FIELD, f"{source} cannot be mounted: {error.strerror}") from None


def _check_kind(source: str) -> None:
    mode = os.stat(source).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kinds = {stat.S_IFSOCK: "a socket", stat.S_IFIFO: "a named pipe"}
        what = kinds.get(stat.S_IFMT(mode), "a device")
        raise RequestError(_FIELD, f"{source} is {what}; only files and folders can be mounted")


def _check_protected(source: str, config: Config) -> None:
    """Compare by device and inode: the same folder may be mounted under another name."""
    inside = {_identity(path) for path in (source, *_parents(source))}
    itself = _identity(source)
    for path in (*_SYSTEM, str(state_dir()), str(cache_dir())):
        holds = itself in _with_parents(path)
        if holds or _identity(path) in inside - {None}:
            what = "the system" if path in _SYSTEM else "stoke"
            where = "holds" if holds else "is in"
            raise RequestError(
                _FIELD,
                f"{source} {where} {path}, which belongs to {what}",
                "mount a folder in it" if holds and path not in _SYSTEM else None,
            )
    sockets = [path for path in _sockets(config) if _is_socket(path)]
    for path in sockets:
        if itself in _with_parents(path):
            raise _socket_error(source, path)
    if sockets and os.path.isdir(source):
        _check_entries(source, {_identity(path): path for path in sockets})


def _check_entries(source: str, sockets: dict[Identity | None, str]) -> None:
    """Refuse a folder that has the socket directly in it, by another name."""
    try:
        with os.scandir(source) as entries:
            for number, entry in enumerate(entries):
                if number >= _MOST_ENTRIES:
                    return
                # The folder has the types: nothing else needs a look at the entry itself.
                if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
                    continue
                path = sockets.get(_identity(entry.path))
                if path is not None:
                    raise _socket_error(source, path)
    except OSError as error:
        raise RequestError(_FIELD, f"{source} cannot be read: {error.strerror}") from None


def _socket_error(source: str, path: str) -> RequestError:
    return RequestError(
        _FIELD, f"{source} holds {path}, with which a job could run any container on this machine"
    )


def _check_roots(given: str, source: str, config: Config) -> None:
    roots = _roots(config)
    if any(Path(source).is_relative_to(root) for root in roots):
        return
    link = f" (a link to {source})" if source != os.path.abspath(given) else ""
    allowed = json.dumps([*roots, source])
    raise RequestError(
        _FIELD,
        f"{given}{link} is outside of the folders that may be mounted: {', '.join(roots)}",
        f"allow it with mounts.roots in config.toml, or: "
        f"export STOKE_MOUNTS__ROOTS={shlex.quote(allowed)}",
    )


def _roots(config: Config) -> list[str]:
    """Return the folders below which sources may be, without links. By default / is never one."""
    configured = config.mounts.roots
    if configured is not None:
        return [os.path.realpath(os.path.expanduser(root)) for root in configured]
    found = [os.path.realpath(path) for path in (Path.home(), current_folder())]
    return [root for root in dict.fromkeys(found) if root != "/"]


def _sockets(config: Config) -> Iterable[str]:
    yield from _SOCKETS
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        yield os.path.join(runtime, "docker.sock")
        yield os.path.join(runtime, "podman", "podman.sock")
    for address in (config.docker.host, os.environ.get("DOCKER_HOST")):
        if address and address.startswith("unix://"):
            yield address.removeprefix("unix://")


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in Path(path).parents]


def _with_parents(path: str) -> set[Identity | None]:
    real = os.path.realpath(path)
    return {_identity(one) for one in (real, *_parents(real))} - {None}


def _identity(path: str) -> Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
