r"""Takes a job's two streams out of the one log that Kubernetes keeps of a container.

The runner tags every line it lets out (`Tagged` in stoke/runner.py): \x1e in front and a letter at its
end, O, o for stdout, E, e for stderr; behind a small letter the newline is not the job's. What has no
tag is Argo's.
"""

from __future__ import annotations

from stoke.backend import ENGINE, Frame
from stoke.logs.spool import STDERR, STDOUT

MARK = 0x1E
# letter: (stream, what the line ends with)
_TAGS = {
    ord("O"): (STDOUT, b"\n"),
    ord("o"): (STDOUT, b""),
    ord("E"): (STDERR, b"\n"),
    ord("e"): (STDERR, b""),
}


def untagged(frame: Frame) -> Frame:
    """One line of the container's log as what it is."""
    data = frame.data
    if not data or data[0] != MARK:
        return Frame(ENGINE, frame.time, data)
    if data[-1] != 0x0A:
        # Cut off when the container ended hard, before it said whose it is.
        return Frame(STDOUT, frame.time, data[1:])
    tag = _TAGS.get(data[-2])
    if tag is None:
        return Frame(ENGINE, frame.time, data)
    stream, end = tag
    return Frame(stream, frame.time, data[1:-2] + end)
