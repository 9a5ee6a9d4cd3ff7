"""The phases of a job in order: project, lock, system, python, build, run, results. Each reports its
outcome in one event.

Modules that few jobs need are imported by those jobs only.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys

from stoke.remote.common.files import DISK_FULL
from stoke.remote.protocol import EXIT_ENVIRONMENT, EXIT_TIMEOUT, HintCode, PythonLayout
from stoke.remote.runner.errors import CacheError, NetworkError, PhaseError, StoppedError
from stoke.remote.runner.event_writer import PhaseReporter
from stoke.remote.runner.files import cache_trouble
from stoke.remote.runner.interpreter import fingerprint, satisfies
from stoke.remote.runner.job_folders import report_results
from stoke.remote.runner.user_code import check_program, run_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.job import RemoteJob, Result


class Phases:
    """The phases of one job, and which of them runs."""

    def __init__(self, job: RemoteJob) -> None:
        self._job = job
        self._phase = "lock"

    def run(self) -> Result:
        """Run all phases, up to the code's end or the first failure, which an event reports."""
        job = self._job
        try:
            try:
                self._prepare()
            except (PhaseError, OSError) as error:
                why = cache_trouble(error, job.cache)
                if (
                    why is None
                    or self._phase == "system"  # a job cannot use another /nix
                    or job.cache == job.private_cache
                    or job.payload["on_cache_trouble"] == "fail"
                ):
                    raise
                job.leave_cache(why)
                self._prepare()
            if job.payload["lock_only"]:
                job.write(1, (job.lockfile or "").encode())
                return 0, {}
            self._phase = "run"
            check_program(job)
            if job.packed_inputs:
                from stoke.remote.runner.inputs import unpack_inputs

                job.inputs = unpack_inputs(job, job.packed_inputs)
            with PhaseReporter(job.events, "run"):
                result = run_code(job)
            report_results(job)
            return result
        except PhaseError as error:
            failure = error
        except StoppedError:
            reason = job.termination.reason
            if reason == "timeout":
                return EXIT_TIMEOUT, {"reason": reason}
            number = signal.SIGINT if reason == "interrupted" else signal.SIGTERM
            return 128 + number, {"reason": reason}
        except OSError as error:
            text = "%s: %s" % (error.filename, error.strerror) if error.filename else str(error)
            failure = PhaseError(text)
            if error.errno in DISK_FULL:
                in_cache = cache_trouble(error, job.cache) is not None
                space = (HintCode.FREE_SPACE, job.work)
                failure.hint = job.full_cache_hint() if in_cache else space
        job.events.error(self._phase, failure)
        first, *rest = job.events.masked(failure.text).split("\n")
        if rest and isinstance(failure, (CacheError, NetworkError)):
            first += ": " + rest[-1]
        return EXIT_ENVIRONMENT, {"reason": "%s: %s" % (self._phase, first[:300])}

    def _prepare(self) -> None:
        """Run the phases before that of the user's code."""
        job = self._job
        self._phase = "lock"
        os.makedirs(job.cache, exist_ok=True)
        job.lock_until_end(job.path(PythonLayout.IN_USE_LOCK)).acquire(
            fcntl.LOCK_SH, lambda: job.events.note("the cache is being cleared; waiting")
        )
        if job.payload["project"] and job.project is None and not job.payload["lock_only"]:
            from stoke.remote.runner.project import prepare_project

            self._phase = "project"
            with PhaseReporter(job.events, "project") as phase:
                job.project = prepare_project(job, phase, job.payload["project"])
            self._phase = "lock"
        job.lockfile = None
        if job.payload["requirements"]:
            from stoke.remote.runner.lockfile import find_lockfile

            with PhaseReporter(job.events, "lock") as phase:
                _choose_python(job)
                job.lockfile = find_lockfile(job, phase)
        else:
            _choose_python(job)
        if job.payload["lock_only"]:
            return
        if job.payload["system"]:
            from stoke.remote.runner.nix import SystemPackages

            self._phase = "system"
            with PhaseReporter(job.events, "system") as phase:
                job.programs = SystemPackages(job, job.payload["system"]).prepare(phase)
        if job.lockfile is not None:
            from stoke.remote.runner.environment import prepare_environment

            self._phase = "python"
            with PhaseReporter(job.events, "python") as phase:
                prepare_environment(job, phase, job.lockfile)
        if job.project and job.payload["project"] and job.payload["project"]["compiled"]:
            from stoke.remote.runner.extension_modules import add_extension_modules

            self._phase = "build"
            with PhaseReporter(job.events, "build") as phase:
                add_extension_modules(job, phase, job.payload["project"]["compiled"])


def _choose_python(job: RemoteJob) -> None:
    """Set the job's interpreter, this one or the requested one, and its fingerprint."""
    requested = job.payload["python"]
    if not requested or satisfies(sys.version_info[:3], requested):
        job.fingerprint = fingerprint()
    else:
        from stoke.remote.runner.other_python import find_python

        job.python, job.fingerprint = find_python(job, requested)
