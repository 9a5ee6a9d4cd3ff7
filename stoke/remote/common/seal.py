"""Recognize a text file on a cache volume that a crash of the machine, or a job, cut short.

A cut lockfile would be a valid one with fewer packages, and would stay in use until it expires.
"""

from __future__ import annotations

_SEAL = "# complete, sha256 "


def sealed(text: str) -> str:
    """Return the text with a last line that holds its hash."""
    return text + _SEAL + _digest(text) + "\n"


def unsealed(text: str | None) -> str | None:
    """Return what `sealed` was given; None if the text is not what it returned."""
    body, _, digest = (text or "").rpartition(_SEAL)
    return body if digest == _digest(body) + "\n" else None


def _digest(text: str) -> str:
    import hashlib  # loads OpenSSL, which a job without packages does not need

    return hashlib.sha256(text.encode()).hexdigest()
