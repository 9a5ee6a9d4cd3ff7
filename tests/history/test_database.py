"""The history: job records as they are written, read, found by name and removed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from stoke.errors import EngineError, UnknownJobError
from stoke.history.database import MOST_NOTES, MOST_PACKAGES, History, Note
from stoke.history.job import Counts, JobState, Phase, Prediction
from tests.history.records import job


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as history:
        history.add(
            job(
                image="img",
                request_hash="abc",
                predicted=Prediction("partial", None, 0.5, {"python": Counts(1, 4, True)}),
            ),
            '{"code": "1"}',
            "0123456789abcdef",
        )
        history.set_phase("fit-aaaaaa", Phase("run", 1002.0))
        history.set_phase("fit-aaaaaa", Phase("lock", 1001.0, 0.25, True, 4, 4, 0))
        history.update("fit-aaaaaa", state=JobState.RUNNING, started_at=1002.0)

    with History(tmp_path / "h.sqlite") as history:
        found = history.get("fit-aaaaaa")
        assert found == job(
            state=JobState.RUNNING,
            started_at=1002.0,
            image="img",
            request_hash="abc",
            predicted=Prediction("partial", None, 0.5, {"python": Counts(1, 4, True)}),
            phases=[Phase("lock", 1001.0, 0.25, True, 4, 4, 0), Phase("run", 1002.0)],
        )
        assert history.spec("fit-aaaaaa") == '{"code": "1"}'
        assert history.nonce("fit-aaaaaa") == "0123456789abcdef"


def test_unknown_is_none_and_never_zero(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as history:
        history.add(job(), None, None)
        history.set_phase("fit-aaaaaa", Phase("python", 1.0, 2.0, None, None, None, None))
        history.set_phase("fit-aaaaaa", Phase("lock", 1.0, 0.0, False, 0, 0, 0))
        found = history.get("fit-aaaaaa")
    assert found is not None
    assert (found.exit_code, found.cpu_seconds, found.peak_memory, found.seconds) == (None,) * 4
    lock, python = found.phases
    assert (python.hit, python.packages, python.cached, python.bytes) == (None,) * 4
    assert (lock.hit, lock.packages, lock.cached, lock.bytes) == (False, 0, 0, 0)
    assert found.received_bytes == 0


def test_adding_again_changes_nothing(tmp_path: Path) -> None:
    """A submit that is tried again, a job found again by another program."""
    with History(tmp_path / "h.sqlite") as history:
        history.add(job(), "first", "n1")
        history.update("fit-aaaaaa", state=JobState.RUNNING)
        history.add(job(scope="other"), "second", "n2")
        found = history.get("fit-aaaaaa")
        assert found is not None
        assert (found.state, found.scope) == (JobState.RUNNING, "default")
        assert (history.spec(found.id), history.nonce(found.id)) == ("first", "n1")


@pytest.mark.parametrize(
    "state", [JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED, JobState.LOST]
)
def test_a_finished_state_is_final(tmp_path: Path, state: JobState) -> None:
    with History(tmp_path / "h.sqlite") as history:
        history.add(job(), None, None)
        history.update("fit-aaaaaa", state=state, exit_code=3, finished_at=2000.0)
        history.update("fit-aaaaaa", state=JobState.RUNNING, exit_code=None, finished_at=None)
        found = history.get("fit-aaaaaa")
    assert found is not None
    assert (found.state, found.exit_code, found.finished_at) == (state, 3, 2000.0)


def test_a_provisional_end_can_still_be_put_right(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as history:
        history.add(job(), None, None)
        history.update("fit-aaaaaa", state=JobState.SUCCEEDED, provisional=True, exit_code=0)
        assert [found.id for found in history.list(unfinished=True)] == ["fit-aaaaaa"]
        history.update("fit-aaaaaa", state=JobState.FAILED, provisional=False, exit_code=137)
        history.update("fit-aaaaaa", state=JobState.SUCCEEDED, provisional=False, exit_code=0)
        found = history.get("fit-aaaaaa")
        assert found is not None
        assert (found.state, found.exit_code) == (JobState.FAILED, 137)
        assert history.list(unfinished=True) == []


def test_list_is_newest_first_and_limited(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as history:
        for number in range(1200):
            history.add(job(f"j{number:04}-aaaaaa", number), None, None)
            if number % 600 == 0:
                history.set_phase(f"j{number:04}-aaaaaa", Phase("lock", number, 1.0))
        assert [found.id[:5] for found in history.list(limit=3)] == ["j1199", "j1198", "j1197"]
        every = history.list()
        assert len(every) == 1200
        assert [found.id[:5] for found in every if found.phases] == ["j0600", "j0000"]


def test_removing_a_job_takes_its_phases(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path) as history:
        history.add(job(), None, None)
        history.set_phase("fit-aaaaaa", Phase("lock", 1.0))
        history.remove("fit-aaaaaa")
        assert history.get("fit-aaaaaa") is None
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM phases").fetchone() == (0,)


def test_a_phase_that_this_program_does_not_know_is_shown_last(tmp_path: Path) -> None:
    """Another version's runner."""
    with History(tmp_path / "h.sqlite") as history:
        history.add(job(), None, None)
        history.set_phase("fit-aaaaaa", Phase("polish", 1.0))
        history.set_phase("fit-aaaaaa", Phase("run", 2.0))
        found = history.get("fit-aaaaaa")
    assert found is not None
    assert [phase.name for phase in found.phases] == ["run", "polish"]


# --- finding by name -----------------------------------------------------------------------------


@pytest.fixture
def named(tmp_path: Path) -> History:
    history = History(tmp_path / "h.sqlite")
    for number, name in enumerate(["fit-aaaaaa", "fit-aabbbb", "fit-aaaaaa-cccccc", "x_y%-dddddd"]):
        history.add(job(name, number), None, None)
    return history


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("fit-aabbbb", "fit-aabbbb"),
        ("fit-aab", "fit-aabbbb"),
        ("fit-aaaaaa", "fit-aaaaaa"),
        ("fit-aaaaaa-", "fit-aaaaaa-cccccc"),
        ("x", "x_y%-dddddd"),
    ],
)
def test_a_job_is_found_by_any_unambiguous_prefix(named: History, prefix: str, found: str) -> None:
    assert named.find(prefix).id == found


def test_an_ambiguous_prefix_names_the_candidates(named: History) -> None:
    with pytest.raises(UnknownJobError) as caught:
        named.find("fit-aa")
    for name in ("fit-aaaaaa", "fit-aabbbb", "fit-aaaaaa-cccccc"):
        assert name in caught.value.what
    assert caught.value.exit_code == 1
    assert caught.value.hint


@pytest.mark.parametrize("prefix", ["", "nope", "%", "_", "fit-aaaaaaa", "' OR 1=1 --", "FIT"])
def test_an_unknown_name_is_an_error(named: History, prefix: str) -> None:
    with pytest.raises(UnknownJobError) as caught:
        named.find(prefix)
    assert repr(prefix) in caught.value.what
    assert "stoke jobs" in (caught.value.hint or "")


def test_many_candidates_are_cut_short(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as history:
        for number in range(30):
            history.add(job(f"fit-{number:06}", number), None, None)
        with pytest.raises(UnknownJobError) as caught:
            history.find("fit")
    assert caught.value.what.endswith("fit-000025, ...")


def test_a_transaction_is_atomic(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as history:
        with pytest.raises(ZeroDivisionError), history.transaction():
            history.add(job(), None, None)
            raise ZeroDivisionError
        assert history.list() == []
        with pytest.raises(EngineError), history.transaction():
            history.add(job(), None, None)
            history.query("INSERT INTO nothing VALUES (1)")
        assert history.list() == []
        with history.transaction():
            history.add(job(), None, None)
        assert len(history.list()) == 1


def test_reports_of_the_runner_are_stored_once_and_bounded(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as history:
        history.add(job(), None, None)
        first, second = Note("note", "waiting"), Note("error", "python: no", "try again")
        for note in (first, second, first):  # a connection that was cut says things again
            history.add_note("fit-aaaaaa", note)
        assert history.notes("fit-aaaaaa") == [first, second]
        for number in range(MOST_NOTES + 50):
            history.add_note("fit-aaaaaa", Note("note", str(number)))
        assert len(history.notes("fit-aaaaaa")) == MOST_NOTES

        history.add_packages("fit-aaaaaa", "python", ["b==1", "a==1"], cached=True)
        history.add_packages("fit-aaaaaa", "python", ["c==1", "a==1"], cached=False)
        expected = {"a==1": True, "b==1": True, "c==1": False}
        assert history.packages("fit-aaaaaa") == {"python": expected}
        many = [f"p{number}" for number in range(MOST_PACKAGES + 50)]
        history.add_packages("fit-aaaaaa", "system", many, cached=False)
        assert len(history.packages("fit-aaaaaa")["system"]) == MOST_PACKAGES

        history.remove("fit-aaaaaa")
        assert (history.notes("fit-aaaaaa"), history.packages("fit-aaaaaa")) == ([], {})


def test_environment_runs_are_of_one_place_and_over(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as history:
        for number, fields in enumerate(
            [
                {"request_hash": "h"},
                {"request_hash": "h", "scope": "team"},
                {"request_hash": "h", "backend": "docker"},
                {"request_hash": "other"},
                {"request_hash": "h"},
                {"request_hash": "h"},
                {"request_hash": "h"},
            ]
        ):
            history.add(job(f"j{number}-aaaaaa", number, **fields), None, None)
            history.update(f"j{number}-aaaaaa", state=JobState.SUCCEEDED)
        history.add(job("j9-aaaaaa", 9, request_hash="h"), None, None)
        found = [run.id for run in history.environment_runs("h", "local", "default")]
    assert found == ["j6-aaaaaa", "j5-aaaaaa", "j4-aaaaaa", "j0-aaaaaa"]
