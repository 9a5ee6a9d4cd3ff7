"""Errors with hints for users, and the exit codes.

| code | meaning |
|---|---|
| the job's own | the code ran; 128 + n when a signal ended it |
| 1 | `show`, `logs`, `stop`, `rm`, `rerun`: no such job |
| 2 | the request or the command line is wrong |
| 124 | the job reached its timeout |
| 125 | the engine or the environment failed before the code began |
| 130 | ctrl+c, unless the code caught it and ended with a code of its own |
| 143 | the job was stopped by `stop` |
"""

from __future__ import annotations

from stoke.system_limits import exhausted_limit
from stoke.text.shorten import shorten

EXIT_UNKNOWN_JOB = 1
EXIT_REQUEST = 2
EXIT_TIMEOUT = 124
EXIT_ENGINE = 125
EXIT_INTERRUPT = 130
EXIT_STOPPED = 143


class StokeError(Exception):
    """An error for the user: one sentence that says what failed and why, and a hint.

    `hint` is the fix, often a command line; that of a limit of this process or machine, if one caused
    the error. Both are shortened if they repeat a huge text.
    """

    exit_code = EXIT_ENGINE

    def __init__(self, what: str, hint: str | None = None) -> None:
        self.what = shorten(what)
        self._hint = None if hint is None else shorten(hint)
        super().__init__(self.what)
        # The id of the job that failed by this error, if the history has one.
        self.job_id: str | None = None

    @property
    def hint(self) -> str | None:
        limit = exhausted_limit(self) if self.__context__ or self.__cause__ else None
        return self._hint if limit is None else limit[1]


class RequestError(StokeError):
    """The request is invalid, and nothing was submitted. `field` is the field's name in the JSON."""

    exit_code = EXIT_REQUEST

    def __init__(self, field: str, why: str, hint: str | None = None) -> None:
        super().__init__(f"{field}: {why}", hint)
        self.field = field
        self.why = shorten(why)


class UnknownJobError(StokeError):
    """No job, or more than one, matches the name."""

    exit_code = EXIT_UNKNOWN_JOB


class EngineError(StokeError):
    """The backend failed: not installed, not running, not allowed, or out of space."""


class WaitingError(EngineError):
    """A job cannot start yet, for the reason that its backend reports. No request failed."""
