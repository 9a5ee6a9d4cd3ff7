"""Run jobs from Python: `from stoke import run, submit`. No server is needed."""

from __future__ import annotations

from stoke.client.job_handle import JobFailedError, JobHandle, OutputLine
from stoke.client.session import Session, run, submit
from stoke.client.session_async import run_async, submit_async

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
