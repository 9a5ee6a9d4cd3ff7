"""The core of stoke: what a job is and what happens to it. Depends on no engine and no screen.

For programs that run jobs: `from stoke import run, submit`. These names are imported when they are
used, because every command imports this module.
"""

from __future__ import annotations

# Each job on this machine imports this module too, and `typing` would add 5 ms to it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from stoke.client.job_handle import JobFailedError, JobHandle, OutputLine
    from stoke.client.job_results import JobResults
    from stoke.client.session import Session, run, submit
    from stoke.client.session_async import run_async, submit_async

__all__ = [
    "JobFailedError",
    "JobHandle",
    "JobResults",
    "OutputLine",
    "Session",
    "run",
    "run_async",
    "submit",
    "submit_async",
]
_MODULES = (
    "stoke.client.job_handle",
    "stoke.client.session",
    "stoke.client.session_async",
    "stoke.client.job_results",
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    for module in _MODULES:
        found = getattr(import_module(module), name, None)
        if found is not None:
            return found
    raise AssertionError(f"{name} is in none of {_MODULES}")
