"""Times as text for programs."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(then: float | None) -> str | None:
    """Return an epoch time in RFC 3339, in UTC and with milliseconds."""
    if then is None:
        return None
    return (
        datetime.fromtimestamp(then, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
