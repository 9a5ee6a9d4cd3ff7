"""What is recorded about an environment when it is built, and checked before each use."""

from __future__ import annotations

import os

from stoke.remote.protocol import METADATA
from stoke.remote.runner.files import digest, read_json
from stoke.remote.runner.python_setup import site_packages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def contents_digest(environment: str) -> str:
    """Return a digest that changes when packages are installed into an environment or removed.

    It reads one folder, so it costs a warm job next to nothing, and misses edits inside a package.
    """
    found = []
    with os.scandir(site_packages(environment)) as entries:
        for entry in entries:
            if entry.name != "__pycache__":
                is_record = entry.name.endswith(".dist-info")
                found.append((entry.name, entry.stat().st_mtime_ns if is_record else 0))
    return digest(sorted(found))


def read_metadata(folder: str) -> dict[str, Any] | None:
    """Return the metadata of an environment; None if it or its interpreter is damaged or changed."""
    metadata = read_json(os.path.join(folder, METADATA))
    if not isinstance(metadata, dict) or not isinstance(metadata.get("packages"), list):
        return None
    try:
        os.stat(os.path.join(folder, "bin", "python"))
        # Environments of older versions have no digest.
        changed = metadata.get("holds") not in (None, contents_digest(folder))
    except (OSError, ValueError, LookupError):
        return None
    return None if changed else metadata
