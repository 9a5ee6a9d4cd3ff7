"""Two jobs side by side, from the history alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stoke.backend.capabilities import EntryKind, ResultEntry
from stoke.errors import EngineError
from stoke.files.paths import job_dir, make_private
from stoke.history.database import History
from stoke.history.job import Job, JobState, Phase
from stoke.history.volume_index import ScopeCache, VolumeIndex
from stoke.jobs.compare import compare, packages_of
from stoke.results.store import remove_results, store_results


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "h.sqlite") as made:
        yield made


def add(
    history: History,
    job_id: str,
    at: float,
    spec: dict[str, Any] | None = None,
    packages: list[str] | None = None,
    **phase: Any,
) -> Job:
    job = Job(job_id, job_id.split("-")[0], "local", "default", JobState.QUEUED, at)
    history.add(job, json.dumps({"code": "print(1)", "env": {}, **(spec or {})}), None)
    if packages is not None:
        key = phase.setdefault("key", f"key-{job_id}")
        history.set_phase(job_id, Phase("python", at, 2.0, False, len(packages), 0, 10, **phase))
        VolumeIndex(history).record_use(
            ScopeCache("local", "default", "python"), key, at, None, packages
        )
    found = history.get(job_id)
    assert found is not None
    return found


def test_differences_between_two_requests(history: History) -> None:
    one = add(history, "fit-a", 1, {"dependencies": ["numpy"], "env": {"MODE": "a", "KEY": "x"}})
    two = add(
        history,
        "fit-b",
        2,
        {"code": "print(2)", "dependencies": ["numpy", "rich"], "env": {"MODE": "b", "KEY": "y"},
         "timeout": 5.0},
    )  # fmt: skip
    found = compare(one, two, history)
    told = {part.what: (part.first, part.second) for part in found.spec}
    assert told == {
        "dependencies": ("numpy", "numpy, rich"),
        "env.MODE": ("a", "b"),
        "env.KEY": ("***", "***"),
        "timeout": (None, "5.0"),
    }
    assert "-print(1)" in found.code and "+print(2)" in found.code
    same = compare(one, one, history)
    assert (same.spec, same.code) == ((), ())


def test_packages_that_came_went_and_changed(history: History) -> None:
    one = add(history, "fit-a", 1, packages=["numpy==1.26.4", "Old_One==1", "same==3"])
    two = add(
        history, "fit-b", 2, packages=["numpy==2.1.0", "same==3", "new @ https://host/new.whl"]
    )
    changes = compare(one, two, history).packages["python"]
    assert [(one.name, one.first, one.second, one.change) for one in changes] == [
        ("new", None, "https://host/new.whl", "added"),
        ("numpy", "1.26.4", "2.1.0", "changed"),
        ("old-one", "1", None, "removed"),
    ]


def test_a_warm_run_has_the_packages_of_the_environment_it_found(history: History) -> None:
    add(history, "fit-a", 1, packages=["numpy==1"])
    warm = Job("fit-b", "fit", "local", "default", JobState.QUEUED, 2.0)
    history.add(warm, None, None)
    history.set_phase("fit-b", Phase("python", 2, 0.001, True, 1, 1, 0, "key-fit-a"))
    found = history.get("fit-b")
    assert found is not None
    assert packages_of(found, "python", history) == ["numpy==1"]


def test_an_unknown_figure_is_reported_and_not_equal(history: History) -> None:
    one = add(history, "fit-a", 1, packages=["numpy==1"])
    history.add(Job("fit-b", "fit", "local", "default", JobState.QUEUED, 2.0), None, None)
    history.set_phase("fit-b", Phase("python", 2, 1.0, True, 41, 41, 0, "a-key-nobody-knows"))
    two = history.get("fit-b")
    assert two is not None
    found = compare(one, two, history)
    assert found.unknown == ("python",)
    assert "python" not in found.packages
    assert [(pair.name, bool(pair.first), bool(pair.second)) for pair in found.phases] == [
        ("python", True, True)
    ]


def test_a_request_that_cannot_be_read_is_an_error_that_names_the_job(history: History) -> None:
    one = add(history, "fit-a", 1)
    history.query("UPDATE jobs SET spec = '{' WHERE id = 'fit-a'")
    with pytest.raises(EngineError, match="the request of fit-a cannot be read"):
        compare(one, one, history)


def test_the_run_before_is_the_last_of_the_same_name(history: History) -> None:
    add(history, "fit-a", 1)
    first = add(history, "eval-b", 2)
    add(history, "fit-c", 3)
    last = add(history, "fit-d", 4)
    before = history.run_before(last)
    assert before is not None and before.id == "fit-c"
    assert history.run_before(first) is None


def with_results(history: History, job_id: str, files: dict[str, bytes]) -> Job:
    add(history, job_id, 1)
    make_private(job_dir(job_id))
    entries = [
        ResultEntry(name.encode(), EntryKind.FILE, len(data), 0o644, read=partial(iter, [data]))
        for name, data in files.items()
    ]
    found = store_results(job_id, entries, 1 << 20, lambda *_: None)
    history.set_results(job_id, files=len(files), size=found.bytes, at=1.0)
    job = history.get(job_id)
    assert job is not None
    return job


def test_results_that_came_went_and_changed(history: History, own_home: Path) -> None:
    one = with_results(history, "fit-a", {"same": b"s", "log": b"abc", "gone": b""})
    two = with_results(history, "fit-b", {"same": b"s", "log": b"abd", "new": b"n"})
    results = compare(one, two, history).results
    assert results is not None and results.same == 1
    assert [(change.path, change.change) for change in results.changes] == [
        ("gone", "removed"),
        ("log", "changed"),
        ("new", "added"),
    ]


def test_results_that_are_not_here_are_unknown_and_not_equal(
    history: History, own_home: Path
) -> None:
    one = with_results(history, "fit-a", {"log": b"abc"})
    running = add(history, "fit-b", 2)
    found = compare(one, running, history)
    assert (found.results, found.without_results) == (None, ("fit-b",))
    remove_results("fit-a", "by a test")
    found = compare(one, running, history)
    assert (found.results, found.without_results) == (None, ("fit-a", "fit-b"))
    found = compare(running, running, history)
    assert (found.results, found.without_results) == (None, ())
