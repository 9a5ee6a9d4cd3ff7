"""The core of stoke: what a job is and what happens to it. Knows no engine and no screen.

For programs that run jobs: `from stoke import run, submit`. These names are imported when they are
used, because every command imports this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stoke.client import (
        JobFailedError,
        JobHandle,
        OutputLine,
        Session,
        run,
        run_async,
        submit,
        submit_async,
    )

__all__ = [
    "JobFailedError",
    "JobHandle",
    "OutputLine",
    "Session",
    "run",
    "run_async",
    "submit",
    "submit_async",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("stoke.client"), name)
