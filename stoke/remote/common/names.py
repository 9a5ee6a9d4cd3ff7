"""Names of packages."""

from __future__ import annotations

import re


def canonical(package: str) -> str:
    """Return the canonical name (PEP 503) at the start of a requirement."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;@(]", package, maxsplit=1)[0]).lower()
