"""Find the environment of a job on the cache volume, or have it built."""

from __future__ import annotations

import os

from stoke.remote.protocol import LOCK_SUFFIX, PythonLayout
from stoke.remote.runner.environment_metadata import read_metadata
from stoke.remote.runner.errors import ChangedInUseError
from stoke.remote.runner.files import digest, record_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from stoke.remote.runner.event_writer import PhaseReporter
    from stoke.remote.runner.job import RemoteJob


def prepare_environment(job: RemoteJob, phase: PhaseReporter, lockfile: str) -> None:
    """Find or build the environment, and hold a shared lock on it until the job's end."""
    key = digest([lockfile, job.fingerprint, job.payload["settings"]["build"]])[:32]
    os.makedirs(job.path(PythonLayout.ENVIRONMENTS), exist_ok=True)
    try:
        folder, metadata = _find_environment(job, phase, key, lockfile)
    except ChangedInUseError:
        # Rebuilding it would break the jobs that use it, and they may run for days.
        job.events.note("a running job changed this environment; using a second one")
        key = digest([key, "beside"])[:32]
        folder, metadata = _find_environment(job, phase, key, lockfile)
    if job.payload["compile"]:
        from stoke.remote.runner.tools import run_tool

        # compileall skips compiled files; a file that does not compile is no reason to fail.
        python = os.path.join(folder, "bin", "python")
        argv = [python, "-I", "-m", "compileall", "-q", "-j", "0", os.path.join(folder, "lib")]
        run_tool(job.termination, argv, dict(os.environ))
    phase.facts["packages"] = len(metadata["packages"])
    if phase.facts["cached"] is None:
        phase.facts["cached"] = len(metadata["packages"])
    request = job.payload["request"]
    if request is not None and job.cache != job.private_cache:
        phase.facts["key"] = key
        record_request(job.path(PythonLayout.REQUESTS), request, key)
    job.environment = folder


def _find_environment(
    job: RemoteJob, phase: PhaseReporter, key: str, lockfile: str
) -> tuple[str, dict[str, Any]]:
    """Return (folder, metadata). `ChangedInUseError` if running jobs use a changed one."""
    folder = job.path(PythonLayout.ENVIRONMENTS, key)

    def blocked() -> None:
        if os.path.isdir(folder):  # a job that rebuilds it would have removed it
            raise ChangedInUseError
        job.note_waiting("builds")

    def build() -> int:
        from stoke.remote.runner.install import build_environment

        return build_environment(job, folder, lockfile)

    metadata = job.find_or_build(
        phase, folder + LOCK_SUFFIX, lambda: read_metadata(folder), build, blocked
    )
    return folder, metadata
