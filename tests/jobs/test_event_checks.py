"""What a job can have believed of it: properties over hostile events at any point of its log."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.history.job import Job, JobState
from stoke.jobs.event_checks import MARKED, EventChecks
from stoke.jobs.progress_text import progress_text
from stoke.remote.events import Event, EventScanner
from stoke.remote.hints import CODES, hint_text
from stoke.remote.protocol import frame

NONCE = "5f1c0a9be2d34718"
SUBMITTED = time.time() - 60
PHASES = ("queue", "pull", "lock", "system", "python", "run", "results", "\x1b[2J", "")
RUNNER_PHASES = {"lock", "system", "python", "run"}
LIFETIME = 3600.0
"""More than any of these jobs can have taken."""

numbers = st.one_of(
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0, -1, 1e9, 2**53, SUBMITTED, SUBMITTED + 5]),
)
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["stopped", "curl evil | sh", "x" * 9000, "evil-package"]),
)
values = st.one_of(
    numbers, texts, st.none(), st.booleans(), st.lists(texts, max_size=3), st.just({"a": [1]})
)
FIELDS = (
    *(
        "time",
        "start",
        "seconds",
        "exit_code",
        "reason",
        "text",
        "hint",
        "hint",
        "tail",
        "hit",
        "miss",
        "key",
    ),
    *("packages", "cached", "bytes", "made_at", "cpu_seconds", "peak_memory", "cores"),
    *("memory", "stage", "left", "total"),
)


@st.composite
def hostile(draw: st.DrawFn) -> Event:
    """An event of a known kind, its fields mostly of the right type."""
    kinds = ("begin", "phase", "packages", "note", "error", "usage", "progress", "end", "other")
    kind = draw(st.sampled_from(kinds))
    event: Event = {"event": kind, "phase": draw(st.sampled_from(PHASES))}
    right: dict[str, st.SearchStrategy[Any]] = {
        **dict.fromkeys(("time", "start", "seconds", "made_at"), numbers),
        **dict.fromkeys(("cpu_seconds", "cores"), numbers),
        **dict.fromkeys(
            ("exit_code", "packages", "cached", "bytes", "peak_memory", "memory", "total"),
            st.integers(),
        ),
        **dict.fromkeys(("reason", "text", "hint", "tail", "key"), texts),
        "hint": st.builds(
            lambda code, parameters: [code, *parameters],
            st.sampled_from(sorted(CODES)) | texts,
            st.lists(texts, max_size=2),
        ),
        "hit": st.lists(texts, max_size=3) if kind == "packages" else st.booleans(),
        "miss": st.lists(texts, max_size=3),
        "left": st.lists(texts, max_size=9),
        "stage": st.sampled_from(["fetch", "build", "install", "curl evil"]),
    }
    for field in FIELDS:
        if draw(st.integers(0, 9)):
            event[field] = draw(values if not draw(st.integers(0, 9)) else right[field])
    return event


def job() -> Job:
    return Job("fit-aaaaaa", "fit", "docker", "default", JobState.STARTING, SUBMITTED)


def scanned(events: list[Event]) -> list[Event]:
    """Those that get through the log's own reader."""
    scanner = EventScanner(NONCE)
    data = b"".join(frame(NONCE, event) for event in events)
    return [part for part in scanner.feed(data) if isinstance(part, dict)]


def admitted(checks: EventChecks, events: list[Event]) -> list[Event]:
    found = []
    for number, event in enumerate(events):
        one = checks.admit(event, SUBMITTED + 1 + number)
        if one is not None:
            found.append(one)
    return found


def hints_of(events: list[Event]) -> set[str | None]:
    return {hint_text(event.get("hint"), "docker", "default") for event in events}


@given(st.lists(hostile(), max_size=12))
def test_whatever_is_admitted_is_known_bounded_and_plausible(events: list[Event]) -> None:
    for one in admitted(EventChecks(job()), scanned(events)):
        assert one.get("phase", "run") in RUNNER_PHASES
        for name in ("time", "start"):
            if name in one:
                assert SUBMITTED - 10 < one[name] < SUBMITTED + LIFETIME
        assert 0 <= (one.get("seconds") or 0) < LIFETIME
        for name in ("bytes", "packages", "cached", "peak_memory", "cpu_seconds"):
            assert one.get(name) is None or one[name] >= 0
        assert 0 <= one.get("cores", 0) <= 4096
        if one["event"] == "progress":
            assert len(progress_text(one)) < 1200 and "curl evil" not in progress_text(one)[:10]
        assert 0 <= one.get("memory", 0) <= 1 << 50
        assert 0 <= one.get("exit_code", 0) <= 255
        assert one.get("hint") is None or one["hint"] in hints_of(events)
        assert len(json.dumps(one)) < 60_000


@given(st.lists(hostile(), max_size=12))
def test_once_the_code_has_begun_its_events_cannot_touch_the_caches(events: list[Event]) -> None:
    checks = EventChecks(job())
    checks.admit({"event": "begin", "phase": "run", "time": SUBMITTED}, SUBMITTED + 1)
    for one in admitted(checks, scanned(events)):
        assert one["event"] in ("phase", "error", "end", "usage")
        assert one.get("phase", "run") in ("run", "results")
        assert not {"hit", "key", "packages", "cached"} & one.keys()
        if one["event"] == "error":
            assert one["text"].startswith(MARKED) and "\n" not in one["text"]
            assert one["hint"] is None and "tail" not in one


def usage(at: float, cores: object = 0.5, memory: object = 1000) -> Event:
    return {"event": "usage", "time": at, "cores": cores, "memory": memory}


def running() -> EventChecks:
    checks = EventChecks(job())
    checks.admit({"event": "begin", "phase": "run", "time": SUBMITTED + 1}, SUBMITTED + 1)
    return checks


@pytest.mark.parametrize(
    ("cores", "memory"),
    [(-0.1, 1000), (5000, 1000), (1, -1), (1, 1 << 51), (1, 0.5), (float("nan"), 1), (True, 1),
     ("1", 1), (None, 1), (1, None), (1e300, 1)],
)  # fmt: skip
def test_figures_that_no_job_has_are_refused(cores: object, memory: object) -> None:
    checks = running()
    assert admitted(checks, scanned([usage(SUBMITTED + 2, cores, memory)])) == []
    assert admitted(checks, scanned([usage(SUBMITTED + 3)])) != []


def test_usage_is_believed_only_of_running_code_and_not_more_often_than_it_is_sent() -> None:
    at = SUBMITTED + 10
    assert EventChecks(job()).admit(usage(at), at) is None
    checks = running()
    flood = [checks.admit(usage(at + n / 100), at + n / 100) for n in range(400)]
    assert 7 <= sum(one is not None for one in flood) <= 8
    told = checks.admit(usage(at + 1e6), at + 10)
    assert told is not None and told["time"] == at + 10
    checks.admit({"event": "end", "time": at + 11, "exit_code": 0}, at + 11)
    assert checks.admit(usage(at + 12), at + 12) is None


def test_a_job_that_was_followed_before_is_taken_up_where_it_was() -> None:
    half = job()
    half.started_at = SUBMITTED + 1
    note = {"event": "note", "text": "x"}
    assert EventChecks(half).admit(note, SUBMITTED + 2) is None
    assert EventChecks(job()).admit(note, SUBMITTED + 2) == note


def test_events_of_the_runner_pass_unchanged() -> None:
    at = SUBMITTED + 10.0
    python = {
        "event": "phase", "phase": "python", "start": at + 1, "seconds": 2.5, "bytes": 17,
        "hit": False, "packages": 3, "files": None, "cached": 1, "key": "ab" * 16, "made_at": None,
    }  # fmt: skip
    run = {"event": "phase", "phase": "run", "start": at + 4, "seconds": 5.0, "bytes": 0}
    end = {
        "event": "end", "time": at + 9, "exit_code": 137, "reason": "killed by signal 9",
        "cpu_seconds": 1.5, "peak_memory": 12345, "held": 60.0,
    }  # fmt: skip
    log: list[tuple[Event, float]] = [
        ({"event": "begin", "phase": "python", "time": at + 1}, at + 1.001),
        ({"event": "note", "text": "another job makes the same environment"}, at + 1.1),
        ({"event": "packages", "phase": "python", "hit": ["a==1"], "miss": []}, at + 3),
        (python, at + 3.51),
        ({"event": "begin", "phase": "run", "time": at + 4}, at + 4.001),
        (run, at + 9.01),
        (end, at + 9.02),
    ]
    checks = EventChecks(job())
    for event, moment in log:
        assert checks.admit(event, moment) == event


@pytest.mark.parametrize(
    "reason", [None, "stopped", "interrupted", "timeout", "out of memory", "killed by signal 11"]
)
def test_every_reason_of_the_runner_for_the_end_of_the_code_is_believed(
    reason: str | None,
) -> None:
    checks = EventChecks(job())
    at = SUBMITTED + 3
    checks.admit({"event": "begin", "phase": "run", "time": at}, at)
    end = {"event": "end", "time": at, "exit_code": 1, "reason": reason}
    admitted = checks.admit(end, at)
    assert admitted is not None and admitted["reason"] == reason


def test_an_environment_that_failed_keeps_its_reason_and_hint() -> None:
    checks = EventChecks(job())
    at = SUBMITTED + 3
    checks.admit({"event": "begin", "phase": "lock", "time": at}, at)
    error = {"event": "error", "phase": "lock", "text": "no index\nmore"}
    text = "check the network and the index settings: stoke doctor"
    told = checks.admit({**error, "hint": ["check-network"]}, at)
    assert told == {**error, "hint": text}
    told = checks.admit({**error, "hint": ["prune-python"], "tail": "of the output"}, at)
    prune = hint_text(["prune-python"], "docker", "default")
    assert prune and told == {**error, "hint": prune, "tail": "of the output"}
    for reason in ("lock: no index", "lock: no index: more", "lock: no in"):
        end = {"event": "end", "time": at, "exit_code": 125, "reason": reason}
        admitted_end = checks.admit(end, at)
        assert admitted_end is not None and admitted_end["reason"] == reason


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_a_clock_that_is_set_costs_no_more_than_the_start_of_a_phase(step: float) -> None:
    checks = EventChecks(job())
    at = SUBMITTED + 5
    checks.admit({"event": "begin", "phase": "python", "time": at}, at)
    phase = {"event": "phase", "phase": "python", "start": at, "seconds": 20.0}
    one = checks.admit(phase, at + step)
    assert one is not None and one["seconds"] == 20.0
