"""The same for programs that use asyncio. The work is done on threads, so the event loop continues."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Unpack

from stoke.client.job_handle import JobHandle
from stoke.client.request_fields import RequestFields
from stoke.client.session import shared_session


async def submit_async(
    code: str | Path = "",
    *,
    backend: str | None = None,
    name: str | None = None,
    **fields: Unpack[RequestFields],
) -> JobHandle:
    """Submit a job: see `Session.submit`."""
    session = await asyncio.to_thread(shared_session)
    return await asyncio.to_thread(session.submit, code, backend=backend, name=name, **fields)


async def run_async(
    code: str | Path = "",
    *,
    backend: str | None = None,
    name: str | None = None,
    check: bool = True,
    **fields: Unpack[RequestFields],
) -> JobHandle:
    """Submit a job and wait for its end. If the task is cancelled, the job is stopped."""
    submission = asyncio.ensure_future(submit_async(code, backend=backend, name=name, **fields))
    try:
        job = await asyncio.shield(submission)
        while True:
            try:
                await asyncio.to_thread(job.wait, 1.0)
                break
            except TimeoutError:
                continue
    except asyncio.CancelledError:
        # Also while it is submitted, which a thread does to its end.
        job = await submission
        await asyncio.to_thread(job.stop)
        raise
    return job.raise_for_state() if check else job
