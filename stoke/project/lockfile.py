"""The packages that a project's lockfile pins: uv.lock or pylock.toml.

`uv export` reads uv.lock and checks it against pyproject.toml. Starting uv takes a tenth of a second,
so its answer is stored in the state folder and used as long as nothing that decides it has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from stoke.errors import EngineError, RequestError
from stoke.files.atomic import write_atomically
from stoke.files.paths import make_private, state_dir
from stoke.files.untrusted import read_json
from stoke.project.pyproject import Pyproject, shown
from stoke.request.requirement import canonical_name

if TYPE_CHECKING:
    import subprocess

UV_LOCK, PYLOCK = "uv.lock", "pylock.toml"
_LONGEST = 64 << 20
_EXPORT = (
    "export", "--locked", "--quiet", "--format", "requirements.txt", "--no-header", "--no-annotate",
    "--no-emit-project", "--no-emit-workspace", "--no-emit-local",
)  # fmt: skip
_QUIET = ("--no-progress", "--color", "never")
# Variables for options that exclude --locked.
_OTHER_CHECKS = ("UV_FROZEN", "UV_LOCKED")
_STALE = "needs to be updated"
_NO_PYTHON = "No interpreter found"


class PinnedPackages(NamedTuple):
    """The packages that a lockfile pins."""

    text: str
    """A requirements file with hashes; empty for a lockfile without packages."""
    locked: bool
    """Whether each package has a hash; one from git has none."""
    note: str | None = None
    """For the user."""


def has_uv_lock(root: str) -> bool:
    return os.path.isfile(os.path.join(root, UV_LOCK))


def has_lockfile(root: str) -> bool:
    return has_uv_lock(root) or os.path.isfile(os.path.join(root, PYLOCK))


def export_uv_lock(
    root: str, project: Pyproject, deciding: Iterable[tuple[str, bytes]], options: list[str]
) -> PinnedPackages:
    """Return what uv.lock pins for a project.

    `deciding` has the folder and the content of each pyproject.toml that the lockfile is checked
    against. `RequestError` if it does not match them, with the command that updates it, and if uv
    cannot tell.
    """
    key = _key(root, project, deciding, options)
    stored = _store(root, project, options)
    try:
        known = read_json(stored, _LONGEST)
        if known["key"] == key:
            return PinnedPackages(known["text"], known["locked"], known["note"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    text, note = _export(root, project, options)
    pinned = pinned_packages(_with_indexes(text, os.path.join(root, UV_LOCK)), note)
    try:
        make_private(stored.parent)
        write_atomically(stored, json.dumps({"key": key, **pinned._asdict()}))
    except (OSError, EngineError):
        pass  # The next request asks uv again.
    return pinned


def pinned_packages(text: str, note: str | None = None) -> PinnedPackages:
    """Return the packages of a requirements file."""
    from stoke.request.requirements_text import parse_requirements

    return PinnedPackages(text, parse_requirements(text).is_lock(), note)


def _store(root: str, project: Pyproject, options: list[str]) -> Any:
    name = hashlib.sha256(json.dumps([root, project.folder, options]).encode()).hexdigest()
    return state_dir() / "locks" / f"{name[:32]}.json"


def _key(
    root: str, project: Pyproject, deciding: Iterable[tuple[str, bytes]], options: list[str]
) -> str:
    """Return the hash of everything that decides what uv exports."""
    try:
        with open(os.path.join(root, UV_LOCK), "rb") as file:
            lock = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(
            shown(os.path.join(root, UV_LOCK)), f"cannot be read: {error.strerror}"
        ) from None
    files = sorted((folder, hashlib.sha256(data).hexdigest()) for folder, data in deciding)
    # Indexes in variables and in uv.toml take part in uv's check.
    variables = sorted(pair for pair in os.environ.items() if pair[0].startswith("UV_"))
    settings = _digest_of(os.path.join(root, "uv.toml"))
    wanted = [1, lock, files, project.folder, options, variables, settings]
    return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()


def _digest_of(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _export(root: str, project: Pyproject, options: list[str]) -> tuple[str, str | None]:
    lock = shown(os.path.join(root, UV_LOCK))
    # A lockfile that matches is checked without the network. If it has to be resolved again, or if
    # metadata has to be built, the second call may use it.
    for more in (["--offline"], []):
        done = _run_uv([*_EXPORT, *options, *more], project)
        if done.returncode == 0:
            return done.stdout, None
        if _STALE in done.stderr:
            raise RequestError(
                lock,
                f"does not match {shown(project.file)}",
                f"update it: {uv_command('lock', project)}",
            )
        if _NO_PYTHON in done.stderr:
            frozen = ["--frozen" if word == "--locked" else word for word in _EXPORT]
            done = _run_uv([*frozen, *options], project)
            if done.returncode == 0:
                return done.stdout, (
                    f"{lock} was not compared with {shown(project.file)}: this machine has no Python "
                    "that the project allows"
                )
            break
    why = re.sub(r"\s*\n\s*", "; ", done.stderr.strip().removeprefix("error: "))
    raise RequestError(
        lock,
        f"cannot be used: {why[:1000]}",
        f"see the whole answer: {uv_command('export', project)}",
    )


def uv_command(name: str, project: Pyproject) -> str:
    """Return a command of uv's for a project, as a user in this folder types it."""
    folder = shown(project.folder)
    place = "" if folder == "." else f" --project {shlex.quote(folder)}"
    return f"uv {name}{place}"


def _run_uv(arguments: list[str], project: Pyproject) -> subprocess.CompletedProcess[str]:
    import subprocess

    from uv import find_uv_bin

    return subprocess.run(
        [find_uv_bin(), *arguments, *_QUIET, "--project", project.folder],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=project.folder,
        # Reading a lockfile must not install a Python on this machine, nor skip the check.
        env={
            **{name: value for name, value in os.environ.items() if name not in _OTHER_CHECKS},
            "UV_PYTHON_DOWNLOADS": "never",
        },
    )


def _with_indexes(text: str, lock: str) -> str:
    """Return the exported text with a comment that names the index of each package, as
    `uv pip compile --emit-index-annotation` writes it, if uv.lock has packages of several indexes."""
    from stoke.files.untrusted import parse_toml

    try:
        with open(lock, encoding="utf-8") as file:
            head = file.read(_LONGEST)
    except (OSError, ValueError):
        return text
    if len(set(re.findall(r'(?m)^source = \{ registry = "([^"]+)" \}', head))) < 2:
        return text
    try:
        packages = parse_toml(head)["package"]
        indexes = {
            (canonical_name(one["name"]), one["version"]): one["source"]["registry"]
            for one in packages
            if "registry" in one.get("source", {}) and "version" in one
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return text
    entries = re.split(r"(?m)^(?=[^\s#-])", text)
    return "".join(_annotated(entry, indexes) for entry in entries)


def _annotated(entry: str, indexes: dict[tuple[str, str], str]) -> str:
    pinned = re.match(r"([^\s;=\[]+)(?:\[[^\]]*\])?==([^\s;\\]+)", entry)
    index = pinned and indexes.get((canonical_name(pinned[1]), pinned[2]))
    return f"{entry.rstrip()}\n    # from {index}\n" if index else entry
