"""The history: what several programs write at once, what older and newer programs left, bad days."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoke.cache.metrics import read_metrics
from stoke.errors import EngineError, UnknownJobError
from stoke.history import database_file
from stoke.history.database import MOST_NOTES, MOST_PACKAGES, History, Note
from stoke.history.job import Counts, Job, JobState, Phase, Prediction
from stoke.history.schema import MIGRATIONS


def job(job_id: str = "fit-aaaaaa", submitted_at: float = 1000.0, **fields: Any) -> Job:
    made = Job(job_id, "fit", "local", "default", JobState.QUEUED, submitted_at)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


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


# --- several programs ----------------------------------------------------------------------------

WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from stoke.history.database import History
    from stoke.history.job import Job, JobState, Phase

    path, name = Path(sys.argv[1]), sys.argv[2]
    print("ready", flush=True)
    sys.stdin.readline()
    with History(path) as history:
        for number in range(100):
            job_id = f"{name}-{number:06}"
            history.add(Job(job_id, name, "local", "default", JobState.QUEUED, number), None, None)
            history.set_phase(job_id, Phase("lock", number, 1.0))
            history.update(job_id, state=JobState.SUCCEEDED)
            assert history.get(job_id).state is JobState.SUCCEEDED
    """
)


def test_several_programs_open_a_new_file_and_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "state" / "h.sqlite"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two", "three")
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, trouble = writer.communicate(timeout=120)
        assert writer.returncode == 0, trouble

    with History(path) as history:
        jobs = history.list()
    assert len(jobs) == 300
    assert all(found.state is JobState.SUCCEEDED and len(found.phases) == 1 for found in jobs)


COUNTS = """
import sys
from pathlib import Path
from stoke.history.database import History
with History(Path(sys.argv[1])) as history:
    print(len(history.list()))
"""


def test_opening_the_history_again_does_not_release_its_locks(tmp_path: Path) -> None:
    """Another program that closes it would otherwise take its write-ahead log away."""
    path = tmp_path / "h.sqlite"

    def seen_by_another_program() -> int:
        counts = [sys.executable, "-c", COUNTS, str(path)]
        return int(subprocess.run(counts, check=True, capture_output=True).stdout)

    with History(path) as history:
        history.add(job("first-aaaaaa"), None, None)
        with History(path):
            pass
        assert seen_by_another_program() == 1
        history.add(job("second-aaaaaa"), None, None)
        assert seen_by_another_program() == 2


def test_a_reader_is_not_kept_waiting_by_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path) as history:
        history.add(job(), None, None)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("UPDATE jobs SET name = 'half done'")
    try:
        with History(path) as history:
            found = history.get("fit-aaaaaa")
            assert found is not None and found.name == "fit"
    finally:
        writer.close()


def test_threads_share_one_history(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    with History(tmp_path / "h.sqlite") as history:

        def write(name: str) -> None:
            try:
                for number in range(50):
                    history.add(job(f"{name}-{number:06}"), None, None)
                    history.list(limit=5)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(f"t{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(history.list()) == 200


# --- schema --------------------------------------------------------------------------------------


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


# --- bad days ------------------------------------------------------------------------------------


def break_header(path: Path) -> None:
    path.write_bytes(b"this was a database once" + path.read_bytes()[24:])


def break_tables(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [break_header, break_tables])
def test_a_damaged_file_is_named_and_the_hint_mends(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "my state" / "h.sqlite"
    with History(path) as history:
        for number in range(50):
            history.add(job(f"fit-{number:06}", number), "x" * 200, None)
    damage(path)

    with pytest.raises(EngineError) as caught, History(path) as history:
        history.list()

    assert str(path) in caught.value.what
    assert "damaged" in caught.value.what
    command = (caught.value.hint or "").partition(": ")[2]
    assert shlex.split(command)[0] == "mv"
    subprocess.run(["sh", "-ec", command], check=True, timeout=30)
    with History(path) as history:
        history.add(job(), None, None)
        assert len(history.list()) == 1


@pytest.fixture
def unprivileged() -> Any:
    """Run a function as a user other than root, in this process."""

    def run(function: Callable[[], None]) -> None:
        if os.geteuid() != 0:
            function()
            return
        os.seteuid(65534)
        try:
            function()
        finally:
            os.seteuid(0)

    return run


def test_a_folder_that_cannot_be_written_is_named_with_a_way_out(
    unprivileged: Callable[[Callable[[], None]], None],
) -> None:
    """The folder would be in the root folder, which only root may write."""
    folder = Path("/stoke-cannot-make-this") / "state"

    def open_there() -> None:
        with pytest.raises(EngineError) as caught:
            History(folder / "h.sqlite")
        assert str(folder) in caught.value.what
        assert "export STOKE_STATE_DIR=" in (caught.value.hint or "")

    unprivileged(open_there)


def test_a_file_that_cannot_be_written_is_named_with_a_way_out(
    unprivileged: Callable[[Callable[[], None]], None],
) -> None:
    # Not in tmp_path, which is closed to everybody else.
    folder = Path(tempfile.mkdtemp())
    path = folder / "h.sqlite"
    with History(path) as history:
        history.add(job(), None, None)
    path.chmod(0o444)
    folder.chmod(0o555)

    def write() -> None:
        with pytest.raises(EngineError) as caught, History(path) as history:
            history.add(job("fit-bbbbbb"), None, None)
        assert str(path) in caught.value.what
        assert "export STOKE_STATE_DIR=" in (caught.value.hint or "")

    try:
        unprivileged(write)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_full_disk_is_reported_and_nothing_is_half_written(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path) as history:
        history.add(job(), None, None)
        pages = history._db.execute("PRAGMA page_count").fetchone()[0]
        history._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(EngineError) as caught:
            history.add(job("fit-bbbbbb"), "x" * 10**6, None)
        assert str(path) in caught.value.what and "full" in caught.value.what
        assert [found.id for found in history.list()] == ["fit-aaaaaa"]


def test_stored_files_are_readable_only_by_their_owner(tmp_path: Path) -> None:
    """Specs hold what people wrote."""
    before = os.umask(0o022)
    try:
        with History(tmp_path / "state" / "h.sqlite"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
