"""List and watch, against a scripted API server."""

from __future__ import annotations

import gzip
import json
import threading

import pytest

from backends.argo import watch as watch_module
from backends.argo.cluster import (
    METADATA_LIST,
    METADATA_ONE,
    ApiError,
    Cluster,
    workflows_path,
)
from backends.argo.watch import Object, Watch, WatchEvent
from tests.backends.argo.scripted_server import (
    CHUNKED,
    LAST,
    Hold,
    Keep,
    Piece,
    Request,
    Reset,
    ScriptedServer,
    chunk,
    forbidden,
    json_answer,
    status,
)

PATH = workflows_path("team-a")


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "BACKOFF_SECONDS", (0.0, 0.0))


def workflow(name: str, version: int, phase: str = "Running", uid: str = "") -> Object:
    labels = {"workflows.argoproj.io/phase": phase}
    metadata = {"name": name, "uid": uid or f"uid-of-{name}", "resourceVersion": str(version)}
    return {"metadata": {**metadata, "labels": labels}}


def list_answer(version: int, *objects: Object) -> list[Piece]:
    metadata = {"resourceVersion": str(version)}
    return json_answer({"metadata": metadata, "items": list(objects)})


def event(kind: str, one: Object) -> bytes:
    return json.dumps({"type": kind, "object": one}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


def failed(code: int, reason: str) -> bytes:
    return event("ERROR", {"kind": "Status", "code": code, "reason": reason, "message": "said so"})


def watched(*events: bytes, end: tuple[Piece, ...] = (LAST,)) -> list[Piece]:
    return [CHUNKED, *(chunk(one) for one in events), *end]


OPEN: tuple[Piece, ...] = (Hold,)


class Script:
    """What lists and watches are answered, each in its turn; what is behind the end ends the test."""

    def __init__(self, server: ScriptedServer) -> None:
        self.lists: list[list[Piece]] = []
        self.watches: list[list[Piece]] = []
        self.requested: list[Request] = []
        server.answers["/workflows"] = [self]

    def __call__(self, request: Request) -> list[Piece]:
        self.requested.append(request)
        answers = self.watches if "watch" in request.query else self.lists
        return answers.pop(0) if answers else watched(end=OPEN)

    @property
    def watch_versions(self) -> list[str]:
        return [one.query["resourceVersion"] for one in self.requested if "watch" in one.query]


@pytest.fixture
def script(server: ScriptedServer) -> Script:
    return Script(server)


def told(changes: list[WatchEvent]) -> list[tuple[str, str, str]]:
    return [
        (one.kind, one.object["metadata"]["name"], one.object["metadata"]["resourceVersion"])
        for one in changes
    ]


Told = list[list[tuple[str, str, str]]]


def batches(watch: Watch, until: tuple[str, str]) -> Told:
    """Those that are not empty, until the named change of the named object has come."""
    got = []
    for batch in watch:
        if batch:
            got.append(told(batch))
        if any((kind, name) == until for kind, name, _ in told(batch)):
            break
    watch.close()
    return got


def changes(watch: Watch, until: tuple[str, str]) -> list[tuple[str, str, str]]:
    """All of them, where it depends on the network what comes in one batch."""
    return [one for batch in batches(watch, until) for one in batch]


END = event("ADDED", workflow("end", 999))
AT_END = ("ADDED", "end")


# --- what is asked for ---------------------------------------------------------------------------


def test_a_list_is_followed_by_a_watch_from_its_version(cluster: Cluster, script: Script) -> None:
    script.lists = [list_answer(10, workflow("a", 1), workflow("b", 2))]
    script.watches = [watched(END)]
    watch = Watch(cluster, PATH, query={"labelSelector": "x=y"}, metadata=True)
    first, last = batches(watch, AT_END)
    assert first == [("ADDED", "a", "1"), ("ADDED", "b", "2")]
    assert last == [("ADDED", "end", "999")]
    listing, watching = script.requested
    assert listing.query == {"labelSelector": "x=y", "resourceVersion": "0"}
    assert listing.headers["accept"] == METADATA_LIST
    seconds = int(watching.query.pop("timeoutSeconds"))
    assert 300 <= seconds <= 600
    assert watching.query == {
        "labelSelector": "x=y",
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": "10",
    }
    assert watching.headers["accept"] == METADATA_ONE


def test_an_empty_list_is_an_empty_batch(cluster: Cluster, script: Script) -> None:
    script.lists = [list_answer(10)]
    watch = Watch(cluster, PATH)
    assert next(iter(watch)) == []
    watch.close()


def test_a_watch_that_is_silent_beyond_its_end_is_opened_again(
    cluster: Cluster, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "WATCH_SECONDS", (0, 0))
    monkeypatch.setattr(watch_module, "LATE_SECONDS", 0.2)
    script.lists = [list_answer(10)]
    script.watches = [watched(end=OPEN), watched(END)]
    assert batches(Watch(cluster, PATH), AT_END)
    assert script.watch_versions == ["10", "10"]


def test_a_list_may_come_compressed(cluster: Cluster, script: Script) -> None:
    page = {"metadata": {"resourceVersion": "10"}, "items": [workflow("a", 1)]}
    body = gzip.compress(json.dumps(page).encode())
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    script.lists = [[head + body, Keep]]
    watch = Watch(cluster, PATH)
    assert told(next(iter(watch))) == [("ADDED", "a", "1")]
    watch.close()
    assert script.requested[0].headers["accept-encoding"] == "gzip"


# --- versions ------------------------------------------------------------------------------------


def test_an_ended_watch_is_resumed_from_the_last_version(cluster: Cluster, script: Script) -> None:
    script.lists = [list_answer(10, workflow("a", 1))]
    script.watches = [
        watched(),
        watched(event("MODIFIED", workflow("a", 11))),
        watched(bookmark(20)),
        watched(event("DELETED", workflow("a", 21)), END),
    ]
    assert changes(Watch(cluster, PATH), AT_END) == [
        ("ADDED", "a", "1"),
        ("MODIFIED", "a", "11"),
        ("DELETED", "a", "21"),
        ("ADDED", "end", "999"),
    ]
    assert script.watch_versions == ["10", "10", "11", "20"]


@pytest.mark.parametrize(
    "gone", [status(410, "Expired", "too old"), watched(failed(410, "Expired"))]
)
def test_an_expired_version_gives_one_batch_of_differences(
    cluster: Cluster, script: Script, gone: list[Piece]
) -> None:
    """Deleted, changed, made anew by the same name, and made, all between two watches."""
    script.lists = [
        list_answer(10, *(workflow(name, 1) for name in ("gone", "same", "grown", "twice"))),
        list_answer(
            50,
            workflow("same", 1),
            workflow("grown", 30, "Succeeded"),
            workflow("twice", 40, uid="another"),
            workflow("new", 45),
        ),
    ]
    script.watches = [gone, watched(END)]
    watch = Watch(cluster, PATH)
    _, diff, _ = batches(watch, AT_END)
    assert diff == [
        ("DELETED", "gone", "1"),
        ("DELETED", "twice", "1"),
        ("MODIFIED", "grown", "30"),
        ("ADDED", "twice", "40"),
        ("ADDED", "new", "45"),
    ]
    assert script.watch_versions == ["10", "50"]
    assert "resourceVersion" not in script.requested[2].query


# --- trouble -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        [Reset],
        [],
        watched(end=()),
        watched(end=(Reset,)),
        watched(failed(500, "InternalError")),
        status(500, "InternalError", "no"),
        status(503, "ServiceUnavailable", "starting", 0),
        status(429, "TooManyRequests", "later", 0),
        status(504, "Timeout", "etcd"),
    ],
)
def test_trouble_is_reported_once_and_retried(
    cluster: Cluster, script: Script, trouble: list[Piece]
) -> None:
    script.lists = [list_answer(10, workflow("a", 1))]
    # Twice each, because a connection that dies at once is tried a second time without a word.
    script.watches = [*[trouble] * 6, watched(END)]
    watch = Watch(cluster, PATH)
    got: Told = []
    for batch in watch:
        got.append(told(batch))
        if AT_END in [(kind, name) for kind, name, _ in got[-1]]:
            break
    watch.close()
    # One empty batch as the connection is lost, and one as it is back.
    assert got[:2] == [[("ADDED", "a", "1")], []] and got[-2:] == [[], [("ADDED", "end", "999")]]
    assert [batch for batch in got if batch] == [got[0], got[-1]]
    assert set(script.watch_versions) == {"10"}


def test_a_server_that_fails_at_first_is_reported_and_retried(
    cluster: Cluster, script: Script
) -> None:
    script.lists = [status(500, "", "no"), status(500, "", "no"), list_answer(10, workflow("a", 1))]
    watch = Watch(cluster, PATH)
    reader = iter(watch)
    assert next(reader) == []
    assert told(next(reader)) == [("ADDED", "a", "1")]
    watch.close()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (forbidden("list", "workflows", "argoproj.io"), 403),
        (status(404, "NotFound", "the server could not find the requested resource"), 404),
        (status(401, "Unauthorized", "Unauthorized"), 401),
    ],
)
def test_an_error_that_a_retry_cannot_fix_is_raised(
    cluster: Cluster, script: Script, answer: list[Piece], code: int
) -> None:
    script.lists = [answer, answer]
    with pytest.raises(ApiError) as caught:
        list(Watch(cluster, PATH))
    assert caught.value.status == code


def test_a_right_that_is_missing_only_for_two_tries_is_retried(
    cluster: Cluster, script: Script
) -> None:
    no = forbidden("watch", "workflows", "argoproj.io")
    script.lists = [list_answer(10)]
    script.watches = [no, no, watched(END)]
    assert batches(Watch(cluster, PATH), AT_END)


def test_a_right_that_is_taken_away_ends_the_watch(cluster: Cluster, script: Script) -> None:
    script.lists = [list_answer(10)]
    script.watches = [forbidden("watch", "workflows", "argoproj.io") for _ in range(10)]
    with pytest.raises(ApiError, match="may not watch workflows"):
        list(Watch(cluster, PATH))
    assert len(script.watches) > 5


def test_pauses_grow_up_to_half_a_minute(
    cluster: Cluster, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    def longest(least: float, most: float) -> float:
        limits.append(most)
        return 0.0

    monkeypatch.setattr(watch_module, "BACKOFF_SECONDS", (0.5, 30.0))
    monkeypatch.setattr("random.uniform", longest)
    script.lists = [status(500, "", "no")] * 9 + [list_answer(10)]
    script.watches = [watched(END)]
    batches(Watch(cluster, PATH), AT_END)
    assert limits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


# --- what cannot be read -------------------------------------------------------------------------


def test_half_a_line_is_dropped_and_asked_for_again(cluster: Cluster, script: Script) -> None:
    line = event("MODIFIED", workflow("a", 11))
    for cut in (1, len(line) // 2, len(line) - 1):
        script.lists = [list_answer(10, workflow("a", 1))]
        script.watches = [watched(line[:cut], end=()), watched(line[:cut]), watched(line, END)]
        assert changes(Watch(cluster, PATH), AT_END) == [
            ("ADDED", "a", "1"),
            ("MODIFIED", "a", "11"),
            ("ADDED", "end", "999"),
        ]


def test_events_are_decoded_however_the_bytes_are_cut(cluster: Cluster, script: Script) -> None:
    names = [f"job-{number}" for number in range(30)]
    lines = b"".join(event("ADDED", workflow(name, 20)) for name in names) + END
    script.lists = [list_answer(10)]
    script.watches = [
        [CHUNKED, *(chunk(lines[at : at + 7]) for at in range(0, len(lines), 7)), LAST]
    ]
    got = changes(Watch(cluster, PATH), AT_END)
    assert [name for _, name, _ in got] == [*names, "end"]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"no json\n",
        b"[]\n",
        b'"ADDED"\n',
        b"{}\n",
        b'{"type": "ADDED"}\n',
        b'{"type": "ADDED", "object": null}\n',
        b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": "11"}}}\n',
        b'{"type": "UNHEARD", "object": {"metadata": {"resourceVersion": "10", "uid": "u"}}}\n',
        b"\xff\xfe\n",
    ],
)
def test_an_unreadable_line_is_skipped(cluster: Cluster, script: Script, line: bytes) -> None:
    script.lists = [list_answer(10)]
    script.watches = [watched(line, END)]
    assert batches(Watch(cluster, PATH), AT_END) == [[("ADDED", "end", "999")]]


@pytest.mark.parametrize("answer", [json_answer([]), json_answer({}), json_answer({"items": [{}]})])
def test_an_unreadable_list_is_retried(
    cluster: Cluster, script: Script, answer: list[Piece]
) -> None:
    script.lists = [answer, list_answer(10, workflow("a", 1))]
    watch = Watch(cluster, PATH)
    reader = iter(watch)
    assert next(reader) == []
    assert told(next(reader)) == [("ADDED", "a", "1")]
    watch.close()


def test_changes_before_an_error_in_the_same_chunk_are_not_lost(
    cluster: Cluster, script: Script
) -> None:
    script.lists = [list_answer(10), list_answer(30, workflow("a", 11))]
    both = event("ADDED", workflow("a", 11)) + failed(410, "Expired")
    script.watches = [watched(both), watched(END)]
    got = batches(Watch(cluster, PATH), AT_END)
    assert got == [[("ADDED", "a", "11")], [("ADDED", "end", "999")]]


# --- closing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["list", "watch", "pause"])
def test_close_ends_the_iteration_in_any_state(
    cluster: Cluster,
    server: ScriptedServer,
    script: Script,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch_module, "BACKOFF_SECONDS", (3600.0, 3600.0))
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    script.lists = [[Hold]] if where == "list" else [list_answer(10, workflow("a", 1))]
    script.watches = [watched(end=OPEN)] if where == "watch" else [[Reset], [Reset]]
    watch = Watch(cluster, PATH)
    errors: list[BaseException] = []
    in_trouble = threading.Event()

    def read() -> None:
        try:
            for batch in watch:
                if not batch:
                    in_trouble.set()
        except BaseException as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    server.wait_for({"list": 1, "watch": 2, "pause": 3}[where])
    if where == "pause":
        assert in_trouble.wait(20)
    watch.close()
    reader.join(20)
    assert not reader.is_alive() and errors == []
    server.wait_until_no_client_is_connected()


def test_a_thousand_workflows_are_one_batch(cluster: Cluster, script: Script) -> None:
    many = [workflow(f"job-{number}", number) for number in range(1000)]
    script.lists = [list_answer(2000, *many)]
    watch = Watch(cluster, PATH, metadata=True)
    assert len(next(iter(watch))) == 1000
    watch.close()
