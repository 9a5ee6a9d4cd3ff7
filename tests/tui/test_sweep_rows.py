"""A sweep in the list of jobs: one row that unfolds into its tasks."""

from __future__ import annotations

import re

from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.listing import Listing, ListingQuery
from stoke.history.queue import JobQueue, Placement
from stoke.history.sweeps import Sweeps
from stoke.request.sweep_values import Table
from tests.tui.conftest import NOW, Desk, screen_text, until
from tests.tui.test_jobs_list import listed, ready
from tests.tui.test_jobs_screen import jobs_screen
from tui.app import StokeApp

SWEEP = "fit-7k2pqa"
MANY = 10_000


def add_sweep(history: History, tasks: int, *states: JobState) -> None:
    """A sweep that has ended, or one that waits for the rest of its tasks."""
    with history.transaction():
        job = Job(SWEEP, "fit", "local", "default", JobState.QUEUED, NOW - 100)
        history.add(job, '{"code": "1"}', "n")
        Sweeps(history).add(SWEEP, Table(("n",), [(str(n),) for n in range(tasks)]))
    JobQueue(history).add(SWEEP, Placement())
    for state in states:
        task = Sweeps(history).begin_next(SWEEP)
        assert task is not None
        history.update(task.job_id, state=state, finished_at=NOW - 10)
        JobQueue(history).remove(task.job_id)
    if len(states) < tasks:
        JobQueue(history).pause(["local"])
    else:
        history.update(SWEEP, state=JobState.FAILED, finished_at=NOW - 5, exit_code=1)
        JobQueue(history).remove(SWEEP)


def rows(app: StokeApp) -> list[str]:
    """Return the ids in the list with what precedes them."""
    return [found[0] for line in listed(app)[1:] if (found := re.search(r"[▸▾└] fit\S+", line))]


async def test_a_sweep_unfolds_into_its_tasks_with_failures_first(
    app: StokeApp, desk: Desk
) -> None:
    done, failed = JobState.SUCCEEDED, JobState.FAILED
    with History() as history:
        add_sweep(history, 4, done, done, failed, done)
    async with app.run_test(size=(160, 40), notifications=True) as pilot:
        table = await ready(pilot)
        await until(pilot, lambda: "4/4 ■■x■" in screen_text(app))
        assert rows(app) == [f"▸ {SWEEP}"]
        await pilot.press("enter")
        await until(pilot, lambda: len(rows(app)) == 5)
        ids = [SWEEP, *(f"{SWEEP}-{number}" for number in (3, 1, 2, 4))]
        assert rows(app) == [f"▾ {SWEEP}", *(f"└ {task}" for task in ids[1:])]
        assert "1 job" in screen_text(app)
        assert [line.partition("n=")[2][:1] for line in listed(app)[2:6]] == ["2", "0", "1", "3"]
        await pilot.press("down")
        await until(pilot, lambda: table.current == ids[1])
        await pilot.press("left")
        await until(pilot, lambda: rows(app) == [f"▸ {SWEEP}"])
        assert table.current == SWEEP
        await pilot.press("right")
        await until(pilot, lambda: len(rows(app)) == 5)
        await pilot.press("b")  # Groups by state; the tasks stay below their sweep.
        await until(pilot, lambda: "failed · 5" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: len(rows(app)) == 1)


async def test_a_sweep_shows_its_tasks_in_place_of_a_log(app: StokeApp, desk: Desk) -> None:
    done, failed = JobState.SUCCEEDED, JobState.FAILED
    with History() as history:
        add_sweep(history, 4, done, done, failed, done)
    desk.spool(f"{SWEEP}-3", b"one\nValueError: \x1b[31m[/]\n")
    desk.job("other-7k2pqa", age=1000, log=b"its log\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        table = await ready(pilot)
        table.choose(SWEEP)
        await until(pilot, lambda: "4 of 4 done, 1 failed" in screen_text(app))
        tasks = [line for line in screen_text(app).splitlines() if re.match(r"\W*\d +[✓✗]", line)]
        assert [line.split()[0] for line in tasks] == ["3", "1", "2", "4"]
        assert tasks[0].rstrip().endswith("ValueError: [/]")
        assert "Phases" not in screen_text(app) and "Spec" in screen_text(app)
        table.choose("other-7k2pqa")
        await until(pilot, lambda: "its log" in screen_text(app))
        assert "Tasks" not in screen_text(app)
        table.choose(SWEEP)
        await until(pilot, lambda: "ValueError" in screen_text(app))
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: f"stoke rerun {SWEEP}" in screen_text(app))
        assert "stoke run" not in screen_text(app)


async def test_removing_a_sweep_names_its_tasks(app: StokeApp, desk: Desk) -> None:
    with History() as history:
        add_sweep(history, 3, *[JobState.FAILED] * 3)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "3/3 xxx" in screen_text(app))
        await pilot.press("d")
        await until(pilot, lambda: "Remove this job?" in screen_text(app))
        assert "request, also of 3 tasks." in " ".join(re.findall(r"[^\s│]+", screen_text(app)))


async def test_a_sweep_that_waits_shows_its_progress(app: StokeApp, desk: Desk) -> None:
    with History() as history:
        add_sweep(history, 5, JobState.SUCCEEDED, JobState.FAILED)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "2/5 ■x···" in screen_text(app))
        await pilot.press("r")
        await until(pilot, lambda: "stoke rerun fit-7k2pqa" in screen_text(app))
        assert jobs_screen(app).table.current == SWEEP


def test_ten_thousand_tasks_are_listed_below_their_sweep(desk: Desk) -> None:
    with History() as history:
        with history.transaction():
            job = Job(SWEEP, "fit", "local", "default", JobState.QUEUED, NOW - 100)
            history.add(job, '{"code": "1"}', "n")
            Sweeps(history).add(SWEEP, Table(("n",), [(str(n),) for n in range(MANY)]))
            history.query("UPDATE sweeps SET begun = tasks")
            history.query_many(
                "INSERT INTO jobs (id, name, backend, scope, state, submitted_at, sweep, task) "
                "VALUES (?, 'fit', 'local', 'default', ?, ?, ?, ?)",
                (
                    (f"{SWEEP}-{n}", "failed" if n % 7 == 0 else "succeeded", NOW, SWEEP, n)
                    for n in range(1, MANY + 1)
                ),
            )
        listing = Listing(history)
        listing.read(ListingQuery(unfolded=frozenset({SWEEP})), NOW)
        first = [listing.job(place) for place in range(40)]
        assert len(listing) == MANY + 1 and listing.tasks == MANY
        assert first[0] is not None and first[0].bar == "10,000/10,000 " + "x" * 12
        assert first[1] is not None and first[1].id == f"{SWEEP}-7"
