"""The package index that uv uses when a request names none."""

from __future__ import annotations

import os

from stoke.errors import EngineError
from stoke.files.atomic import write_atomically
from stoke.files.paths import NotOursError, cache_dir, check_owner, is_open_to_others, make_private


def default_index() -> str | None:
    """Return the index that uv uses by default. uv prints it; the answer is cached in a file."""
    known = cache_dir() / "default-index"
    try:
        if not is_open_to_others(known.parent):
            check_owner(known)
            return known.read_text() or None
    except (OSError, NotOursError):
        pass
    import subprocess

    from uv import find_uv_bin

    command = [find_uv_bin(), "pip", "compile", "--quiet", "--no-config", "--no-cache", "--offline"]
    asked = subprocess.run(
        [*command, "--no-header", "--emit-index-url", "-"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={"PATH": os.environ.get("PATH", os.defpath)},
    )
    url = asked.stdout.strip().removeprefix("--index-url ")
    if not url.startswith("http"):
        return None
    try:
        make_private(known.parent)
        write_atomically(known, url)
    except (OSError, EngineError):
        pass  # The next call asks uv again.
    return url
