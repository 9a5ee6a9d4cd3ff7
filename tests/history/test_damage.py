"""A history with damaged rows: every command lists the others, and shows the damaged ones as such."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoke.cli.main import main
from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.files import debug
from stoke.files.paths import history_file
from stoke.history.database import History
from stoke.history.job import Job, JobState, Phase
from stoke.history.listing import GROUPS, ORDERS, Listing, ListingQuery
from stoke.jobs.warm import most_used
from stoke.request.spec import make_spec
from tests.predictions import predict
from tui.jobs.job_detail import read_spec

SOUND, BAD = "sound-aaaaaa", "fit-bbbbbb"
SPEC = json.dumps({"code": "print(1)", "env": {}, "dependencies": ["numpy"], "use_cache": True})
TABLES = ("jobs", "phases", "notes", "job_packages", "asked_packages", "cache_sizes",
          "held_environments", "held_packages", "held_requests")  # fmt: skip
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=20),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.sampled_from(
        ["bogus", "{", "[]", "{}", '{"env": 1, "code": 2}', '{"python": 5}', "[" * 5000, "../..",
         "x" * 100_000, "\x1b[2J", 1e300, -1.0, 2**62]
    ),
)  # fmt: skip


def fill() -> None:
    with History() as history:
        for number, job_id in enumerate((SOUND, BAD)):
            job = Job(job_id, "fit", "local", "default", JobState.QUEUED, 1000.0 + number)
            job.request_hash = job.python_hash = "r"
            history.add(job, SPEC, "n")
            for phase in (Phase("lock", 1001.0, 1.0, True, 3, 3, 0, "k", 900.0),
                          Phase("python", 1002.0, 1.0, number == 1, 3, 0, 9, "k")):  # fmt: skip
                history.set_phase(job_id, phase)
            history.add_packages(job_id, "python", ["numpy==2"], cached=False)
            history.update(job_id, state=JobState.SUCCEEDED, exit_code=0, finished_at=1009.0)
            history.query("INSERT INTO notes VALUES (?, 0, 'note', 'said', NULL)", (job_id,))
        history.add_asked("r", "python", ["numpy"])
        history.query("INSERT INTO cache_sizes VALUES ('local', '', 'default', 'python', 5, 9, 1)")
        history.query("INSERT INTO held_environments VALUES "
                      "('local', '', 'default', 'python', 'k', 1, 5)")  # fmt: skip
        history.query("INSERT INTO held_packages VALUES "
                      "('local', '', 'default', 'python', 'k', 'numpy', 'numpy==2')")  # fmt: skip
        history.query("INSERT INTO held_requests VALUES "
                      "('local', '', 'default', 'python', 'r', 'k', 5)")  # fmt: skip


def damage(table: str, column: str, value: object, as_text: bool = False) -> bool:
    """Writes it as another program could: without our checks. False where SQLite refuses it."""
    with closing(sqlite3.connect(history_file())) as db:
        (row,) = db.execute(f"SELECT max(rowid) FROM {table}" if table == "jobs" else
                            f"SELECT count(*) FROM {table}").fetchone()  # fmt: skip
        where = f"WHERE rowid = {row}" if table == "jobs" else ""
        what = "CAST(? AS TEXT)" if as_text else "?"
        try:
            db.execute(f"UPDATE OR REPLACE {table} SET {column} = {what} {where}", (value,))
            db.commit()
        except sqlite3.IntegrityError:
            return False
    return True


class Done(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str


def works(*arguments: str, codes: tuple[int, ...] = (0,)) -> Done:
    """Run a command in this process; raise every exception that is not a StokeError."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setenv("STOKE_DEBUG", "1")
        patch.setattr(sys, "argv", ["stoke", *arguments])
        try:
            code = main()
        finally:
            debug.turn_off()
    done = Done(code, out.getvalue(), err.getvalue())
    assert code in codes, (arguments, done)
    return done


def columns(table: str) -> list[str]:
    with closing(sqlite3.connect(":memory:")) as db:
        from stoke.history.schema import MIGRATIONS

        for step in MIGRATIONS:
            db.executescript(step)
        return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


COLUMNS = [(table, column) for table in TABLES for column in columns(table)]


@given(st.sampled_from(COLUMNS), VALUES, st.booleans())
@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_damage_in_any_column_makes_no_command_fail(
    own_home: Path, place: tuple[str, str], value: object, as_text: bool
) -> None:
    table, column = place
    for file in own_home.glob("state/history.sqlite*"):
        file.unlink()
    fill()
    if not damage(table, column, value, as_text):
        return
    listed = json.loads(works("jobs", "--json").stdout)
    # A job whose column `sweep` is damaged counts as a task, and tasks are not listed.
    assert len(listed) == 2 or (len(listed) == 1 and place == ("jobs", "sweep"))
    assert SOUND in [one["id"] for one in listed]
    table_text = works("jobs").stdout
    for one in listed:
        assert one["id"] in table_text
        works("show", one["id"])
        works("show", "--json", one["id"])
    works("compare", listed[0]["id"], listed[-1]["id"], codes=(0, 2, 125))
    works("cache", "stats", codes=(0, 125))
    works("cache", "list", codes=(0, 2, 125))
    with History() as history:
        predict(make_spec({**json.loads(SPEC), "scope": "default"}), "local", history)
        with contextlib.suppress(RequestError):  # None is left that could be warmed.
            most_used(history, Config(), "local", "default", 5)
        for order in ORDERS:
            for group in (None, *GROUPS):
                listing = Listing(history)
                listing.read(ListingQuery(order=order, group=group), 2000.0)
                assert len(listing) == len(listed)
                assert all(listing.job(number) for number in range(len(listing)))
                assert [listing.place(job_id) for job_id in listing.ids()] == list(
                    range(len(listing))
                )
                assert all(isinstance(one.name, str) for one in listing.groups)
    for one in listed:
        works("rm", one["id"])
    assert json.loads(works("jobs", "--json").stdout) == []


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("state", "bogus", "state 'bogus' is unknown"),
        ("predicted_counts", "{", "predicted_counts is no JSON of counts"),
        ("submitted_at", b"x", "submitted_at is not a time"),
        ("peak_memory", "much", "peak_memory is not a number"),
        ("id", None, "names no job"),
        ("id", "../../precious", "names no job"),
        ("backend", "nowhere" * 20_000, "backend is 140,000 characters long"),
    ],
)
def test_a_damaged_row_is_shown_as_that_and_can_be_removed(
    own_home: Path, column: str, value: Any, told: str
) -> None:
    fill()
    precious = own_home / "precious"
    precious.mkdir()
    assert damage("jobs", column, value)
    (bad,) = [one for one in json.loads(works("jobs", "--json").stdout) if one["id"] != SOUND]
    assert told in bad["damage"]
    assert told in works("show", bad["id"]).stdout.replace("\n              ", " ")
    if column == "state":
        assert "damaged" in works("jobs").stdout
    works("rm", bad["id"])
    assert [one["id"] for one in json.loads(works("jobs", "--json").stdout)] == [SOUND]
    assert precious.exists()


@pytest.mark.parametrize(
    "spec",
    [
        "{", "[" * 100_000, "[]", '{"code": 5}', b"\xff",
        '{"code": "pass", "env": {}, "uv": {"resolution": {}}}',
    ],
)  # fmt: skip
def test_a_damaged_request_is_reported_by_each_command_that_reads_it(
    own_home: Path, spec: str | bytes
) -> None:
    fill()
    assert damage("jobs", "spec", spec)
    assert works("rerun", BAD, codes=(2, 125)).stderr.startswith("error: ")
    works("show", BAD)
    works("jobs")
    works("compare", SOUND, BAD, codes=(0, 125))
    with History() as history:
        assert isinstance(read_spec(history, BAD), RequestError)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def empty_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE jobs")
        db.commit()


def number_below_zero(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = -3")
        db.commit()


@pytest.mark.parametrize("harm", [cut, empty_schema, number_below_zero])
@pytest.mark.parametrize("command", [("jobs",), ("show", SOUND), ("cache", "stats")])
def test_a_damaged_file_is_a_message_and_no_traceback(
    own_home: Path, harm: Any, command: tuple[str, ...]
) -> None:
    fill()
    with closing(sqlite3.connect(history_file())) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    harm(history_file())
    done = works(*command, codes=(125,))
    assert f"the history {history_file()} is damaged" in done.stderr
    assert f"mv {history_file()} {history_file()}.damaged" in done.stderr
    assert done.stdout == ""
