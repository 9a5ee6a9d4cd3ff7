"""A container's log through the API server, as frames for the follower.

The server merges a container's two streams, so every frame says stderr: the runner puts both into
one and tells in its events which is which (see `stoke.remote.events`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from backends.argo.cluster import ApiError, Cluster, RawStream, pods_path
from stoke.backend.api import SILENCE_SECONDS, Frame, LogDeniedError

# Nodes store a longer line in parts of this size, and may give the first ones before the rest is
# there. Frames are cut at the same places, so that they are the same whenever they are read.
PART_SIZE = 16 * 1024
# 2006-01-02T15:04:05.000000000 and a zone.
STAMP_SIZE = 36
STDERR = 2
SECOND = 1_000_000_000
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})(Z|[+-]\d\d:\d\d) ")
# What a node writes into a log that it cannot read on, where a line would begin: never with a
# timestamp, which every line of the job has.
_NODE_FAILED = re.compile(
    rb"(unable to retrieve container logs for|failed to (create fsnotify watcher|open log file"
    rb"|try resolving symlinks|watch)|rpc error: code = |error watching file)"
)


# Whoever has nearly all of a finished log asks for its last lines only: by time the server can only be
# asked in whole seconds, and in a second a job may have printed most of it.
TAIL_LINES = 1000
# By how much lines of a container were seen out of order, and some more.
DISORDER = 10_000_000

Make = Callable[[int, bytes], Frame]


def as_stderr(time: int, data: bytes) -> Frame:
    """A line of a container whose streams nobody can tell apart."""
    return Frame(STDERR, time, data)


class Lines:
    """Takes timestamps off: one frame a line, or several for a line longer than `PART_SIZE`.

    Only a line's first part has a timestamp, and a line that has none belongs to the one before.
    `failure` says that the node cannot go on; frames before it are still given.
    """

    def __init__(self, time: int = 0, make: Make = as_stderr) -> None:
        self._make = make
        self.failure: str | None = None
        self._rest = b""
        self._time = time
        # Whether what follows belongs to a line whose timestamp has been seen.
        self._inside = False
        # The last second seen, and what stands behind its fraction; few lines begin a new one.
        self._second = self._zone = b"?"
        self._epoch = 0

    def feed(self, data: bytes, last: bool = False) -> list[Frame]:
        """`last`: nothing comes behind it, so a line that has no end is whole."""
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
        """Reads the whole timestamp at `at`, once a second; where it ends, 0 if there is none."""
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
    """One container's log from `since` (epoch nanoseconds) on; see `stoke.backend.LogStream`.

    `ApiError` tells what there is none for: status 400 while the container waits to start, 404 when
    the pod has gone. `LogDeniedError` without the right to read logs.

    With `follow` a last line that has no end yet is not given, because it may still grow; and a log
    that is silent for `SILENCE_SECONDS` ends, as a hint: a node may go silent for good when it
    rotates a log, and so may a connection that a balancer on the way forgot. `was_silent` says so.
    `make` makes a frame of a line's time and bytes.
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
        """The log's last lines; None where what was asked for may begin before them."""
        stream = self._open({**self._query, "tailLines": str(TAIL_LINES)})
        if stream is None:
            return []
        lines = Lines(self._since, self._make)
        frames = lines.feed(b"".join(stream), last=True)
        begins_before = bool(frames) and frames[0].time < self._since - DISORDER
        return frames if self._closed or (begins_before and lines.failure is None) else None

    def _all(self) -> Iterator[list[Frame]]:
        query = dict(self._query)
        if self._since > 0:
            # The server cuts it to whole seconds whatever is sent. One more, because it begins in the
            # middle of a long line whose first parts are older, and gives that another time: as late
            # as what was asked for it would pass for new.
            moment = datetime.fromtimestamp(self._since // SECOND - 1, UTC)
            query["sinceTime"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        stream = self._open(query)
        if stream is None:
            return
        lines = Lines(self._since, self._make)
        for data in stream:
            yield from self._new(lines.feed(data))
            if lines.failure is not None:
                raise ApiError(
                    f"the node of {self._pod} cannot read its log: {lines.failure}",
                    f"look at it: {self._cluster.kubectl} describe pod {self._pod} "
                    f"-n {self._cluster.namespace}",
                    reason="Cut",
                )
        if not self._follow and not self._closed:
            yield from self._new(lines.feed(b"", last=True))

    def _new(self, frames: list[Frame]) -> Iterator[list[Frame]]:
        """Those that are not older than what was asked for: one batch, or none."""
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
