"""Jobs run from Python, as a notebook or a test suite would run them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import stoke
from stoke.client.request_fields import RequestFields
from stoke.client.session import Session
from stoke.errors import EngineError, RequestError, UnknownJobError
from stoke.history.job import JobState
from stoke.request.spec import JobSpec
from tests.hints import command, refused
from tests.lab import until

WAITS = "import time; print('began', flush=True); time.sleep(600)"


@pytest.fixture
def session(own_home: Path) -> Iterator[Session]:
    with Session() as session:
        yield session


def test_a_job_is_run_and_its_output_and_end_are_there(session: Session) -> None:
    code = "import sys; print('to stdout'); print('to stderr', file=sys.stderr)"
    job = session.run(code, name="first")
    assert (job.state, job.exit_code, job.record.name) == (JobState.SUCCEEDED, 0, "first")
    assert (job.stdout, job.stderr) == (b"to stdout\n", b"to stderr\n")
    assert sorted((line.stream, line.text) for line in job.lines()) == [
        ("stderr", "to stderr"),
        ("stdout", "to stdout"),
    ]
    assert session.job("first").id == job.id


def test_lines_come_while_the_job_runs_and_it_can_be_stopped(session: Session) -> None:
    job = session.submit(WAITS)
    lines = job.lines(follow=True)
    assert next(lines).text == "began"
    assert not job.state.finished
    job.stop(grace=0)
    assert [*lines] == []
    assert job.state is JobState.STOPPED


def test_waiting_ends_after_its_timeout_and_the_job_goes_on(session: Session) -> None:
    job = session.submit(WAITS)
    with pytest.raises(TimeoutError, match=job.id):
        job.wait(0.05)
    assert not job.state.finished
    job.stop(0)
    assert job.wait().state is JobState.STOPPED


def test_a_job_that_fails_raises_unless_it_is_not_checked(session: Session) -> None:
    with pytest.raises(stoke.JobFailedError, match="exit code 3") as failed:
        session.run("import sys; print('why', file=sys.stderr); sys.exit(3)")
    assert failed.value.job.stderr == b"why\n"
    assert session.run("raise SystemExit(4)", check=False).exit_code == 4


def test_a_file_and_its_fields(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    print_all = "print(os.path.basename(sys.argv[0]), sys.argv[1:], os.environ['MODE'])"
    file.write_text(f"import os, sys; {print_all}")
    job = session.run(file, args=["--epochs", "3"], env={"MODE": "fast"})
    assert job.stdout == b"train.py ['--epochs', '3'] fast\n"
    assert job.record.name == "train"


def test_wrong_fields_are_named_and_nothing_is_submitted(session: Session) -> None:
    with pytest.raises(RequestError, match="memory"):
        session.submit("1", memory="a lot")
    with pytest.raises(RequestError, match="not a field"):
        session.submit("1", packages=["six"])  # type: ignore[call-arg]
    with pytest.raises(RequestError, match="no backend called"):
        session.submit("1", backend="dokcer")
    with pytest.raises(UnknownJobError):
        session.job("nothing")
    assert session.history.list() == []


def test_a_job_that_was_removed_is_looked_for_in_the_list(session: Session) -> None:
    kept, removed = session.run("1"), session.run("2")
    program = Path(sys.executable).with_name("stoke")
    subprocess.run([program, "rm", removed.id], check=True, capture_output=True)
    said = refused(lambda: removed.state, "list the jobs: stoke jobs")
    listed = subprocess.run([program, *command(said)], check=True, capture_output=True, text=True)
    assert kept.id in listed.stdout and removed.id not in listed.stdout


def test_the_typed_fields_are_those_of_a_request() -> None:
    taken_by_position = {"code"}
    recorded = {"project", "uv", "shell"}
    assert set(RequestFields.__annotations__) == (
        set(JobSpec.model_fields) - taken_by_position - recorded
    )


def test_many_threads_share_a_session(session: Session) -> None:
    seen: list[bytes] = []

    def one(number: int) -> None:
        seen.append(session.run(f"print({number})").stdout)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted(b"%d\n" % number for number in range(8))


@pytest.mark.asyncio
async def test_jobs_run_beside_the_event_loop(own_home: Path) -> None:
    jobs = await asyncio.gather(*(stoke.run_async(f"print({number})") for number in range(3)))
    assert [job.stdout for job in jobs] == [b"0\n", b"1\n", b"2\n"]
    task = asyncio.create_task(stoke.run_async(WAITS))
    session = Session()
    while not any(not job.state.finished for job in session.history.list()):
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (left,) = (job for job in session.history.list() if job.id not in {one.id for one in jobs})
    until(lambda: session.job(left.id).state is JobState.STOPPED, "the stop")
    session.close()


SCRIPT = """
import stoke, sys
assert not any(name.startswith("stoke.") for name in sys.modules)
job = stoke.run("print(6 * 7)", timeout="1m")
print(job.stdout.decode(), end="")
"""


def test_a_program_of_the_user(own_home: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert (done.stdout, done.stderr) == ("42\n", "")
    with pytest.raises(AttributeError, match="no attribute 'rnu'"):
        stoke.rnu  # noqa: B018


LEAVES = """
import os
top = os.environ["STOKE_RESULTS"]
os.mkdir(top + "/out")
open(top + "/out/scores.csv", "w").write("1,2")
open(top + "/note.txt", "w").write("fine")
os.symlink("/etc/passwd", top + "/link")
"""


def test_results_are_listed_read_and_copied(session: Session, tmp_path: Path) -> None:
    results = session.run(LEAVES).results()
    assert [(file.path, file.size) for file in results] == [("note.txt", 4), ("out/scores.csv", 3)]
    assert (len(results), results.bytes, results[0].path) == (2, 7, "note.txt")
    assert [path for path, _ in results.refused] == ["link"]
    assert results.path("out/scores.csv").read_text() == "1,2"
    with pytest.raises(RequestError, match="not among the 2 results"):
        results.path("../../etc/passwd")
    assert results.copy_to(tmp_path / "to") == 2
    assert (tmp_path / "to/out/scores.csv").read_text() == "1,2"
    assert results.copy_to(tmp_path / "to") == 0
    (tmp_path / "to/note.txt").write_text("changed")
    with pytest.raises(RequestError, match="other files"):
        results.copy_to(tmp_path / "to")
    assert results.copy_to(tmp_path / "to", force=True) == 1


def test_a_job_without_results_has_none_and_one_that_runs_says_so(session: Session) -> None:
    assert list(session.run("1").results()) == []
    job = session.submit(WAITS)
    with pytest.raises(RequestError, match="results are collected at its end"):
        job.results()
    job.stop(0)
    assert len(job.wait().results()) == 0


def test_results_that_were_removed_are_not_an_empty_list(session: Session) -> None:
    job = session.run(LEAVES)
    program = Path(sys.executable).with_name("stoke")
    clear = ["results", "--clear", job.id, "--yes"]
    subprocess.run([program, *clear], check=True, capture_output=True)
    with pytest.raises(EngineError, match="were removed from this machine"):
        job.results()


async def test_results_beside_an_event_loop(own_home: Path, tmp_path: Path) -> None:
    job = await stoke.run_async(LEAVES)
    results = await job.results_async()
    assert await results.copy_to_async(tmp_path / "to") == 2
