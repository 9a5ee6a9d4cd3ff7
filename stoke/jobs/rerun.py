"""Make a request that runs an earlier job again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stoke.errors import EngineError, RequestError
from stoke.jobs.request import Request
from stoke.request.stored import read_stored_spec

if TYPE_CHECKING:
    from stoke.config.model import Config
    from stoke.history.database import History
    from stoke.history.job import Job
    from stoke.request.spec import JobSpec


def spec_of(job: Job, history: History) -> JobSpec:
    """Return the request of a job. `EngineError` if its record is missing or damaged."""
    try:
        return read_stored_spec(history.spec(job.id))
    except RequestError as error:
        raise EngineError(f"the request of {job.id} {error.why}") from None


def rerun_request(
    earlier: Job, spec: JobSpec, config: Config, *, upgrade: bool = False, **of_project: Any
) -> Request:
    """Return a request for `spec`, which is that of an earlier job or a change of it."""
    return Request.configured(
        spec,
        config,
        name=earlier.name,
        upgrade=upgrade,
        checkpoint=earlier.checkpoint,
        **of_project,
    )
