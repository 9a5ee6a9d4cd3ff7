"""What went wrong, said so that somebody can hint it; and the exit codes, in one place.

| code | meaning |
|---|---|
| the job's own | the code ran; 128 + n when a signal ended it |
| 1 | `show`, `logs`, `stop`, `rm`, `rerun` for a job nobody knows |
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
    """Something a person has to know: what happened and why, and the command that mends it.

    `what` is one sentence that names the thing; `hint` is what to do, often a command line.
    """

    exit_code = EXIT_ENGINE

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        # The job that came to nothing by it, where there is one in the history.
        self.job_id: str | None = None


class RequestError(StokeError):
    """The request is wrong; nothing was submitted. `field` names the part, as in the JSON."""

    exit_code = EXIT_REQUEST

    def __init__(self, field: str, why: str, hint: str | None = None) -> None:
        super().__init__(f"{field}: {why}", hint)
        self.field = field
        self.why = why


class UnknownJobError(StokeError):
    """No job, or more than one, goes by this name."""

    exit_code = EXIT_UNKNOWN_JOB


class EngineError(StokeError):
    """The backend cannot do what was asked: not installed, not running, not allowed, out of room."""


class WaitingError(EngineError):
    """A job cannot start yet, and its backend says why: nothing is wrong with asking."""
