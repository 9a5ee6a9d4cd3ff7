"""Submit jobs from Python, with the configuration, backends and history that the commands use."""

from __future__ import annotations

import atexit
import threading
from pathlib import Path
from typing import Unpack

from stoke.client.connection import Connection
from stoke.client.job_handle import JobHandle
from stoke.client.request_fields import RequestFields
from stoke.config.defaults import with_defaults
from stoke.history.queue import Placement
from stoke.jobs.prepare import prepare
from stoke.jobs.request import Request
from stoke.jobs.submit import submit as submit_prepared
from stoke.jobs.turns import Turn
from stoke.request.sources import read_code, request_from_options
from stoke.text.sanitize import clean


class Session(Connection):
    """Submits jobs and finds them. Safe to use from several threads.

    `run` and `submit` of the module use one that is made at their first call.
    """

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self,
        code: str | Path = "",
        *,
        backend: str | None = None,
        name: str | None = None,
        **fields: Unpack[RequestFields],
    ) -> JobHandle:
        """Submit a job and return at once. A `Path` is the file that has the code. The job waits in the
        queue if all slots are in use.

        Raises `RequestError` for a wrong field, and `EngineError` if the backend does not take the job.
        """
        return self._submit(code, backend, name, fields, waits=True)

    def _submit(
        self,
        code: str | Path,
        backend: str | None,
        name: str | None,
        fields: RequestFields,
        waits: bool,
    ) -> JobHandle:
        program = None
        if isinstance(code, Path):
            program = code.name
            code = read_code(code)
        spec = with_defaults(request_from_options(code=code, **fields), self.config)
        request = Request.configured(
            spec,
            self.config,
            name=clean(name or "").strip() or (Path(program).stem if program else "job"),
            program=program,
        )
        return self.submit_request(request, backend, waits=waits)

    def submit_request(
        self, request: Request, backend: str | None = None, *, waits: bool = True
    ) -> JobHandle:
        """Submit a request that is complete, and return at once. Raises the errors of `submit`.

        Without `waits`, the job starts even if all slots of the queue are in use.
        """
        turn = Turn(Placement(), self.config) if waits else None
        chosen = self.backends.get(backend or self.config.backend)
        job = submit_prepared(prepare(request, chosen, self.history), self.history, queue=turn)
        return JobHandle(self, job.id)

    def run(
        self,
        code: str | Path = "",
        *,
        backend: str | None = None,
        name: str | None = None,
        check: bool = True,
        **fields: Unpack[RequestFields],
    ) -> JobHandle:
        """Submit a job and wait for its end. With `check`, raise `JobFailedError` unless it
        succeeds."""
        job = self._submit(code, backend, name, fields, waits=False).wait()
        return job.raise_for_state() if check else job

    def job(self, name: str) -> JobHandle:
        """Return a job of the history by its id, or the beginning of it, or its name."""
        return JobHandle(self, self.history.find(name).id)


_lock = threading.Lock()
_shared: list[Session] = []


def shared_session() -> Session:
    """Return the session of the functions of this module; this program's end closes it."""
    with _lock:
        if not _shared:
            _shared.append(Session())
            atexit.register(_shared[0].close)
        return _shared[0]


def submit(
    code: str | Path = "",
    *,
    backend: str | None = None,
    name: str | None = None,
    **fields: Unpack[RequestFields],
) -> JobHandle:
    """Submit a job and return at once: see `Session.submit`."""
    return shared_session().submit(code, backend=backend, name=name, **fields)


def run(
    code: str | Path = "",
    *,
    backend: str | None = None,
    name: str | None = None,
    check: bool = True,
    **fields: Unpack[RequestFields],
) -> JobHandle:
    """Submit a job and wait for its end: see `Session.run`."""
    return shared_session().run(code, backend=backend, name=name, check=check, **fields)
