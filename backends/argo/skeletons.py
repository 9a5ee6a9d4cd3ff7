"""Workflows without the values of their job, kept on this machine.

Importing hera takes half a second of processor time, far more than the rest of a submission. What hera
builds is the same for all jobs with the same settings, so it is built once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stoke.errors import EngineError
from stoke.files.atomic import write_atomically
from stoke.files.paths import cache_dir, make_private
from stoke.files.untrusted import read_json

Object = dict[str, Any]
MOST = 100
"""Skeletons that are kept; beyond that the oldest are removed."""


def skeleton(shape: object, build: Callable[[], Object]) -> Object:
    """Return what `build` returns for this shape, from an earlier call if there was one."""
    try:
        file = make_private(cache_dir() / "workflows") / f"{_key(shape)}.json"
    except (OSError, EngineError):
        return build()
    with suppress(OSError, ValueError):
        kept = read_json(file)
        if isinstance(kept, dict):
            return kept
    made = build()
    with suppress(OSError):
        write_atomically(file, json.dumps(made))
        _drop_oldest(file.parent)
    return made


def _key(shape: object) -> str:
    """Return a key that changes with the shape, with hera and with our own use of it."""
    hera = find_spec("hera")
    sources = [hera.origin if hera else None, *map(str, Path(__file__).parent.glob("*.py"))]
    versions = sorted((path, os.stat(path).st_mtime_ns) for path in sources if path)
    return hashlib.sha256(json.dumps([shape, versions]).encode()).hexdigest()


def _drop_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda one: one.stat().st_mtime_ns)
    for file in files[:-MOST]:
        file.unlink(missing_ok=True)
