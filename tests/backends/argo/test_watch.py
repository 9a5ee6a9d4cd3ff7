"""List and watch by the watcher's contract, against a scripted API server.

The numbers in the names are the contract's: W1 what is asked for, W2 resource versions, W3 errors, W4
what cannot be read, W5 one diff after a gap, W6 terminal states; C22 pauses, C23 closing.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.argo import watch as watch_module
from backends.argo.cluster import (
    METADATA_LIST,
    METADATA_ONE,
    ApiError,
    Cluster,
    workflows_path,
)
from backends.argo.watch import Change, Object, Watch, workflow_is_over
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
    scripted_server,
    status,
)

PATH = workflows_path("team-a")


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def cluster(server: ScriptedServer, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(context=None, namespace=None, kubeconfig=server.kubeconfig(tmp_path))
    yield cluster
    cluster.close()


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "BACKOFF_SECONDS", (0.0, 0.0))


def workflow(name: str, version: int, phase: str = "Running", uid: str = "") -> Object:
    labels = {"workflows.argoproj.io/phase": phase}
    metadata = {"name": name, "uid": uid or f"uid-of-{name}", "resourceVersion": str(version)}
    return {"metadata": {**metadata, "labels": labels}}


def listed(version: int, *objects: Object, more: str = "") -> list[Piece]:
    metadata = {"resourceVersion": str(version), **({"continue": more} if more else {})}
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
        self.asked: list[Request] = []
        server.answers["/workflows"] = [self]

    def __call__(self, request: Request) -> list[Piece]:
        self.asked.append(request)
        answers = self.watches if "watch" in request.query else self.lists
        return answers.pop(0) if answers else watched(end=OPEN)

    @property
    def watch_versions(self) -> list[str]:
        return [one.query["resourceVersion"] for one in self.asked if "watch" in one.query]


@pytest.fixture
def script(server: ScriptedServer) -> Script:
    return Script(server)


def told(changes: list[Change]) -> list[tuple[str, str, str]]:
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


def is_stale(watch: Watch) -> bool:
    assert (watch.trouble is None) or watch.stale_since is not None
    return watch.stale_since is not None


END = event("ADDED", workflow("end", 999))
AT_END = ("ADDED", "end")


# --- what is asked for ---------------------------------------------------------------------------


def test_w01_a_list_by_pages_and_a_watch_from_where_it_stood(
    cluster: Cluster, script: Script
) -> None:
    script.lists = [
        listed(10, workflow("a", 1), more="page-2"),
        listed(10, workflow("b", 2), more="page-3"),
        listed(10, workflow("c", 3)),
    ]
    script.watches = [watched(END)]
    watch = Watch(cluster, PATH, query={"labelSelector": "x=y"}, metadata=True)
    first, last = batches(watch, AT_END)
    assert first == [("ADDED", "a", "1"), ("ADDED", "b", "2"), ("ADDED", "c", "3")]
    assert last == [("ADDED", "end", "999")]
    assert len(watch.objects) == 4
    *lists, watching = script.asked
    assert [one.query for one in lists] == [
        {"labelSelector": "x=y", "limit": "500", "resourceVersion": "0"},
        {"labelSelector": "x=y", "limit": "500", "continue": "page-2"},
        {"labelSelector": "x=y", "limit": "500", "continue": "page-3"},
    ]
    assert {one.headers["accept"] for one in lists} == {METADATA_LIST}
    seconds = int(watching.query.pop("timeoutSeconds"))
    assert 300 <= seconds <= 600
    assert watching.query == {
        "labelSelector": "x=y",
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": "10",
    }
    assert watching.headers["accept"] == METADATA_ONE


def test_w01_nothing_there_is_an_empty_batch(cluster: Cluster, script: Script) -> None:
    script.lists = [listed(10)]
    watch = Watch(cluster, PATH)
    assert is_stale(watch)
    assert next(iter(watch)) == []
    assert not is_stale(watch)
    watch.close()


def test_w01_a_watch_that_says_nothing_beyond_its_end_is_dead(
    cluster: Cluster, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "WATCH_SECONDS", (0, 0))
    monkeypatch.setattr(watch_module, "LATE_SECONDS", 0.2)
    script.lists = [listed(10)]
    script.watches = [watched(end=OPEN), watched(END)]
    assert batches(Watch(cluster, PATH), AT_END)
    assert script.watch_versions == ["10", "10"]


def test_w01_a_list_may_come_compressed(cluster: Cluster, script: Script) -> None:
    page = {"metadata": {"resourceVersion": "10"}, "items": [workflow("a", 1)]}
    body = gzip.compress(json.dumps(page).encode())
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    script.lists = [[head + body, Keep]]
    watch = Watch(cluster, PATH)
    assert told(next(iter(watch))) == [("ADDED", "a", "1")]
    watch.close()
    assert script.asked[0].headers["accept-encoding"] == "gzip"


# --- versions ------------------------------------------------------------------------------------


def test_w02_after_an_end_it_goes_on_from_the_last_version(
    cluster: Cluster, script: Script
) -> None:
    script.lists = [listed(10, workflow("a", 1))]
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
def test_w02_w05_a_version_that_is_too_old_brings_one_diff(
    cluster: Cluster, script: Script, gone: list[Piece]
) -> None:
    """Deleted, changed, made anew by the same name, and made: all while nobody watched."""
    script.lists = [
        listed(10, *(workflow(name, 1) for name in ("gone", "same", "grown", "twice"))),
        listed(
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
    assert "resourceVersion" not in script.asked[2].query


def test_w02_a_page_that_is_too_old_begins_the_list_again(cluster: Cluster, script: Script) -> None:
    script.lists = [
        listed(10, workflow("a", 1), more="page-2"),
        status(410, "Expired", "the continue token is too old"),
        listed(20, workflow("b", 15)),
    ]
    script.watches = [watched(END)]
    first, _ = batches(Watch(cluster, PATH), AT_END)
    assert first == [("ADDED", "b", "15")]


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
def test_w03_w05_trouble_is_told_once_and_waited_out(
    cluster: Cluster, script: Script, trouble: list[Piece]
) -> None:
    script.lists = [listed(10, workflow("a", 1))]
    # Twice each, because a connection that dies at once is tried a second time without a word.
    script.watches = [*[trouble] * 6, watched(END)]
    watch = Watch(cluster, PATH)
    stale: list[bool] = []
    got: Told = []
    for batch in watch:
        got.append(told(batch))
        if not stale or stale[-1] != is_stale(watch):
            stale.append(is_stale(watch))
        if AT_END in [(kind, name) for kind, name, _ in got[-1]]:
            break
    watch.close()
    assert stale[:2] == [False, True] and stale[-1] is False
    assert [batch for batch in got if batch] == [[("ADDED", "a", "1")], [("ADDED", "end", "999")]]
    assert set(script.watch_versions) == {"10"}


def test_w03_no_server_at_first_is_told_and_waited_out(cluster: Cluster, script: Script) -> None:
    script.lists = [status(500, "", "no"), status(500, "", "no"), listed(10, workflow("a", 1))]
    watch = Watch(cluster, PATH)
    reader = iter(watch)
    assert next(reader) == []
    assert is_stale(watch) and watch.trouble is not None and watch.trouble.status == 500
    assert told(next(reader)) == [("ADDED", "a", "1")]
    assert not is_stale(watch)
    watch.close()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (forbidden("list", "workflows", "argoproj.io"), 403),
        (status(404, "NotFound", "the server could not find the requested resource"), 404),
        (status(401, "Unauthorized", "Unauthorized"), 401),
    ],
)
def test_w03_what_asking_again_does_not_hint_is_raised(
    cluster: Cluster, script: Script, answer: list[Piece], code: int
) -> None:
    script.lists = [answer, answer]
    with pytest.raises(ApiError) as caught:
        list(Watch(cluster, PATH))
    assert caught.value.status == code


def test_w03_a_right_that_comes_back_soon_was_a_server_starting(
    cluster: Cluster, script: Script
) -> None:
    no = forbidden("watch", "workflows", "argoproj.io")
    script.lists = [listed(10)]
    script.watches = [no, no, watched(END)]
    assert batches(Watch(cluster, PATH), AT_END)


def test_w03_a_right_that_is_taken_away_ends_it(cluster: Cluster, script: Script) -> None:
    script.lists = [listed(10)]
    script.watches = [forbidden("watch", "workflows", "argoproj.io") for _ in range(10)]
    with pytest.raises(ApiError, match="may not watch workflows"):
        list(Watch(cluster, PATH))
    assert len(script.watches) > 5


def test_c22_pauses_grow_up_to_half_a_minute(
    cluster: Cluster, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    def longest(least: float, most: float) -> float:
        limits.append(most)
        return 0.0

    monkeypatch.setattr(watch_module, "BACKOFF_SECONDS", (0.5, 30.0))
    monkeypatch.setattr("random.uniform", longest)
    script.lists = [status(500, "", "no")] * 9 + [listed(10)]
    script.watches = [watched(END)]
    batches(Watch(cluster, PATH), AT_END)
    assert limits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


# --- what cannot be read -------------------------------------------------------------------------


def test_w04_half_a_line_is_thrown_away_and_asked_for_again(
    cluster: Cluster, script: Script
) -> None:
    line = event("MODIFIED", workflow("a", 11))
    for cut in (1, len(line) // 2, len(line) - 1):
        script.lists = [listed(10, workflow("a", 1))]
        script.watches = [watched(line[:cut], end=()), watched(line[:cut]), watched(line, END)]
        assert changes(Watch(cluster, PATH), AT_END) == [
            ("ADDED", "a", "1"),
            ("MODIFIED", "a", "11"),
            ("ADDED", "end", "999"),
        ]


def test_w04_events_come_whole_however_they_are_cut(cluster: Cluster, script: Script) -> None:
    names = [f"job-{number}" for number in range(30)]
    lines = b"".join(event("ADDED", workflow(name, 20)) for name in names) + END
    script.lists = [listed(10)]
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
def test_w04_a_line_that_cannot_be_read_is_passed_over(
    cluster: Cluster, script: Script, line: bytes
) -> None:
    script.lists = [listed(10)]
    script.watches = [watched(line, END)]
    assert batches(Watch(cluster, PATH), AT_END) == [[("ADDED", "end", "999")]]


@pytest.mark.parametrize("answer", [json_answer([]), json_answer({}), json_answer({"items": [{}]})])
def test_w04_a_list_that_is_none_is_trouble(
    cluster: Cluster, script: Script, answer: list[Piece]
) -> None:
    script.lists = [answer, listed(10)]
    script.watches = [watched(END)]
    watch = Watch(cluster, PATH)
    assert next(iter(watch)) == []
    assert watch.trouble is not None
    watch.close()


def test_w04_an_unknown_phase_is_shown_as_it_is(cluster: Cluster, script: Script) -> None:
    script.lists = [listed(10, workflow("a", 1, "Pondering"))]
    watch = Watch(cluster, PATH, over=workflow_is_over)
    (change,) = next(iter(watch))
    watch.close()
    assert change.object["metadata"]["labels"]["workflows.argoproj.io/phase"] == "Pondering"


def test_w05_changes_before_an_error_in_the_same_breath_are_not_lost(
    cluster: Cluster, script: Script
) -> None:
    script.lists = [listed(10), listed(30, workflow("a", 11))]
    both = event("ADDED", workflow("a", 11)) + failed(410, "Expired")
    script.watches = [watched(both), watched(END)]
    got = batches(Watch(cluster, PATH), AT_END)
    assert got == [[("ADDED", "a", "11")], [("ADDED", "end", "999")]]


# --- terminal states -----------------------------------------------------------------------------


def test_w06_what_has_ended_stays_so(cluster: Cluster, script: Script) -> None:
    """A second API server may be behind the first."""
    script.lists = [
        listed(10, workflow("a", 1, "Succeeded"), workflow("b", 1)),
        listed(9, workflow("a", 0), workflow("b", 2, "Failed")),
    ]
    script.watches = [
        watched(event("MODIFIED", workflow("a", 0)), failed(410, "Expired")),
        watched(
            event("MODIFIED", workflow("b", 1)),
            event("MODIFIED", workflow("a", 12, "Succeeded")),
            event("DELETED", workflow("a", 13)),
            event("ADDED", workflow("a", 14, uid="another")),
            END,
        ),
    ]
    assert changes(Watch(cluster, PATH, over=workflow_is_over), AT_END) == [
        ("ADDED", "a", "1"),
        ("ADDED", "b", "1"),
        ("MODIFIED", "b", "2"),
        ("MODIFIED", "a", "12"),
        ("DELETED", "a", "13"),
        ("ADDED", "a", "14"),
        ("ADDED", "end", "999"),
    ]


@pytest.mark.parametrize(
    ("labels", "over"),
    [
        (None, False),
        ({}, False),
        ({"workflows.argoproj.io/phase": "Running"}, False),
        ({"workflows.argoproj.io/phase": "Error"}, True),
        ({"workflows.argoproj.io/completed": "true"}, True),
        ({"workflows.argoproj.io/completed": "false"}, False),
    ],
)
def test_w06_over_by_its_labels(labels: Any, over: bool) -> None:
    assert workflow_is_over({"metadata": {"labels": labels}}) is over


# --- closing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["list", "watch", "pause"])
def test_c23_closing_ends_it_from_any_state(
    cluster: Cluster,
    server: ScriptedServer,
    script: Script,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch_module, "BACKOFF_SECONDS", (3600.0, 3600.0))
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    script.lists = [[Hold]] if where == "list" else [listed(10)]
    script.watches = [watched(end=OPEN)] if where == "watch" else [[Reset], [Reset]]
    watch = Watch(cluster, PATH)
    errors: list[BaseException] = []
    in_trouble = threading.Event()

    def read() -> None:
        try:
            for _ in watch:
                if watch.trouble is not None:
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
    server.wait_until_nobody_is_connected()


def test_w05_a_thousand_workflows_are_one_batch(cluster: Cluster, script: Script) -> None:
    many = [workflow(f"job-{number}", number) for number in range(1000)]
    script.lists = [listed(2000, *many[:500], more="x"), listed(2000, *many[500:])]
    watch = Watch(cluster, PATH, metadata=True)
    assert len(next(iter(watch))) == 1000
    watch.close()
