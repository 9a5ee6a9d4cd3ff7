r"""Takes a job's two streams out of the one log that Kubernetes keeps of a container.

The runner tags every line it lets out (`Tagged` in stoke/runner.py): \x1e and a letter, O, o for
stdout, E, e for stderr; behind a small letter the newline is not the job's. What has no tag is Argo's.
"""

from __future__ import annotations

from stoke.backend import ENGINE, Frame
from stoke.logs.spool import STDERR, STDOUT

SEPARATOR = 0x1E
# letter: (stream, whether the newline is the job's)
_TAGS = {
    ord("O"): (STDOUT, True),
    ord("o"): (STDOUT, False),
    ord("E"): (STDERR, True),
    ord("e"): (STDERR, False),
}


def untagged(frame: Frame) -> Frame:
    """One line of the container's log as what it is."""
    data = frame.data
    tag = _TAGS.get(data[1]) if len(data) > 1 and data[0] == SEPARATOR else None
    if tag is None:
        return Frame(ENGINE, frame.time, data)
    stream, has_newline = tag
    if has_newline or not data.endswith(b"\n"):
        return Frame(stream, frame.time, data[2:])
    return Frame(stream, frame.time, data[2:-1])
