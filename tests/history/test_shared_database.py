"""One history that several programs and threads use at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

from stoke.history.database import History
from stoke.history.job import JobState
from tests.history.records import job

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
