"""The schema of the history: new files, older files, newer files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from stoke.cache.metrics import read_metrics
from stoke.errors import EngineError
from stoke.history import database_file
from stoke.history.database import History, Note
from stoke.history.queue import JobQueue
from stoke.history.schema import MIGRATIONS
from tests.history.records import job


@pytest.mark.parametrize("schema", [1, 2])
def test_a_history_of_an_older_schema_is_taken_over(tmp_path: Path, schema: int) -> None:
    path = tmp_path / "h.sqlite"
    with sqlite3.connect(path) as db:
        for step in MIGRATIONS[:schema]:
            db.executescript(step)
        db.execute(f"PRAGMA user_version = {schema}")
        for number, spec in enumerate(('{"use_cache": false}', '{"code": "1"}', "not JSON", None)):
            db.execute(
                "INSERT INTO jobs (id, name, backend, scope, state, submitted_at, request_hash, spec) "
                "VALUES (?, 'fit', 'local', 'default', 'succeeded', ?, 'r', ?)",
                (f"j{number}-aaaaaa", number, spec),
            )
            db.execute(
                "INSERT INTO phases VALUES (?, 'python', 1, 2, 0, 3, 0, NULL)",
                (f"j{number}-aaaaaa",),
            )
    with History(path) as history:
        assert [found.phases[0].packages for found in history.list()] == [3, 3, 3, 3]
        (figures,) = read_metrics(history).figures
        assert figures.jobs == 3


def test_the_hints_of_an_older_history_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with sqlite3.connect(path) as db:
        for step in MIGRATIONS[:3]:
            db.executescript(step)
        db.execute("PRAGMA user_version = 3")
        db.execute(
            "INSERT INTO jobs (id, name, backend, scope, state, submitted_at) "
            "VALUES ('fit-aaaaaa', 'fit', 'local', 'default', 'failed', 1)"
        )
        db.execute("INSERT INTO notes VALUES ('fit-aaaaaa', 1, 'error', 'no disk', 'free some')")
    with History(path) as history:
        assert history.notes("fit-aaaaaa") == [Note("error", "no disk", "free some")]


def version(path: Path) -> int:
    db = sqlite3.connect(path)
    try:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    finally:
        db.close()


@pytest.fixture
def add_migration(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    steps = list(MIGRATIONS)

    def add(step: str) -> None:
        steps.append(step)
        monkeypatch.setattr(database_file, "MIGRATIONS", tuple(steps))

    return add


def test_a_file_without_a_schema_gets_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    sqlite3.connect(path).close()
    assert version(path) == 0
    with History(path) as history:
        history.add(job(), None, None)
    assert version(path) == len(MIGRATIONS)


def test_an_older_file_is_brought_up_and_keeps_its_jobs(
    tmp_path: Path, add_migration: Callable[[str], None]
) -> None:
    path = tmp_path / "h.sqlite"
    with History(path) as history:
        history.add(job(), "{}", "n")
    before = version(path)
    add_migration("ALTER TABLE jobs ADD COLUMN node TEXT; CREATE TABLE packages (name TEXT)")
    add_migration("UPDATE jobs SET node = 'here'")

    with History(path) as history:
        found = history.get("fit-aaaaaa")

    assert found is not None and found.name == "fit"
    assert version(path) == before + 2
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT node FROM jobs").fetchall() == [("here",)]
        assert db.execute("SELECT * FROM packages").fetchall() == []


def test_a_step_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, add_migration: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "h.sqlite"
    with History(path) as history:
        history.add(job(), None, None)
    before = version(path)
    add_migration("ALTER TABLE jobs ADD COLUMN node TEXT; UPDATE nothing SET x = 1")
    with pytest.raises(EngineError) as caught:
        History(path)
    assert str(path) in caught.value.what

    monkeypatch.undo()
    assert version(path) == before
    with History(path) as history:
        assert len(history.list()) == 1
    with sqlite3.connect(path) as db:
        assert "node" not in {row[1] for row in db.execute("PRAGMA table_info(jobs)")}


def test_a_newer_file_is_refused_unchanged_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path) as history:
        history.add(job(), None, None)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 3}")
    db.close()

    with pytest.raises(EngineError) as caught:
        History(path)

    assert f"schema {len(MIGRATIONS) + 3}" in caught.value.what
    assert "upgrade stoke" in (caught.value.hint or "")
    assert version(path) == len(MIGRATIONS) + 3


def test_the_jobs_of_a_history_without_sweeps_are_tasks_of_none(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    before = next(at for at, step in enumerate(MIGRATIONS) if "CREATE TABLE sweeps" in step)
    with sqlite3.connect(path) as db:
        for step in MIGRATIONS[:before]:
            db.executescript(step)
        db.execute(f"PRAGMA user_version = {before}")
        db.execute(
            "INSERT INTO jobs (id, name, backend, scope, state, submitted_at) "
            "VALUES ('fit-aaaaaa', 'fit', 'local', 'default', 'failed', 1)"
        )
        db.execute("INSERT INTO queue (job_id, place) VALUES ('fit-aaaaaa', 1)")
    with History(path) as history:
        (found,) = history.list()
        assert (found.id, found.sweep, found.task) == ("fit-aaaaaa", None, None)
        (waiting,) = JobQueue(history).waiting()
        assert (waiting.id, waiting.kind, waiting.sweep) == ("fit-aaaaaa", "code", None)
