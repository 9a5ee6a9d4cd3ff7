"""List and watch: what a resource holds, kept up to date for as long as somebody reads.

Runs in its reader's thread. What goes wrong on the way is waited out with growing pauses; what will
not hint itself is raised.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends.argo.cluster import METADATA_LIST, METADATA_ONE, ApiError, Cluster, RawStream
from stoke.files.untrusted import parse_json

PAGE = 500
# The server ends a watch after this many seconds, each a different number: not all of them at once.
WATCH_SECONDS = (300, 600)
# Beyond that it is dead: the server says nothing, and not even that it ends.
LATE_SECONDS = 30
LIST_SILENCE = 30
BACKOFF_SECONDS = (0.5, 30.0)
# A connection that lasted this long was a good one.
GOOD_SECONDS = 120
# No event is longer: an object has at most some 1.5 MB.
MAX_EVENT = 32 * 1024**2
# A page has at most `PAGE` objects, few of them large.
MAX_PAGE = 256 * 1024**2
# Of one namespace, with our labels.
MOST_OBJECTS = 100_000
# What asking again will not hint: rights, credentials, a resource that is not there.
TRIES = 3
_FINAL = frozenset({400, 401, 403, 404, 405, 406})

Object = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """`kind` is ADDED, MODIFIED or DELETED; `object` is the newest that is known of it."""

    kind: str
    object: Object


class Watch:
    """The objects of one resource, and what changes; for one reader.

    Iterating gives batches of changes. The first says all there is (perhaps nothing), and so does
    one after a gap: what has changed meanwhile, at once. An empty batch says that `stale_since` has
    changed. `ApiError` when it cannot go on; otherwise it ends by `close`, from any thread.

    `query` may hold selectors. With `metadata` objects have no more than their metadata. `over` says
    of an object that it is finished: it stays so, whatever an older version says.
    """

    def __init__(
        self,
        cluster: Cluster,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        metadata: bool = False,
        over: Callable[[Object], bool] | None = None,
    ) -> None:
        self.objects: dict[str, Object] = {}
        """By UID: a name may come again."""
        self.stale_since: float | None = time.time()
        """Since when (epoch seconds) `objects` may be old; None while they are not."""
        self.trouble: ApiError | None = None
        """Why they may be."""
        self._cluster = cluster
        self._path = path
        self._query = dict(query or {})
        self._metadata = metadata
        self._over = over
        self._version = ""
        self._listed = False
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._stream: RawStream | None = None

    def __iter__(self) -> Iterator[list[Change]]:
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
                # A server that has just started knows nobody's rights yet.
                if error.status in _FINAL and (not self._listed or attempt >= TRIES):
                    raise
                if error.status == 410:
                    # What is known is too old to go on from.
                    self._version = ""
                least = error.retry_after or 0.0
                news = self.trouble is None
                self.trouble = error
                if self.stale_since is None:
                    self.stale_since = time.time()
                if news:
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

    def _relist(self) -> list[Change]:
        """Everything there is, page by page, against what was known."""
        listed: dict[str, Object] = {}
        query = {**self._query, "limit": str(PAGE)}
        if not self._listed:
            # From the server's memory, a tenth of the time; what it lacks comes with the watch. Not
            # after a gap: another server's memory may be older than what is known.
            query["resourceVersion"] = "0"
        headers = {"Accept-Encoding": "gzip"}
        if self._metadata:
            headers["Accept"] = METADATA_LIST
        while True:
            body = self._read_page(query, headers)
            try:
                page = parse_json(body)
                for one in page.get("items") or ():
                    listed[_uid(one)] = one
                more, version = (
                    page["metadata"].get("continue"),
                    page["metadata"]["resourceVersion"],
                )
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ApiError(f"{self._path}: the answer is no list", reason="Cut") from error
            if not more:
                break
            if len(listed) > MOST_OBJECTS:
                raise self._too_many()
            query["continue"] = more
            query.pop("resourceVersion", None)
        gone = [
            Change("DELETED", self.objects.pop(uid)) for uid in [*self.objects] if uid not in listed
        ]
        changes = gone + [change for one in listed.values() for change in self._put(one)]
        self._version = version
        self._listed = True
        self._synced()
        return changes

    def _watch(self) -> Iterator[list[Change]]:
        """From the known version on, until the server ends it."""
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
        for data in self._opened(query, headers, seconds + LATE_SECONDS):
            if self._synced():
                yield []
            *lines, rest = (rest + data).split(b"\n") if rest else data.split(b"\n")
            changes: list[Change] = []
            try:
                for line in lines:
                    changes += self._event(line)
            finally:
                # Also when the line behind them says that the watch has failed.
                if changes:
                    yield changes
            if len(rest) > MAX_EVENT:
                raise ApiError(f"{self._path}: an event without an end", reason="Cut")

    def _event(self, line: bytes) -> list[Change]:
        """What one line of a watch changes. What cannot be read is passed over."""
        try:
            event = parse_json(line)
            kind, one = event["type"], event["object"]
            if kind == "ERROR":
                raise ApiError(
                    f"{self._path}: {one.get('message') or 'the watch failed'}",
                    status=int(one.get("code") or 500),
                    reason=str(one.get("reason") or ""),
                )
            version = one["metadata"]["resourceVersion"]
            if not isinstance(version, str):
                return []
            self._version = version  # A bookmark's object has nothing else.
            if kind == "DELETED":
                known = self.objects.pop(_uid(one), None)
                return [] if known is None else [Change("DELETED", one)]
            return self._put(one) if kind in ("ADDED", "MODIFIED") else []
        except (ValueError, KeyError, TypeError, AttributeError):
            return []

    def _put(self, one: Object) -> list[Change]:
        uid = _uid(one)
        known = self.objects.get(uid)
        if known is not None:
            if known["metadata"].get("resourceVersion") == one["metadata"].get("resourceVersion"):
                return []
            if self._over is not None and self._over(known) and not self._over(one):
                return []
        if known is None and len(self.objects) >= MOST_OBJECTS:
            raise self._too_many()
        self.objects[uid] = one
        return [Change("ADDED" if known is None else "MODIFIED", one)]

    def _synced(self) -> bool:
        """Notes that nothing is missing; whether that is news."""
        news = self.stale_since is not None
        self.stale_since = self.trouble = None
        return news

    def _too_many(self) -> ApiError:
        return ApiError(f"{self._path}: more than {MOST_OBJECTS} objects", reason="Cut")

    def _read_page(self, query: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        pieces, size = [], 0
        for piece in self._opened(query, headers, LIST_SILENCE):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_PAGE:
                raise ApiError(f"{self._path}: a list without an end", reason="Cut")
        return b"".join(pieces)

    def _opened(
        self, query: Mapping[str, str], headers: Mapping[str, str], silence: float
    ) -> Iterator[bytes]:
        with self._lock:
            self._stream = self._cluster.stream(self._path, query, headers, silence)
            if self._closed.is_set():
                self._stream.close()
        return iter(self._stream)


def _uid(one: Object) -> str:
    uid: str = one["metadata"]["uid"]
    if not isinstance(uid, str):
        raise TypeError("a uid that is no text")
    return uid


def workflow_is_over(workflow: Object) -> bool:
    """By its labels, so that metadata is enough."""
    labels = workflow["metadata"].get("labels") or {}
    return labels.get("workflows.argoproj.io/completed") == "true" or labels.get(
        "workflows.argoproj.io/phase"
    ) in ("Succeeded", "Failed", "Error")
