"""Names of scopes that are used once."""

from __future__ import annotations

import os
import re

_EPHEMERAL = re.compile(r"ephemeral-[0-9a-f]{8}")


def new_ephemeral_scope() -> str:
    return f"ephemeral-{os.urandom(4).hex()}"


def is_ephemeral(scope: str) -> bool:
    """Whether a scope was made for one race and is deleted with its caches afterwards."""
    return _EPHEMERAL.fullmatch(scope) is not None
