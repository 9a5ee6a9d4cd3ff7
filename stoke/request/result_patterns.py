"""Patterns of files that are results; `stoke.remote.runner.results` matches them inside the job."""

from __future__ import annotations

import re

MOST = 100
_LONGEST = 1000


def check_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the patterns. `ValueError` for one that could match nothing, or something outside."""
    if not patterns:
        return patterns
    from stoke.remote.runner.results import matcher

    if len(patterns) > MOST:
        raise ValueError(f"names {len(patterns)} patterns; {MOST} is the most")
    for pattern in patterns:
        names = pattern.split("/")
        if not pattern.strip("/. "):
            raise ValueError(f"{pattern!r} names no file; write out/*.csv")
        if len(pattern) > _LONGEST:
            raise ValueError(f"{pattern[:60]!r}... is longer than {_LONGEST} characters")
        if pattern.startswith(("/", "~")) or ".." in names:
            raise ValueError(
                f"{pattern!r} leads out of the working directory; write the path inside it, or copy "
                "the file to $STOKE_RESULTS in the code"
            )
        try:
            matcher([pattern])
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a pattern: {error.msg}") from None
    return patterns
