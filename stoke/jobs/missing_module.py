"""Find the package whose absence ended a job, by the traceback at the end of its log."""

from __future__ import annotations

import re
from pathlib import Path

from stoke.history.job import Job, JobState
from stoke.logs.spool import STDERR, LogSource, SpoolReader
from stoke.request.requirement import names
from stoke.request.spec import JobSpec
from stoke.request.undeclared_packages import Package, missing_package, undeclared

_MOST_ROWS = 300
_LONGEST = 4096
_ERROR = re.compile(
    rb"ModuleNotFoundError: No module named '([A-Za-z0-9_.]{1,200})'(?:[.;] [^\r\n]*)?\r?\n?"
)
_TRACEBACK = re.compile(rb"Traceback \(most recent call last\):\s*")


def packages_to_add(job: Job, spec: JobSpec, log: LogSource, folder: Path) -> list[Package]:
    """Return the packages to add so that the job may find the module that it lacked.

    Beside that of the module they are the certain ones among those that code without any declared
    packages imports. `folder` is that of the script, or the current one. The log is the job's own text,
    so what it names is checked, and no more than a proposal.
    """
    if job.state is not JobState.FAILED or job.exit_code != 1 or not _takes_more(spec):
        return []
    module = _missing_module(log)
    package = missing_package(spec.code, module, folder) if module else None
    if package is None or names([package.name])[0] in _declared(spec):
        return []
    others = undeclared(spec, folder)
    return [package, *(one for one in others if not one.guessed and one.name != package.name)]


def _takes_more(spec: JobSpec) -> bool:
    """Whether a package can be added: a lockfile is complete, and an image's own packages are not
    seen by a job that has some of its own."""
    closed = spec.locked or spec.parsed_requirements().require_hashes
    return not closed and (spec.image is None or spec.has_packages)


def _declared(spec: JobSpec) -> list[str]:
    return names(
        [*spec.dependencies, *(one.text for one in spec.parsed_requirements().requirements)]
    )


def _missing_module(log: LogSource) -> str | None:
    """Return the module of a ModuleNotFoundError that is the last of stderr, below its traceback."""
    reader = SpoolReader(log)
    try:
        _, rows = reader.size()
        lines = [
            line.text
            for line in reader.lines(max(0, rows - _MOST_ROWS), longest=_LONGEST)
            if line.stream == STDERR and line.text.strip()
        ]
    finally:
        reader.close()
    found = _ERROR.fullmatch(lines[-1]) if lines else None
    if found is None or not any(map(_TRACEBACK.fullmatch, lines)):
        return None
    return found[1].decode()
