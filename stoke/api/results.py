"""The results of a job over HTTP: their list, one file, or all of them as a tar archive."""

from __future__ import annotations

import os
import tarfile
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from starlette.responses import Response

from stoke.api.errors import ProblemError
from stoke.api.json_answer import JsonAnswer
from stoke.api.operation import Answer, Call, Operation
from stoke.api.schemas import RESULTS, RESULTS_EXAMPLE
from stoke.api.streaming import BYTES, stream
from stoke.jobs.fetch_results import fetch_results
from stoke.results.store import results_folder

if TYPE_CHECKING:
    from stoke.api.server_state import Api
    from stoke.history.job import Job
    from stoke.results.collect import Collected, ResultFile

TAR = "application/x-tar"
_PIECE = 256 * 1024


async def _collected(call: Call) -> tuple[Job, Collected]:
    api = call.api
    job = await api.job(call.job_id, call.caller)
    (job,) = await api.fresh([job]) or [job]
    if not job.state.finished or job.provisional:
        raise ProblemError(
            409,
            f"{job.id} is {job.state}, and results are collected at its end",
            headers={"Retry-After": "1"},
        )

    def work() -> Collected:
        return fetch_results(job, api.connection.backend_of, api.history, lambda _: None)

    return job, await api.ask(work)


async def list_results(call: Call) -> Response:
    job, found = await _collected(call)
    files: list[dict[str, Any]] = [
        {
            "path": file.path,
            "bytes": file.size,
            "sha256": file.sha256,
            "href": f"/api/v1/tasks/{quote(job.id)}/results/files/"
            + quote_from_bytes(os.fsencode(file.path)),
        }
        for file in found.files
    ]
    return JsonAnswer(
        {
            "job": job.id,
            "bytes": found.bytes,
            "files": files,
            "refused": [{"path": path, "why": why} for path, why in found.refused],
            "refused_count": found.refused_count,
        }
    )


async def read_result(call: Call) -> Response:
    job, found = await _collected(call)
    # As bytes, because a name need not be UTF-8. Only a name of the list is opened.
    raw = bytes(call.request.scope["raw_path"]).partition(b"/results/files/")[2]
    wanted = os.fsdecode(unquote_to_bytes(raw))
    file = next((one for one in found.files if one.path == wanted), None)
    if file is None:
        raise ProblemError(404, f"is not among the {len(found.files):,} results", field="path")
    descriptor = await call.api.read(lambda: _open(job, file))
    name = quote_from_bytes(os.fsencode(file.path.rpartition("/")[2]), safe="")
    headers = {
        "Content-Type": BYTES,
        "Content-Length": str(file.size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "ETag": f'"{file.sha256}"',
    }
    return stream(call.api, _file(call.api, descriptor, file.size), headers)


async def read_archive(call: Call) -> Response:
    job, found = await _collected(call)
    headers = {
        "Content-Type": TAR,
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(job.id, safe='')}.tar",
    }
    return stream(call.api, _archive(call.api, job, found), headers)


def _open(job: Job, file: ResultFile) -> int:
    """Open a result. Only stoke writes to its folder, so no part of its path but the last can be a
    link."""
    path = os.path.join(os.fsencode(results_folder(job.id)), os.fsencode(file.path))
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ProblemError(404, f"the result was removed: {error.strerror}", field="path") from None


async def _file(api: Api, descriptor: int, size: int) -> AsyncIterator[bytes]:
    try:
        left = size
        while left and (
            piece := await api.read(lambda: os.read(descriptor, min(left, _PIECE)))  # noqa: B023
        ):
            left -= len(piece)
            yield piece
        if left:
            raise OSError("a result has become shorter while it was sent")
    finally:
        os.close(descriptor)


async def _archive(api: Api, job: Job, found: Collected) -> AsyncIterator[bytes]:
    for file in found.files:
        descriptor = await api.read(lambda file=file: _open(job, file))  # type: ignore[misc]
        status = os.fstat(descriptor)
        info = tarfile.TarInfo(file.path)
        info.size = file.size
        info.mtime = int(status.st_mtime)
        info.mode = status.st_mode & 0o777
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        async for piece in _file(api, descriptor, file.size):
            yield piece
        yield bytes(-file.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


_BINARY = {"type": "string", "format": "binary"}
OPERATIONS = (
    Operation(
        "GET",
        "/api/v1/tasks/{id}/results",
        "listResults",
        "List what a finished job left behind.",
        "read",
        list_results,
        (Answer(200, "The files.", schema=RESULTS, example=RESULTS_EXAMPLE),),
    ),
    Operation(
        "GET",
        "/api/v1/tasks/{id}/results/archive",
        "readArchive",
        "Read all results of a job as one tar archive.",
        "read",
        read_archive,
        (Answer(200, "The archive.", TAR, _BINARY),),
    ),
    Operation(
        "GET",
        "/api/v1/tasks/{id}/results/files/{path}",
        "readResult",
        "Read one result of a job.",
        "read",
        read_result,
        (Answer(200, "The file.", BYTES, _BINARY),),
    ),
)
