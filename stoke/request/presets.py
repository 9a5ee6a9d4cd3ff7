"""Presets: requests as JSON files, as `stoke submit` reads them, in `presets/` beside config.toml.

The file's name is the name of the preset and of its jobs. No preset holds a secret, so the files can be
shared.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoke.errors import EngineError, RequestError, StokeError
from stoke.files.atomic import write_atomically
from stoke.files.paths import config_file
from stoke.request.sources import MAX_REQUEST, request_from_json
from stoke.request.spec import JobSpec
from stoke.text.sanitize import looks_secret

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,79}")


@dataclass(frozen=True)
class Preset:
    """One file, with its request or the error that says why it cannot be used."""

    path: Path
    spec: JobSpec | None = None
    error: StokeError | None = None

    @property
    def name(self) -> str:
        return self.path.stem


def folder() -> Path:
    return config_file().parent / "presets"


def found() -> list[Preset]:
    """Return all presets by name, unreadable ones with their error."""
    try:
        paths = sorted(folder().glob("*.json"))
    except OSError:
        return []
    return [_load(path) for path in paths]


def _load(path: Path) -> Preset:
    try:
        return Preset(path, spec=read(path))
    except StokeError as error:
        return Preset(path, error=error)


def read(path: Path) -> JobSpec:
    """Return the request in a file. `RequestError` names the file and what is wrong in it."""
    try:
        if not path.is_file():
            raise RequestError(str(path), "is not a file")
        with path.open("rb") as file:
            return request_from_json(file.read(MAX_REQUEST + 1), str(path))
    except OSError as error:
        raise RequestError(str(path), f"cannot be read: {error.strerror}") from None


def path_of(name: str) -> Path:
    """Return the file for a preset of that name. `RequestError` for a name that cannot be one."""
    name = name.strip().removesuffix(".json")
    if not _NAME.fullmatch(name):
        raise RequestError(
            "name", f"{name[:80]!r} is not a name; use letters, digits, blanks and . _ -"
        )
    return folder() / f"{name}.json"


def save(path: Path, text: str) -> None:
    """Write a preset that only its owner can read. Raises `EngineError` if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, text)
    except OSError as error:
        raise EngineError(
            f"cannot save the preset {path}: {error.strerror}",
            "make room there, or name another configuration: export STOKE_CONFIG=/some/config.toml",
        ) from error


def as_json(spec: JobSpec) -> tuple[str, list[str]]:
    """Return (the text of a preset, the variables that it has by reference only).

    It holds only what the request sets. A variable whose name looks secret becomes a secret, which is
    read from the variable of that name on the machine that uses the file.
    """
    fields: dict[str, Any] = spec.model_dump(mode="json", exclude_unset=True)
    hidden = [name for name in spec.env if looks_secret(name)]
    if hidden:
        fields["env"] = {name: text for name, text in spec.env.items() if name not in hidden}
        fields["secrets"] = {**spec.secrets, **{name: f"env:{name}" for name in hidden}}
    fields = {name: value for name, value in fields.items() if value not in (None, "", [], {})}
    return json.dumps(fields, indent=2, ensure_ascii=False) + "\n", hidden
