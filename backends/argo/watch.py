"""List and watch of a few objects of one resource, such as a job's pod.

Runs in its reader's thread. Temporary trouble is retried with growing pauses; an error that a retry
cannot fix is raised.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends.argo.cluster import (
    LONGEST_MESSAGE,
    METADATA_LIST,
    METADATA_ONE,
    ApiError,
    Cluster,
    RawStream,
)
from backends.argo.shapes import BOOKMARK, EVENT, IDENTIFIED, LIST
from stoke.files.shapes import ShapeError, checked
from stoke.files.untrusted import parse_json

# The server ends a watch after a random number of seconds in this range, so that not all end at once.
WATCH_SECONDS = (300, 600)
# A watch that is silent for this long beyond its end is dead.
LATE_SECONDS = 30
LIST_SILENCE = 30
LIST_SECONDS = 300.0
BACKOFF_SECONDS = (0.5, 30.0)
# A connection that lasted this long resets the pauses.
GOOD_SECONDS = 120
# Bytes of one event. An object has at most some 1.5 MB.
MAX_EVENT = 32 * 1024**2
MAX_LIST = 256 * 1024**2
MOST_OBJECTS = 100_000
# A server that has just started may reject all clients, so a final status counts after this many tries.
TRIES = 3
_FINAL = frozenset({400, 401, 403, 404, 405, 406})

Object = dict[str, Any]


@dataclass(frozen=True)
class WatchEvent:
    """`kind` is ADDED, MODIFIED or DELETED; `object` is its newest known version."""

    kind: str
    object: Object


class Watch:
    """The changes of a resource's objects, for one reader.

    Iteration gives batches of changes. The first batch holds all objects (there may be none), and a
    batch after a gap holds all that changed meanwhile. An empty batch reports that the connection was
    lost or is back, so the state is worth asking for. Raises `ApiError` if the watch cannot go on;
    otherwise iteration ends by `close`, from any thread.

    `query` may hold selectors. With `metadata` the objects are reduced to their metadata by the server,
    with `reduce` by that function.
    """

    def __init__(
        self,
        cluster: Cluster,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        metadata: bool = False,
        reduce: Callable[[Object], Object] = lambda one: one,
    ) -> None:
        # By UID, because a name may be used again.
        self._objects: dict[str, Object] = {}
        self._connected = True
        self._cluster = cluster
        self._path = path
        self._query = dict(query or {})
        self._metadata = metadata
        self._reduce = reduce
        self._version = ""
        self._listed = False
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._stream: RawStream | None = None

    def __iter__(self) -> Iterator[list[WatchEvent]]:
        attempt = 0
        while not self._closed.is_set():
            began = time.monotonic()
            least = 0.0
            try:
                if not self._version:
                    yield self._relist()
                yield from self._watch()
            except ApiError as error:
                if self._closed.is_set():
                    return
                if error.status in _FINAL and (not self._listed or attempt >= TRIES):
                    raise
                if error.status == 410:
                    # The server no longer has the changes since the known version.
                    self._version = ""
                least = error.retry_after or 0.0
                if self._connected:
                    self._connected = False
                    yield []
            attempt = 1 if time.monotonic() - began > GOOD_SECONDS else attempt + 1
            first, most = BACKOFF_SECONDS
            pause = random.uniform(0, min(most, first * 2 ** min(attempt - 1, 10)))  # noqa: S311
            self._closed.wait(max(least, pause))

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            if self._stream is not None:
                self._stream.close()

    def _relist(self) -> list[WatchEvent]:
        """List all objects and return what differs from the known ones."""
        query = dict(self._query)
        if not self._listed:
            # From the server's cache, in a tenth of the time; the watch brings what the cache lacks.
            # Not after a gap: another server's cache may be older than what is known.
            query["resourceVersion"] = "0"
        headers = {"Accept-Encoding": "gzip"}
        if self._metadata:
            headers["Accept"] = METADATA_LIST
        try:
            answer = checked(parse_json(self._read_list(query, headers)), LIST)
            listed = {_uid(one): one for one in answer.get("items", ())}
            version = answer["metadata"]["resourceVersion"]
        except ValueError as error:
            raise ApiError(f"{self._path}: the answer is not a list", reason="Cut") from error
        changes = [
            WatchEvent("DELETED", self._objects.pop(uid))
            for uid in [*self._objects]
            if uid not in listed
        ]
        changes += [change for one in listed.values() for change in self._put(one)]
        self._version = version
        self._listed = self._connected = True
        return changes

    def _watch(self) -> Iterator[list[WatchEvent]]:
        """Give the changes since the known version until the server ends the watch."""
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            "resourceVersion": self._version,
        }
        headers = {"Accept": METADATA_ONE} if self._metadata else {}
        rest = b""
        for data in self._opened(query, headers, seconds + LATE_SECONDS, seconds + LATE_SECONDS):
            if not self._connected:
                self._connected = True
                yield []
            *lines, rest = (rest + data).split(b"\n") if rest else data.split(b"\n")
            changes: list[WatchEvent] = []
            try:
                for line in lines:
                    changes += self._event(line)
            finally:
                # Also when the next line reports that the watch has failed.
                if changes:
                    yield changes
            if len(rest) > MAX_EVENT:
                raise ApiError(f"{self._path}: an event is too long", reason="Cut")

    def _event(self, line: bytes) -> list[WatchEvent]:
        """Return what one line of a watch changes. Skips unreadable lines."""
        try:
            event = checked(parse_json(line), EVENT)
        except ValueError:
            return []
        kind, one = event["type"], event["object"]
        if kind == "ERROR":
            raise self._failure(one)
        try:
            one = checked(one, BOOKMARK if kind == "BOOKMARK" else IDENTIFIED)
        except ShapeError:
            return []
        # The only field of a bookmark's object.
        self._version = one["metadata"].get("resourceVersion", self._version)
        if kind == "DELETED":
            known = self._objects.pop(_uid(one), None)
            return [] if known is None else [WatchEvent("DELETED", self._reduce(one))]
        return self._put(one) if kind in ("ADDED", "MODIFIED") else []

    def _failure(self, status: Object) -> ApiError:
        message, code = status.get("message"), status.get("code")
        return ApiError(
            f"{self._path}: {str(message or 'the watch failed')[:LONGEST_MESSAGE]}",
            status=code if isinstance(code, int) and 400 <= code < 600 else 500,
            reason=str(status.get("reason") or "")[:100],
        )

    def _put(self, one: Object) -> list[WatchEvent]:
        uid = _uid(one)
        known = self._objects.get(uid)
        if known is None and len(self._objects) >= MOST_OBJECTS:
            raise ApiError(f"{self._path}: more than {MOST_OBJECTS} objects", reason="Cut")
        version = one["metadata"].get("resourceVersion")
        if known is not None and known["metadata"].get("resourceVersion") == version:
            return []
        one = self._reduce(one)
        self._objects[uid] = one
        return [WatchEvent("ADDED" if known is None else "MODIFIED", one)]

    def _read_list(self, query: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        pieces, size = [], 0
        for piece in self._opened(query, headers, LIST_SILENCE, LIST_SECONDS):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_LIST:
                raise ApiError(f"{self._path}: the list is too long", reason="Cut")
        return b"".join(pieces)

    def _opened(
        self, query: Mapping[str, str], headers: Mapping[str, str], silence: float, seconds: float
    ) -> Iterator[bytes]:
        with self._lock:
            self._stream = self._cluster.stream(self._path, query, headers, silence, seconds)
            if self._closed.is_set():
                self._stream.close()
        return iter(self._stream)


def _uid(one: Object) -> str:
    uid: str = one["metadata"]["uid"]
    return uid
