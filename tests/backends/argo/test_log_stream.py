"""A job's log from before its container is there to its confirmed end; closing at any moment."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backends.argo import log_stream
from backends.argo import pod_log as log_module
from backends.argo.cluster import Cluster
from backends.argo.log_stream import JobLog, job_or_argo
from stoke.backend.api import ENGINE, Frame, LogEndingError
from stoke.errors import EngineError
from tests.backends.argo.scripted_server import (
    CHUNKED,
    LAST,
    SECOND,
    Hold,
    Piece,
    Request,
    ScriptedServer,
    chunk,
    forbidden,
    json_answer,
    stamp,
    status,
)

JOB = "fit-aaaaaa"
START = 1_763_680_000 * SECOND


def pod(state: dict[str, Any] | None, version: int = 2, phase: str = "Running") -> dict[str, Any]:
    statuses = [{"name": "main", "state": state}] if state else []
    about = {"name": JOB, "uid": "p", "resourceVersion": str(version)}
    return {"metadata": about, "status": {"phase": phase, "containerStatuses": statuses}}


def workflow(version: int = 2, **labels: str) -> dict[str, Any]:
    about = {"name": JOB, "uid": "w", "resourceVersion": str(version), "labels": labels}
    return {"metadata": about}


RUNNING = {"running": {"startedAt": "2026-11-21T10:00:00Z"}}
TERMINATED = {"terminated": {"exitCode": 0, "startedAt": "2026-11-21T10:00:00Z"}}
WAITING = {"waiting": {"reason": "PodInitializing"}}
FAILED = {"workflows.argoproj.io/phase": "Failed"}


def watched(there: list[dict[str, Any]], *later: Piece | tuple[str, dict[str, Any]]) -> Any:
    """A resource that holds `there`; a watch of it brings `later` and then nothing."""

    def answer(request: Request) -> list[Piece]:
        if "watch" not in request.query:
            return json_answer({"metadata": {"resourceVersion": "1"}, "items": there})
        pieces: list[Piece] = [CHUNKED]
        for one in later:
            if isinstance(one, tuple):
                kind, thing = one
                pieces.append(chunk(json.dumps({"type": kind, "object": thing}).encode() + b"\n"))
            else:
                pieces.append(one)
        return [*pieces, Hold]

    return [answer]


def job_log(server: ScriptedServer, folder: Path, follow: bool = True) -> JobLog:
    cluster = Cluster(context=None, namespace=None, kubeconfig=server.kubeconfig(folder))
    return JobLog(cluster, JOB, 0, follow, lambda _: None, lambda: None, start_timeout=0.3)


def log_answer(*lines: bytes, end: Piece = LAST) -> list[Any]:
    body = b"".join(stamp(START) + line for line in lines)
    return [[CHUNKED, chunk(body), end]]


LINES = (b"time=... argo=true\n", b"\x1ehello\x1d\n", b"\x1eoops\x1e\n")
FRAMES = [Frame(ENGINE, START, LINES[0]), Frame(1, START, b"hello\n"), Frame(2, START, b"oops")]


def test_a_followed_log_waits_for_the_container_and_for_its_end(
    server: ScriptedServer, tmp_path: Path
) -> None:
    ended = threading.Event()
    server.answers = {
        "/log": log_answer(*LINES),
        "/pods": watched(
            [],
            ("ADDED", pod(WAITING, phase="Pending")),
            ("MODIFIED", pod(RUNNING, 3)),
            ended,
            ("MODIFIED", pod(TERMINATED, 4)),
        ),
        "/workflows": watched([workflow()]),
    }
    frames = []
    for batch in job_log(server, tmp_path):
        frames += batch
        if len(frames) == len(FRAMES):
            ended.set()
    assert frames == FRAMES
    server.wait_until_no_client_is_connected()


def test_a_pod_that_cannot_start_is_worth_asking_for_once_its_time_is_over(
    server: ScriptedServer, tmp_path: Path
) -> None:
    stuck = pod({"waiting": {"reason": "ImagePullBackOff"}}, phase="Pending")
    now = datetime.now(UTC).isoformat()
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}
    stuck["status"]["conditions"] = [scheduled]
    server.answers = {"/pods": watched([stuck]), "/workflows": watched([workflow()])}
    log = job_log(server, tmp_path)
    batches = iter(log)
    # Twice for what the watches say first; nothing comes after that, but the time.
    assert [next(batches) for _ in range(3)] == [[], [], []]
    log.close()
    server.wait_until_no_client_is_connected()


def test_a_workflow_that_ends_without_a_pod_ends_the_waiting(
    server: ScriptedServer, tmp_path: Path
) -> None:
    server.answers = {
        "/pods": watched([]),
        "/workflows": watched([workflow()], ("MODIFIED", workflow(3, **FAILED))),
    }
    log = job_log(server, tmp_path)
    assert [batch for batch in log if batch] == []
    server.wait_until_no_client_is_connected()


def test_a_pod_that_is_deleted_is_not_waited_for(server: ScriptedServer, tmp_path: Path) -> None:
    server.answers = {
        "/log": log_answer(*LINES),
        "/pods": watched([pod(RUNNING)], ("DELETED", pod(RUNNING, 3))),
        "/workflows": watched([workflow()]),
    }
    assert [frame for batch in job_log(server, tmp_path) for frame in batch] == FRAMES


def on_node(version: int, is_ready: bool) -> dict[str, Any]:
    """A running pod on a node that the cluster is in contact with, or has lost."""
    found = pod(RUNNING, version)
    ready = {"type": "Ready", "status": str(is_ready)}
    found["status"]["conditions"] = [ready, {"type": "ContainersReady", "status": "True"}]
    return {**found, "spec": {"nodeName": "node-a"}}


@pytest.mark.parametrize("before", [True, False], ids=["lost", "regained"])
def test_a_log_ends_when_the_contact_with_its_node_is_lost_or_regained(
    server: ScriptedServer, tmp_path: Path, before: bool
) -> None:
    printed = threading.Event()
    change = ("MODIFIED", on_node(3, not before))
    server.answers = {
        "/log": log_answer(*LINES, end=Hold),
        "/pods": watched([on_node(2, before)], printed, change),
        "/workflows": watched([workflow()]),
    }
    log = job_log(server, tmp_path)
    frames = []
    for batch in log:
        frames += batch
        if len(frames) == len(FRAMES):
            printed.set()
    # Its reader asks for the state at once, and then for the rest of the log.
    assert frames == FRAMES and log.was_silent


def test_C19_a_log_that_fell_silent_ends_before_the_job_does(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(log_stream, "END_SECONDS", 1e6)
    server.answers = {
        "/log": log_answer(*LINES, end=Hold),
        "/pods": watched([pod(RUNNING)]),
        "/workflows": watched([workflow()]),
    }
    assert [frame for batch in job_log(server, tmp_path) for frame in batch] == FRAMES


def test_without_the_right_to_watch_the_log_is_read(server: ScriptedServer, tmp_path: Path) -> None:
    server.answers = {
        "/log": log_answer(*LINES),
        "/pods": [forbidden("list", "pods")],
        "/workflows": watched([workflow()]),
    }
    assert [frame for batch in job_log(server, tmp_path) for frame in batch] == FRAMES


@pytest.mark.parametrize("code", [400, 404])
def test_a_log_that_is_not_there_is_empty(
    server: ScriptedServer, tmp_path: Path, code: int
) -> None:
    server.answers = {"/log": [status(code, "No", "is waiting to start, or has gone")]}
    assert list(job_log(server, tmp_path, follow=False)) == []


def test_without_the_right_to_read_logs_the_log_is_denied(
    server: ScriptedServer, tmp_path: Path
) -> None:
    server.answers = {"/log": [forbidden("get", "pods/log")]}
    with pytest.raises(EngineError, match="pods/log"):
        list(job_log(server, tmp_path, follow=False))


@pytest.mark.parametrize("moment", ["before the pod", "in the log", "before the end"])
def test_C23_closing_ends_it_wherever_it_is(
    server: ScriptedServer, tmp_path: Path, moment: str
) -> None:
    there = [] if moment == "before the pod" else [pod(RUNNING)]
    end: Piece = Hold if moment == "in the log" else LAST
    server.answers = {
        "/log": log_answer(*LINES, end=end),
        "/pods": watched(there),
        "/workflows": watched([workflow()]),
    }
    log = job_log(server, tmp_path)
    thread = threading.Thread(target=lambda: list(log), daemon=True)
    thread.start()
    # Two lists and two watches; then whose log it is, and the log.
    server.wait_for(4 if moment == "before the pod" else 6)
    log.close()
    thread.join(20)
    assert not thread.is_alive()
    log._cluster.close()  # A connection is kept for the next question.
    server.wait_until_no_client_is_connected()


@pytest.mark.parametrize("deleted", [True, False])
def test_a_log_that_a_node_cannot_read_any_more_is_no_news_of_a_deleted_pod(
    server: ScriptedServer, tmp_path: Path, deleted: bool
) -> None:
    failed = b"unable to retrieve container logs for containerd://1234\n"
    there = pod(RUNNING)
    if deleted:
        there["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:30Z"
    body = stamp(START) + LINES[1] + failed
    server.answers = {"/log": [[CHUNKED, chunk(body), LAST]], f"/pods/{JOB}": [json_answer(there)]}
    with pytest.raises(EngineError, match="cannot read its log") as caught:
        list(job_log(server, tmp_path, follow=False))
    assert isinstance(caught.value, LogEndingError) == deleted


def test_unmarked_lines_are_argos() -> None:
    line = b'time=2026-11-21T10:00:00.000Z level=INFO msg="sub-process exited" argo=true\n'
    assert job_or_argo(7, line) == Frame(ENGINE, 7, line)
    assert job_or_argo(7, b"\x1e" + line[:-1] + b"\x1f\n") == Frame(2, 7, line)
