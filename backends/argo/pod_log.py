"""A container's log through the API server, as frames for the follower.

The server merges the two streams of a container, so every frame is marked stderr. The runner marks
its lines so that they can be told apart (see `backends.common.stream_markers`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from backends.argo.cluster import ApiError, Cluster, RawStream, pods_path
from stoke.backend.api import SILENCE_SECONDS, Frame, LogDeniedError

# Nodes store longer lines in parts of this size, and may serve the first parts before the rest.
# Frames are cut at the same places, so that every reading gives the same frames.
PART_SIZE = 16 * 1024
# A timestamp such as 2006-01-02T15:04:05.000000000 and a zone.
STAMP_SIZE = 36
STDERR = 2
SECOND = 1_000_000_000
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})(Z|[+-]\d\d:\d\d) ")
# Messages that a node writes at the begin of a line when it cannot continue a log. They have no
# timestamp, unlike every line of the job.
_NODE_FAILED = re.compile(
    rb"(unable to retrieve container logs for|failed to (create fsnotify watcher|open log file"
    rb"|try resolving symlinks|watch)|rpc error: code = |error watching file)"
)


# A reader that has nearly all of a finished log asks only for its last lines. By time the server
# takes only whole seconds, and a job may print most of its log within one.
TAIL_LINES = 1000
# Lines of a container were seen out of order by less than this, in nanoseconds.
DISORDER = 10_000_000

Make = Callable[[int, bytes], Frame]


def as_stderr(time: int, data: bytes) -> Frame:
    """Return a frame for a line of a container whose streams are merged."""
    return Frame(STDERR, time, data)


class PodLogDecoder:
    """Decode a log into frames: one a line, or several for a line longer than `PART_SIZE`.

    Only the first part of a line has a timestamp, and a line without one belongs to the line
    before. `failure` is set when the node cannot continue; frames before that are still given.
    """

    def __init__(self, time: int = 0, make: Make = as_stderr) -> None:
        self._make = make
        self.failure: str | None = None
        self._rest = b""
        self._time = time
        # Whether the next bytes continue a line whose timestamp has been read.
        self._inside = False
        # The last second seen and its zone, so that most timestamps need no parsing.
        self._second = self._zone = b"?"
        self._epoch = 0

    def feed(self, data: bytes, last: bool = False) -> list[Frame]:
        """Return the frames in `data`. With `last` nothing follows, so an unfinished line is
        complete."""
        if self._rest:
            data = self._rest + data
        frames: list[Frame] = []
        at, end = 0, len(data)
        while at < end and self.failure is None:
            if self._inside:
                begin = at
            elif (
                data.startswith(self._second, at)
                and data.startswith(self._zone, at + 29)
                and (fraction := data[at + 20 : at + 29]).isdigit()
            ):
                self._time = self._epoch + int(fraction)
                begin = at + 29 + len(self._zone)
            elif after := self._learn(data, at):
                begin = after
            elif end - at < STAMP_SIZE and not last and data.find(b"\n", at) < 0:
                break
            elif _NODE_FAILED.match(data, at):
                self.failure = data[at:].partition(b"\n")[0].decode(errors="replace")
                break
            else:
                begin = at
            stop = data.find(b"\n", begin, begin + PART_SIZE) + 1
            if stop:
                self._inside = False
            elif end - begin >= PART_SIZE:
                stop = begin + PART_SIZE
                self._inside = True
            elif last:
                stop = end
            else:
                break
            if stop > begin:
                frames.append(self._make(self._time, data[begin:stop]))
            at = stop
        self._rest = data[at:]
        return frames

    def _learn(self, data: bytes, at: int) -> int:
        """Parse the whole timestamp at `at`, once a second. Return its end, or 0 if there is none."""
        stamp = _STAMP.match(data, at)
        if stamp is None:
            return 0
        try:
            moment = datetime.fromisoformat((stamp[1] + stamp[3]).decode())
        except ValueError:
            return 0
        self._second, self._zone = stamp[1] + b".", stamp[3] + b" "
        self._epoch = int(moment.timestamp()) * SECOND
        self._time = self._epoch + int(stamp[2])
        return stamp.end()


class PodLog:
    """One container's log from `since` (epoch nanoseconds) on; see `stoke.backend.api.LogStream`.

    Raises `ApiError` with status 400 while the container waits to start and 404 if the pod was
    deleted, and `LogDeniedError` without the right to read logs.

    With `follow`, an unfinished last line is held back because it may grow. A followed log that is
    silent for `SILENCE_SECONDS` ends and sets `was_silent`: a node may go silent for good when it
    rotates a log, and so may a connection that a load balancer has forgotten. `make` builds a frame
    from a line's time and bytes.
    """

    def __init__(
        self,
        cluster: Cluster,
        pod: str,
        container: str,
        since: int,
        follow: bool,
        make: Make = as_stderr,
    ) -> None:
        self._cluster = cluster
        self._make = make
        self._pod = pod
        self._since = since
        self._follow = follow
        self._query = {"container": container, "timestamps": "true"}
        if follow:
            self._query["follow"] = "true"
        self._lock = threading.Lock()
        self._closed = False
        self._stream: RawStream | None = None
        self.was_silent = False

    def __iter__(self) -> Iterator[list[Frame]]:
        try:
            yield from self._batches()
        except ApiError as error:
            if error.status in (401, 403):
                raise LogDeniedError(error.what, error.hint) from error
            if error.status or error.reason != "Timeout" or not self._follow:
                raise
            self.was_silent = True
        finally:
            self.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._stream is not None:
                self._stream.close()

    def _batches(self) -> Iterator[list[Frame]]:
        if self._since > 0 and not self._follow:
            frames = self._tail()
            if frames is not None:
                yield from self._new(frames)
                return
        if not self._closed:
            yield from self._all()

    def _tail(self) -> list[Frame] | None:
        """Return the log's last lines, or None if lines before them may be newer than `since`."""
        stream = self._open({**self._query, "tailLines": str(TAIL_LINES)})
        if stream is None:
            return []
        lines = PodLogDecoder(self._since, self._make)
        frames = lines.feed(b"".join(stream), last=True)
        begins_before = bool(frames) and frames[0].time < self._since - DISORDER
        return frames if self._closed or (begins_before and lines.failure is None) else None

    def _all(self) -> Iterator[list[Frame]]:
        query = dict(self._query)
        if self._since > 0:
            # The server rounds the time down to whole seconds. One second more, because the server
            # may begin inside a long line whose first parts are older, and gives the rest another
            # time. If that time were not before `since`, the rest would look new.
            moment = datetime.fromtimestamp(self._since // SECOND - 1, UTC)
            query["sinceTime"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        stream = self._open(query)
        if stream is None:
            return
        lines = PodLogDecoder(self._since, self._make)
        for data in stream:
            yield from self._new(lines.feed(data))
            if lines.failure is not None:
                raise ApiError(
                    f"the node of {self._pod} cannot read its log: {lines.failure}",
                    f"inspect the pod: {self._cluster.kubectl} describe pod {self._pod} "
                    f"-n {self._cluster.namespace}",
                    reason="Cut",
                )
        if not self._follow and not self._closed:
            yield from self._new(lines.feed(b"", last=True))

    def _new(self, frames: list[Frame]) -> Iterator[list[Frame]]:
        """Give one batch of the frames that are not older than `since`, or none."""
        frames = [frame for frame in frames if frame.time >= self._since]
        if frames:
            yield frames

    def _open(self, query: Mapping[str, str]) -> RawStream | None:
        path = pods_path(self._cluster.namespace, self._pod, "log")
        with self._lock:
            if self._closed:
                return None
            self._stream = self._cluster.stream(path, query, silence=SILENCE_SECONDS)
            return self._stream
