"""The errors of stoke, each with a hint, and the exit codes.

| code | meaning |
|---|---|
| the job's own | the code ran; 128 + n when a signal ended it |
| 1 | `show`, `logs`, `stop`, `rm`, `rerun` for an unknown job |
| 2 | the request or the command line is wrong |
| 124 | the job reached its timeout |
| 125 | the engine or the environment failed before the code began |
| 130 | ctrl+c, unless the code caught it and ended with a code of its own |
| 143 | the job was stopped by `stop` |
"""

from __future__ import annotations

EXIT_UNKNOWN_JOB = 1
EXIT_REQUEST = 2
EXIT_TIMEOUT = 124
EXIT_ENGINE = 125
EXIT_INTERRUPT = 130
EXIT_STOPPED = 143


class StokeError(Exception):
    """An error for the user: what failed and why, and the command that fixes it.

    `what` is one sentence that names what failed; `hint` is how to fix it, often a command line.
    """

    exit_code = EXIT_ENGINE

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        # The job that failed because of the error, if the history has one.
        self.job_id: str | None = None


class RequestError(StokeError):
    """The request is wrong and nothing was submitted. `field` names the field, as in the JSON."""

    exit_code = EXIT_REQUEST

    def __init__(self, field: str, why: str, hint: str | None = None) -> None:
        super().__init__(f"{field}: {why}", hint)
        self.field = field
        self.why = why


class UnknownJobError(StokeError):
    """No job, or more than one, has this name."""

    exit_code = EXIT_UNKNOWN_JOB


class EngineError(StokeError):
    """The backend failed: it is not installed, not running, not allowed, or out of space."""


class WaitingError(EngineError):
    """A job cannot start yet, and its backend reports why."""
