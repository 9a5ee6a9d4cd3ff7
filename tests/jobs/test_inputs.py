"""What a job gets of the jobs that it follows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stoke.backend.capabilities import EntryKind, ResultEntry
from stoke.errors import EngineError, RequestError
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.history.queue import Dependency
from stoke.jobs.inputs import folder_names, inputs_file, make_inputs
from stoke.results.store import remove_results, results_folder, store_results


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    monkeypatch.setenv("STOKE_STATE_DIR", str(tmp_path / "state"))
    with History() as history:
        yield history


def named(name: str, job_id: str) -> Job:
    return Job(job_id, name, "local", "default", JobState.SUCCEEDED, 1.0)


def _pieces(data: bytes) -> Iterator[bytes]:
    yield data


def ended(history: History, job_id: str, **files: bytes) -> Job:
    """A job with these results on this machine."""
    job = named(job_id.partition("-")[0], job_id)
    history.add(job, None, None)
    job_dir(job_id).mkdir(parents=True)
    entries = [
        ResultEntry(name.encode(), EntryKind.FILE, len(data), read=partial(_pieces, data))
        for name, data in files.items()
    ]
    store_results(job_id, entries, 1 << 30, lambda files, size: None)
    history.set_results(
        job_id, files=len(files), size=sum(map(len, files.values())), at=time.time()
    )
    return job


def make(history: History, *jobs: Job, most: int = 1 << 20) -> tuple[dict[str, object], bytes]:
    """The head and the contents of the file for a job that follows others."""
    job_dir("then-1").mkdir(parents=True, exist_ok=True)
    path = make_inputs("then-1", [Dependency(job.id) for job in jobs], history, most)
    assert path is not None
    head, _, rest = path.read_bytes().partition(b"\n")
    return json.loads(head), rest


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["prepare", "check"], ["prepare", "check"]),
        (["part", "part", "check"], ["1", "2", "check"]),
        (["..", "a/b", ""], ["1", "2", "3"]),
        (["n" * 256, "é" * 128, "ä" * 127], ["1", "2", "ä" * 127]),
        (["2", "other"], ["1", "other"]),
        (["it's {{odd}}", "-rf"], ["it's {{odd}}", "-rf"]),
    ],
)
def test_a_folder_has_the_jobs_name_where_that_is_the_only_one(
    names: list[str], folders: list[str]
) -> None:
    jobs = [named(name, str(number)) for number, name in enumerate(names, 1)]
    assert folder_names(jobs) == folders


def test_a_job_that_follows_none_has_no_inputs(history: History) -> None:
    assert make_inputs("then-1", [], history, 1) is None


def test_files_follow_each_other_in_the_order_of_the_head(history: History) -> None:
    first, second = ended(history, "prepare-1", a=b"one", b=b""), ended(history, "check-1")
    head, rest = make(history, first, second)
    assert head == {
        "folders": ["prepare", "check"],
        "files": [["prepare/a", 3, False], ["prepare/b", 0, False]],
    }
    assert rest == b"one"


def test_results_that_are_not_there_are_refused(history: History) -> None:
    job = ended(history, "prepare-1", a=b"one")
    remove_results(job.id, "by results.keep")
    with pytest.raises(RequestError, match=r"removed from this machine: by results\.keep"):
        make(history, job)
    history.set_results(job.id, problem="the disk is full")
    with pytest.raises(RequestError, match="were not collected: the disk is full"):
        make(history, job)


def test_results_beyond_the_limit_are_refused_and_leave_no_file(history: History) -> None:
    job = ended(history, "prepare-1", a=bytes(2000), b=bytes(2000))
    with pytest.raises(RequestError, match=r"have 3\.9 KiB, and a job gets at most 3\.9 KiB"):
        make(history, job, most=3999)
    assert not inputs_file("then-1").exists()
    make(history, job, most=4000)


def test_a_file_that_is_gone_is_named(history: History) -> None:
    job = ended(history, "prepare-1", a=b"one")
    (results_folder(job.id) / "a").unlink()
    with pytest.raises(EngineError, match="prepare-1/results/a: No such file"):
        make(history, job)
