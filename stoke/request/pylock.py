"""Lockfiles as PEP 751 has them (pylock.toml), as the text of a requirements file with hashes."""

from __future__ import annotations

import os
from typing import Any

from stoke.errors import RequestError
from stoke.files.untrusted import TooMuchError, parse_toml

_DIGESTS = ("sha256", "sha384", "sha512")


def requirements_of(text: str, where: str, root: str | None = None) -> str:
    """Return a line for each package, with its marker and the hashes of all its files.

    Markers travel as they are. An index other than the public one becomes an extra index: the hashes
    decide which files are taken. Folders inside `root`, the absolute path of the project that the
    lockfile is of, are left out: they travel as source. `RequestError` for what a requirements file
    cannot say (other folders, files, extras and dependency groups in markers) and for a version that
    is not 1.
    """
    try:
        document = parse_toml(text)
    except TooMuchError as error:
        raise RequestError(where, str(error)) from None
    except ValueError as error:
        raise RequestError(where, f"is not TOML: {error}") from None
    version = document.get("lock-version")
    if not isinstance(version, str) or version.partition(".")[0] != "1":
        raise RequestError(where, f"has the lock-version {version!r}; 1.0 is the one known here")
    packages = document.get("packages", [])
    if not isinstance(packages, list) or not all(isinstance(one, dict) for one in packages):
        raise RequestError(where, "has no list of packages")
    packages = [one for one in packages if not (root and _is_in(one.get("directory"), root))]
    indexes = {
        one["index"].rstrip("/"): None for one in packages if isinstance(one.get("index"), str)
    }
    from stoke.request.default_index import default_index

    public = default_index()
    if not all(map(str.isprintable, indexes)):
        raise RequestError(where, "has an index that holds a line break or an invisible character")
    lines = [f"--extra-index-url {index}" for index in indexes if index != public]
    try:
        lines += [_entry(package, where) for package in packages]
    except (AttributeError, KeyError, TypeError) as error:
        raise RequestError(where, f"is not as PEP 751 describes it: {error!r}") from None
    return "".join(f"{line}\n" for line in lines)


def _is_in(directory: Any, root: str) -> bool:
    path = directory.get("path") if isinstance(directory, dict) else None
    if not isinstance(path, str):
        return False
    path = os.path.realpath(os.path.join(root, path))
    return os.path.commonpath([path, os.path.realpath(root)]) == os.path.realpath(root)


def _entry(package: dict[str, Any], where: str) -> str:
    name = package.get("name")
    if not isinstance(name, str):
        raise RequestError(where, "has a package without a name")
    files: list[dict[str, Any]] = []
    if "directory" in package:
        raise RequestError(
            where, f"{name} is a folder, which does not travel to where the job runs"
        )
    if vcs := package.get("vcs"):
        text = f"{name} @ {vcs['type']}+{_address(vcs, name, where)}@{vcs['commit-id']}"
        if folder := vcs.get("subdirectory"):
            text += f"#subdirectory={folder}"
    elif archive := package.get("archive"):
        text = f"{name} @ {_address(archive, name, where)}"
        if folder := archive.get("subdirectory"):
            text += f"#subdirectory={folder}"
        files = [archive]
    elif "version" in package:
        text = f"{name}=={package['version']}"
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
    else:
        raise RequestError(
            where, f"{name} has neither a version nor a source, so the file is not complete",
            "lock the requirements again, FILE being a pyproject.toml or a list of requirements: "
            "uv pip compile --generate-hashes --output-file requirements.lock FILE",
        )  # fmt: skip
    if marker := package.get("marker"):
        if any(word in marker for word in ("extras", "dependency_groups")):
            raise RequestError(
                where, f"{name} belongs to an extra or a dependency group",
                "lock what is wanted: uv export --format requirements.txt --extra NAME "
                "--output-file requirements.lock",
            )  # fmt: skip
        text += f" ; {marker}"
    hashes = {
        f"{algorithm}:{digest}": None
        for file in files
        for algorithm, digest in file["hashes"].items()
        if algorithm in _DIGESTS
    }
    pieces = [text, *(f"--hash={value}" for value in hashes)]
    if not all(map(str.isprintable, pieces)):
        raise RequestError(
            where, f"{name[:200]!r} holds a line break or another invisible character"
        )
    return " \\\n    ".join(pieces)


def _address(source: dict[str, Any], name: str, where: str) -> str:
    url = source.get("url")
    if not isinstance(url, str):
        raise RequestError(where, f"{name} is a local file, which does not travel")
    return url
