"""Let programs enter the job: what `stoke.remote.session` needs to start one beside the code."""

from __future__ import annotations

import json
import os

from stoke.remote.protocol import JobFolder
from stoke.remote.runner.files import write_atomically

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from stoke.remote.runner.job import RemoteJob


def offer_entry(job: RemoteJob, env: Mapping[str, str], folder: str, first: list[str]) -> None:
    """Offer the code's variables, its working directory and the folders that are first on its PATH.

    They stay in this process's memory, because variables may be secret. The file `JobFolder.ENTRY`
    names this process and the descriptor.
    """
    if not hasattr(os, "memfd_create"):
        return  # `stoke exec` then finds no entry.
    try:
        path = env.get("PATH", os.defpath)
        if not _is_first(job, path):
            folder_of_python = _python_folder(job)
            env = {**env, "PATH": folder_of_python + ":" + path}
            first = [folder_of_python, *first]
        memory = os.memfd_create("stoke-entry")
        with open(memory, "wb", closefd=False) as file:
            file.write(json.dumps({"env": dict(env), "folder": folder, "first": first}).encode())
        write_atomically(os.path.join(job.work, JobFolder.ENTRY), "%d %d\n" % (os.getpid(), memory))
    except OSError:
        pass  # A kernel without memfd, or a full disk: the code runs all the same.


def _is_first(job: RemoteJob, path: str) -> bool:
    """Return whether `python` in these folders is the job's interpreter, with its environment."""
    for folder in path.split(":"):
        found = os.path.join(folder, "python")
        if os.access(found, os.X_OK):
            if job.environment:
                return folder == os.path.join(job.environment, "bin")
            return os.path.realpath(found) == os.path.realpath(job.python)
    return False


def _python_folder(job: RemoteJob) -> str:
    """Return a folder whose `python` is the job's interpreter.

    Images may have `python3` only, and an interpreter of another version is on the cache volume.
    """
    if job.environment:
        return os.path.join(job.environment, "bin")
    beside = os.path.dirname(job.python)
    if _is_first(job, beside):
        return beside
    folder = os.path.join(job.work, "bin")
    os.mkdir(folder)
    for name in ("python", "python3"):
        os.symlink(job.python, os.path.join(folder, name))
    return folder
