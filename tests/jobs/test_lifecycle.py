"""Submitting, stopping, removing and finding jobs again, on an engine that follows a script."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stoke.backend.api import (
    Capabilities,
    Delivery,
    EngineState,
    EngineStatus,
    FoundJob,
    Frame,
    PhaseReport,
    UnsettledSubmitError,
)
from stoke.errors import EngineError, RequestError
from stoke.files.paths import job_dir, state_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState, Phase
from stoke.jobs.control import remove, stop
from stoke.jobs.prepare import check_request, prepare
from stoke.jobs.refresh import adopt, clean_up, reconcile, refresh
from stoke.jobs.request import Request
from stoke.jobs.submit import submit as submit_prepared
from stoke.jobs.submit_lock import is_being_submitted
from stoke.logs import follower as follower_module
from stoke.logs.spool import STDERR, STDOUT
from stoke.remote.protocol import frame
from stoke.request.spec import make_spec
from tests.scripted import (
    ABSENT,
    RUNNING,
    Connection,
    ScriptedBackend,
    SlowlyRemovingBackend,
    backends_of,
    exited,
)
from tests.spools import lines_in

CREATED = EngineState(EngineStatus.CREATED)
S = 1_000_000_000


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(follower_module, "BACKOFF_SECONDS", (0.0, 0.0))


@pytest.fixture
def history() -> Iterator[History]:
    with History() as history:
        yield history


def request(**fields: Any) -> Request:
    return Request(make_spec({"code": "print(1)", **fields}), name="Fit Model")


def submit(
    asked: Request,
    backend: ScriptedBackend,
    history: History,
    report: PhaseReport = lambda name, start, seconds: None,
) -> Job:
    return submit_prepared(prepare(asked, backend, history), history, report)


def found(history: History, job_id: str) -> Job:
    job = history.get(job_id)
    assert job is not None
    return job


# --- submit --------------------------------------------------------------------------------------


def test_a_job_is_in_the_history_before_the_engine_hears_of_it(history: History) -> None:
    """A program killed right then leaves a row that a later one can place."""
    met: list[tuple[JobState, str | None, bool]] = []
    backend = ScriptedBackend()

    def look(delivery: Delivery, report: PhaseReport) -> None:
        job = found(history, delivery.job_id)
        met.append((job.state, history.nonce(job.id), is_being_submitted(job.id)))

    backend.on_submit = look
    job = submit(request(scope="team"), backend, history)

    (delivery,) = backend.submitted
    assert met == [(JobState.QUEUED, delivery.nonce, True)]
    assert job.id == delivery.job_id and job.id.startswith("fit-model-")
    assert (job.state, job.scope, job.backend) == (JobState.STARTING, "team", "scripted")
    assert job.request_hash
    assert not is_being_submitted(job.id)
    assert json.loads(history.spec(job.id) or "")["code"] == "print(1)"


def test_the_delivery_is_all_that_the_engine_needs(history: History) -> None:
    backend = ScriptedBackend()
    asked = dataclasses.replace(
        request(dependencies=["numpy"]), program="fit.py", upgrade=True, lock_ttl=5
    )
    submit(asked, backend, history)
    (delivery,) = backend.submitted
    payload = json.loads(gzip.decompress(delivery.payload))
    assert payload["nonce"] == delivery.nonce
    assert (payload["program"], payload["upgrade"], payload["lock_ttl"]) == ("fit.py", True, 0)
    assert json.loads(delivery.public_spec)["dependencies"] == ["numpy"]
    assert b"def main" in delivery.runner


def test_two_jobs_have_nothing_in_common(history: History) -> None:
    backend = ScriptedBackend()
    submit(request(), backend, history)
    submit(request(), backend, history)
    one, two = backend.submitted
    assert one.job_id != two.job_id
    assert one.nonce != two.nonce
    assert len(one.nonce) >= 16


def test_no_secret_stays_on_this_machine(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "hunter2")
    monkeypatch.setenv("CREDENTIALS", "user:hunter2")
    backend = ScriptedBackend()
    submit(
        request(
            secrets={"TOKEN": "env:PLACE"},
            index={"url": "https://i.example/s", "credentials": "env:CREDENTIALS"},
        ),
        backend,
        history,
    )
    (delivery,) = backend.submitted
    assert b"hunter2" in gzip.decompress(delivery.payload)
    assert b"hunter2" not in delivery.public_spec
    history.close()
    for path in state_dir().rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path


def test_the_engines_phases_are_kept_and_reported(history: History) -> None:
    backend = ScriptedBackend()

    def pull(delivery: Delivery, report: PhaseReport) -> None:
        report("pull", 1000.0, None)
        report("pull", 1000.0, 2.5)

    backend.on_submit = pull
    reported: list[tuple[str, float, float | None]] = []
    job = submit(request(), backend, history, lambda *phase: reported.append(phase))
    assert job.phases == [Phase("pull", 1000.0, 2.5)]
    assert reported == [("pull", 1000.0, None), ("pull", 1000.0, 2.5)]


def test_an_engine_that_refuses_leaves_a_failed_job_with_the_reason(history: History) -> None:
    backend = ScriptedBackend()

    def refuse(delivery: Delivery, report: PhaseReport) -> None:
        raise EngineError("there is no image called x", "stoke setup image")

    backend.on_submit = refuse
    with pytest.raises(EngineError, match="no image called x"):
        submit(request(), backend, history)
    (job,) = history.list()
    assert (job.state, job.exit_code, job.reason) == (
        JobState.FAILED,
        125,
        "there is no image called x",
    )
    assert job.finished_at is not None
    assert not is_being_submitted(job.id)


@pytest.mark.parametrize(
    ("state", "expected"),
    [(CREATED, JobState.LOST), (ABSENT, JobState.LOST), (RUNNING, JobState.QUEUED)],
)
def test_a_submit_without_an_answer_is_settled_by_the_next_refresh(
    history: History, state: EngineState, expected: JobState
) -> None:
    backend = ScriptedBackend()

    def lose(delivery: Delivery, report: PhaseReport) -> None:
        error = EngineError("lost the engine", "start it")
        raise UnsettledSubmitError(delivery.job_id, error, may_have_begun=True) from error

    backend.on_submit = lose
    with pytest.raises(UnsettledSubmitError) as lost:
        submit(request(), backend, history)
    (job,) = history.list()
    assert lost.value.job_id == job.id
    assert lost.value.hint == f"start it; then see what became of it: stoke show {job.id}"
    assert (job.state, job.exit_code, job.finished_at) == (JobState.QUEUED, None, None)
    assert job.reason == "lost the engine; it is unknown whether the job began"
    assert not is_being_submitted(job.id)

    backend.states = [state]
    (after,) = refresh([job], backends_of(backend), history, seconds=60)
    assert (after.state, after.stale) == (expected, False)
    if state == CREATED:
        assert backend.removed == [job.id]
    if expected is JobState.LOST:
        assert "lost the engine" in (after.reason or "")


def test_ctrl_c_in_the_middle_takes_everything_back(history: History) -> None:
    backend = ScriptedBackend()

    def interrupt(delivery: Delivery, report: PhaseReport) -> None:
        raise KeyboardInterrupt

    backend.on_submit = interrupt
    with pytest.raises(KeyboardInterrupt):
        submit(request(), backend, history)
    (job,) = history.list()
    assert (job.state, job.exit_code) == (JobState.FAILED, 125)
    assert backend.removed == [job.id]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"system": ["gcc", "make"]}, "system", ["has no system packages", "scripted"]),
        ({"image": "python:3.13"}, "image", ["scripted"]),
        ({"cpu": 2}, "cpu", ["sets no limits", "scripted"]),
        ({"memory": "1g"}, "memory", ["sets no limits", "scripted"]),
    ],
)
def test_a_request_beyond_the_backends_capabilities_creates_nothing(
    history: History, fields: dict[str, Any], field: str, words: list[str]
) -> None:
    able = Capabilities(True, True, True, True, "")
    unable = Capabilities(False, False, False, False, "a sentence about isolation")
    backend = ScriptedBackend(capabilities=unable)
    with pytest.raises(RequestError) as caught:
        submit(request(**fields), backend, history)
    assert caught.value.field == field
    for word in words:
        assert word in caught.value.why
    assert caught.value.hint
    assert (history.list(), backend.submitted) == ([], [])
    check_request(request(**fields).spec, ScriptedBackend(capabilities=able))


def test_a_secret_that_is_missing_makes_no_job(history: History) -> None:
    backend = ScriptedBackend()
    with pytest.raises(RequestError):
        submit(request(secrets={"A": "env:NOT_SET_ANYWHERE"}), backend, history)
    assert (history.list(), backend.submitted) == ([], [])
    assert not job_dir("x").parent.exists()


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from stoke.history.database import History
    from stoke.jobs.prepare import prepare
    from stoke.jobs.request import Request
    from stoke.jobs.submit import submit
    from stoke.request.spec import make_spec
    from tests.scripted import ScriptedBackend

    def die(delivery, report):
        print(delivery.job_id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    with History() as history:
        backend = ScriptedBackend(on_submit=die)
        submit(prepare(Request(make_spec({"code": "1"})), backend, history), history)
    """
)


@pytest.mark.parametrize(
    ("state", "expected"),
    [(CREATED, JobState.LOST), (ABSENT, JobState.LOST), (exited(0), JobState.SUCCEEDED)],
)
def test_a_submit_killed_with_9_is_placed_by_the_next_program(
    history: History, state: EngineState, expected: JobState
) -> None:
    """Whatever the engine has of it: nothing, a container that never started, or all of it."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -9, killed.stderr
    job = found(history, killed.stdout.strip())
    assert (job.state, is_being_submitted(job.id)) == (JobState.QUEUED, False)

    backend = ScriptedBackend(states=[state])
    if state == ABSENT:
        backend.connections = [Connection(0, "refused")] * 20
    elif state == exited(0):
        began = {"event": "begin", "phase": "run", "time": job.submitted_at}
        data = frame(history.nonce(job.id) or "", began)
        backend.log = [Frame(STDERR, int(job.submitted_at * 10**9), data)]
    (after,) = refresh([job], backends_of(backend), history, seconds=60)

    assert (after.state, after.stale) == (expected, False)
    assert after.finished_at is not None
    if state == CREATED:
        assert backend.removed == [job.id]
        assert after.reason == "the job never began: the program that submitted it ended"


def test_a_listing_does_not_wait_for_the_removal_of_jobs_that_never_began(history: History) -> None:
    backend = SlowlyRemovingBackend(states=[CREATED])
    for job_id in ("job-aaaaaa", "job-bbbbbb"):
        add(history, job_id)
    listed = refresh(history.list(), backends_of(backend), history, seconds=60)
    assert [job.state for job in listed] == [JobState.LOST] * 2
    assert sorted(backend.removed) == ["job-aaaaaa", "job-bbbbbb"]


# --- listing -------------------------------------------------------------------------------------


def add(history: History, job_id: str = "a-aaaaaa", backend: str = "scripted") -> Job:
    job = Job(job_id, "a", backend, "default", JobState.RUNNING, 1000.0)
    job.request_hash = "abc"
    history.add(job, "{}", "n0nce")
    return job


def test_a_job_that_ended_while_no_process_followed_it_is_finalized(history: History) -> None:
    job = add(history)
    end = {"event": "end", "time": 1009.0, "exit_code": 3, "reason": None}
    log = [
        Frame(STDERR, 999 * S, frame("n0nce", {"event": "begin", "phase": "run", "time": 999.0})),
        Frame(STDOUT, 1000 * S, b"out\n"),
        Frame(STDERR, 1009 * S, b"err\n" + frame("n0nce", end)),
    ]
    backend = ScriptedBackend(log, states=[exited(3)])

    (after,) = refresh([job], backends_of(backend), history, seconds=60)

    assert (after.state, after.exit_code, after.finished_at) == (JobState.FAILED, 3, 1009.0)
    assert (after.stale, after.log_bytes) == (False, 8)
    assert backend.removed == [job.id]
    assert [line.text for line in lines_in(job_dir(job.id))] == [b"out\n", b"err\n"]


def test_a_job_that_runs_is_left_running_with_its_log_up_to_now(history: History) -> None:
    job = add(history)
    event = {"event": "begin", "phase": "run", "time": 1002.0}
    log = [
        Frame(STDERR, 1002 * S, frame("n0nce", event)),
        Frame(STDOUT, 1003 * S, b"so far\n"),
    ]
    backend = ScriptedBackend(log, states=[RUNNING])
    (after,) = refresh([job], backends_of(backend), history, seconds=60)
    assert (after.state, after.stale, after.started_at) == (JobState.RUNNING, False, 1002.0)
    assert backend.removed == []
    assert [line.text for line in lines_in(job_dir(job.id))] == [b"so far\n"]


@pytest.mark.parametrize("trouble", ["no answer", "no such backend", "hangs"])
def test_a_job_that_cannot_be_asked_about_is_stale_and_not_running(
    history: History, trouble: str
) -> None:
    release = threading.Event()
    backend = ScriptedBackend(states=[EngineError("cannot reach the engine")])
    job = add(history, backend="unheard-of" if trouble == "no such backend" else "scripted")
    if trouble == "hangs":

        def hang(job_id: str) -> EngineState:
            release.wait(60)
            raise EngineError("at last")

        backend.inspect = hang  # type: ignore[method-assign]
    other = ScriptedBackend(states=[RUNNING], name="other")
    beside = add(history, "b-bbbbbb", "other")

    asked = refresh([job, beside], backends_of(backend, other), history, seconds=1)
    release.set()

    assert [(after.id, after.state, after.stale) for after in asked] == [
        (job.id, JobState.RUNNING, True),
        (beside.id, JobState.RUNNING, False),
    ]


def test_a_job_that_is_being_submitted_is_left_alone(history: History) -> None:
    backend = ScriptedBackend(states=[CREATED])

    def look(delivery: Delivery, report: PhaseReport) -> None:
        reconcile(found(history, delivery.job_id), backend, history)

    backend.on_submit = look
    job = submit(request(), backend, history)
    assert job.state is JobState.STARTING
    assert (backend.asked, backend.removed) == (0, [])


def test_jobs_of_another_history_are_adopted_once(history: History) -> None:
    backend = ScriptedBackend(
        found=[
            FoundJob("fit-model-aaaaaa", "team", 900.0, "n0nce", lambda: b'{"code": "1"}'),
            FoundJob("b-bbbbbb", "default", 901.0),
        ]
    )
    assert {job.id for job in adopt(backend, history)} == {"fit-model-aaaaaa", "b-bbbbbb"}
    assert adopt(backend, history) == []
    job = found(history, "fit-model-aaaaaa")
    assert (job.name, job.scope, job.submitted_at) == ("fit-model", "team", 900.0)
    assert not job.state.finished
    assert (history.spec(job.id), history.nonce(job.id)) == ('{"code": "1"}', "n0nce")
    assert (history.spec("b-bbbbbb"), history.nonce("b-bbbbbb")) == (None, None)


@pytest.mark.parametrize("state", [CREATED, RUNNING, exited(3)])
def test_a_late_object_of_a_lost_job_is_removed_by_the_next_listing(
    history: History, state: EngineState
) -> None:
    """A slow engine goes on with it after the program that asked was killed, and it never starts."""
    job = add(history)
    (lost,) = refresh([job], backends_of(ScriptedBackend(states=[ABSENT])), history, seconds=60)
    assert lost.state is JobState.LOST
    backend = ScriptedBackend(states=[state], found=[FoundJob(job.id, "default", 1000.0, "n0nce")])
    assert adopt(backend, history) == []
    assert backend.removed == ([job.id] if state == CREATED else [])


def test_a_job_that_never_reached_the_engine_differs_from_a_forgotten_one(history: History) -> None:
    never, forgotten = add(history), add(history, "b-bbbbbb")
    history.update(never.id, state=JobState.QUEUED)
    lost = refresh(
        [found(history, never.id), forgotten],
        backends_of(ScriptedBackend(states=[ABSENT])),
        history,
        seconds=60,
    )
    assert [job.state for job in lost] == [JobState.LOST] * 2
    assert "does not know this job: the program that submitted it ended" in (lost[0].reason or "")
    assert "no longer knows this job" in (lost[1].reason or "")


def test_a_job_that_never_reached_a_cluster_is_not_said_to_be_deleted_there(
    history: History,
) -> None:
    job = add(history)
    history.update(job.id, state=JobState.QUEUED)
    gone = dataclasses.replace(ABSENT, reason="the cluster no longer has its workflow")
    backends = backends_of(ScriptedBackend(states=[gone]))
    (lost,) = refresh([found(history, job.id)], backends, history, seconds=60)
    assert lost.state is JobState.LOST
    assert "does not know this job: the program that submitted it ended" in (lost.reason or "")


def test_a_full_history_does_not_undo_a_submit(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has the job: whatever cannot be written down now is found out later."""
    backend = ScriptedBackend(on_submit=lambda _, report: report("start", 1.0, 0.5))
    real = History.query

    def query(self: History, sql: str, values: Iterable[Any] = ()) -> Any:
        if backend.submitted and sql.startswith(("UPDATE", "INSERT")):
            raise EngineError("database or disk is full")
        return real(self, sql, values)

    monkeypatch.setattr(History, "query", query)
    job = submit(request(), backend, history)
    assert (len(backend.submitted), backend.removed) == (1, [])
    assert job.state is JobState.QUEUED


@pytest.mark.parametrize("state", [CREATED, RUNNING, exited(3)])
def test_reading_a_job_of_another_history_leaves_it_unchanged(
    history: History, state: EngineState
) -> None:
    """Another user of the engine may be submitting it right now, or may not have its log yet."""
    backend = ScriptedBackend([Frame(STDOUT, 1000, b"theirs\n")], states=[state])
    backend.found = [FoundJob("theirs-aaaaaa", "default", 900.0, "n0nce")]
    adopted = adopt(backend, history)

    (after,) = refresh(adopted, backends_of(backend), history, seconds=60)

    assert backend.removed == []
    assert after.state is (JobState.FAILED if state.exit_code else JobState.STARTING)
    if state.exit_code:
        remove(after, backend, history)
        assert backend.removed == ["theirs-aaaaaa"]


# --- stop and remove -----------------------------------------------------------------------------


def test_a_stop_is_put_down_before_the_engine_is_asked(history: History) -> None:
    """The tracker of the job distinguishes a stop from a failure by it."""
    job = add(history)
    seen: list[bool] = []
    backend = ScriptedBackend()
    backend.stop = lambda job_id, grace: seen.append(  # type: ignore[method-assign]
        found(history, job_id).stop_requested
    )
    stop(job, backend, history, 10)
    assert seen == [True]


def test_a_finished_job_is_not_stopped(history: History) -> None:
    job = add(history)
    history.update(job.id, state=JobState.SUCCEEDED)
    backend = ScriptedBackend()
    stop(found(history, job.id), backend, history, 10)
    assert backend.stopped == []
    assert not found(history, job.id).stop_requested


def test_removing_takes_a_finished_job_from_everywhere(history: History) -> None:
    job = add(history)
    history.update(job.id, state=JobState.FAILED)
    job_dir(job.id).mkdir(parents=True)
    (job_dir(job.id) / "log").write_bytes(b"x")
    backend = ScriptedBackend()
    remove(found(history, job.id), backend, history)
    assert backend.removed == [job.id]
    assert history.get(job.id) is None
    assert not job_dir(job.id).exists()


def test_an_unfinished_job_is_not_removed(history: History) -> None:
    job = add(history)
    backend = ScriptedBackend()
    with pytest.raises(RequestError) as caught:
        remove(job, backend, history)
    assert f"stoke stop {job.id}" in (caught.value.hint or "")
    assert backend.removed == []
    assert history.get(job.id) is not None


def test_a_job_stays_known_when_the_engine_cannot_remove_it(history: History) -> None:
    job = add(history)
    history.update(job.id, state=JobState.FAILED)
    backend = ScriptedBackend()

    def refuse(job_id: str) -> None:
        raise EngineError("cannot reach the engine")

    backend.remove = refuse  # type: ignore[method-assign]
    with pytest.raises(EngineError):
        remove(found(history, job.id), backend, history)
    assert history.get(job.id) is not None


def test_the_engine_keeps_a_job_until_its_end_is_confirmed(history: History) -> None:
    job = add(history)
    backend = ScriptedBackend()
    clean_up(job.id, backend, history)
    history.update(job.id, state=JobState.SUCCEEDED, provisional=True)
    clean_up(job.id, backend, history)
    assert backend.removed == []
    history.update(job.id, provisional=False)
    clean_up(job.id, backend, history)
    assert backend.removed == [job.id]


def test_the_folder_of_a_job_is_only_for_its_owner(history: History) -> None:
    job = submit(request(), ScriptedBackend(), history)
    assert os.stat(job_dir(job.id)).st_mode & 0o077 == 0


def test_a_named_secret_needs_an_engine_that_keeps_some(history: History) -> None:
    spec = make_spec({"code": "pass", "secrets": {"TOKEN": "secret:api/token"}})
    with pytest.raises(RequestError) as refused:
        submit(Request(spec), ScriptedBackend(), history)
    assert refused.value.field == "secrets.TOKEN"
    assert "env:TOKEN" in (refused.value.hint or "")


def test_a_log_that_stopping_deletes_is_fetched_first(history: History) -> None:
    backend = ScriptedBackend([Frame(STDOUT, 1000, b"so far\n")], states=[RUNNING])
    backend.capabilities = dataclasses.replace(backend.capabilities, stop_forgets_log=True)
    job = submit(Request(make_spec({"code": "pass"})), backend, history)
    stop(job, backend, history, 5)
    assert [log.follow for log in backend.opened] == [False]
    assert [line.text for line in lines_in(job_dir(job.id))] == [b"so far\n"]
    assert backend.stopped == [(job.id, 5)]
