"""The errors that end a phase or the job."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.protocol import Hint


class PhaseError(Exception):
    """A phase failed: the reason, and a hint at the fix.

    `output` is what a build, git or another tool printed; all of it goes into the job's log.
    """

    def __init__(self, text: str, hint: Hint | None = None, output: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint
        self.output = output


class NetworkError(PhaseError):
    """uv reported that it could not reach a server."""


class CacheError(PhaseError):
    """A system call of ours or uv's failed: the cache volume is full, read-only or another user's."""


class ChangedInUseError(Exception):
    """A job changed an environment that running jobs still use."""


class StoppedError(Exception):
    """A signal or the timeout ended the job before its code began."""
