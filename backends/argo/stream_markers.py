r"""Takes a job's two streams out of the one log that Kubernetes keeps of a container.

The runner tags every line (`Tagged` in stoke/remote/runner.py): \x1e in front and a letter at its end,
 O, o for stdout, E, e for stderr; behind a small letter the newline is not the job's. What has no
tag is Argo's.
"""

from __future__ import annotations

from stoke.backend.api import ENGINE, Frame
from stoke.logs.spool import STDERR, STDOUT

MARK = 0x1E
# letter: (stream, whether the line ends there)
_TAGS = {
    ord("O"): (STDOUT, True),
    ord("o"): (STDOUT, False),
    ord("E"): (STDERR, True),
    ord("e"): (STDERR, False),
}


def untagged(time: int, data: bytes) -> Frame:
    """One line of the container's log as what it is."""
    if not data or data[0] != MARK:
        return Frame(ENGINE, time, data)
    if data[-1] != 0x0A:
        # Cut off when the container ended hard, before it said whose it is.
        return Frame(STDOUT, time, data[1:])
    tag = _TAGS.get(data[-2])
    if tag is None:
        return Frame(ENGINE, time, data)
    stream, ends = tag
    return Frame(stream, time, data[1:-2] + b"\n" if ends else data[1:-2])
