"""The results of the jobs that this one follows, in a folder that its code can read."""

from __future__ import annotations

import json
import os

from stoke.remote.protocol import JobFolder
from stoke.remote.runner.errors import StoppedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from stoke.remote.runner.job import RemoteJob

READABLE = 0o555
_PIECE = 1024**2
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def unpack_inputs(job: RemoteJob, packed: str) -> str:
    """Unpack the file that `stoke.jobs.inputs` wrote, and delete it; return the folder.

    Files and folders are read-only, so that code which writes there by mistake fails.
    """
    top = os.path.join(job.work, JobFolder.INPUTS)
    os.mkdir(top)
    with open(packed, "rb") as file:
        head = json.loads(file.readline())
        folders = [os.path.join(top, name) for name in head["folders"]]
        for folder in folders:  # each after the one around it
            os.mkdir(folder)
        for path, size, is_program in head["files"]:
            if job.termination.reason:
                raise StoppedError
            mode = READABLE if is_program else READABLE & 0o444
            _write(file, os.path.join(top, path), size, mode)
    os.unlink(packed)
    for folder in (*reversed(folders), top):
        os.chmod(folder, READABLE)
    return top


def _write(file: BinaryIO, path: str, left: int, mode: int) -> None:
    to = os.open(path, _CREATE, 0o600)
    with open(to, "wb") as out:
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise OSError("the results of earlier jobs are incomplete")
            out.write(piece)
            left -= len(piece)
        os.fchmod(to, mode)
