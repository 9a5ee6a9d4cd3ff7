"""The listing: what passes the filter, in which order, in which groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stoke.errors import EngineError
from stoke.history.database import History
from stoke.history.job import Job, JobState, Phase
from stoke.history.listing import DAY_SECONDS, ORDERS, PAGE, Listing, ListingQuery

NOW = 10_000.0


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "h.sqlite") as made:
        add(made, "fit-aaaaaa", 1000, backend="docker", packages=["numpy", "pandas"])
        add(made, "fit-bbbbbb", 2000, JobState.FAILED, reason="out of memory: 2 GB")
        add(made, "eval-cccccc", 3000, JobState.RUNNING, packages=["Torch"])
        add(made, "clean-dddddd", 4000, JobState.STOPPED, hit=True, scope="numpy-team")
        yield made


def add(
    history: History,
    job_id: str,
    at: float,
    state: JobState = JobState.SUCCEEDED,
    *,
    backend: str = "local",
    scope: str = "default",
    packages: list[str] | None = None,
    hit: bool | None = None,
    reason: str | None = None,
) -> None:
    job = Job(job_id, job_id.split("-")[0], backend, scope, JobState.QUEUED, at)
    job.request_hash = job_id
    history.add(job, '{"code": "1"}', None)
    history.add_asked(job_id, "python", packages or [])
    if hit is not None:
        history.set_phase(job_id, Phase("python", at, 1.0, hit, 1, 1, 0))
    ended = {"finished_at": at + 10_000 / at} if state.finished else {}
    history.update(job_id, state=state, reason=reason, **ended)


def listed(history: History, **wanted: object) -> list[str]:
    listing = Listing(history)
    listing.read(ListingQuery(**wanted), NOW)  # type: ignore[arg-type]
    jobs = [listing.job(place) for place in range(len(listing))]
    ids = [job.id for job in jobs if job is not None]
    assert ids == listing.ids()
    assert [listing.place(job_id) for job_id in ids] == list(range(len(ids)))
    return [job_id.split("-")[1][0] for job_id in ids]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", "dcba"),
        ("FIT", "ba"),
        ("fit docker", "a"),
        ("numpy", "da"),
        ("package:numpy", "a"),
        ("package:torch", "c"),
        ("!package:numpy", "dcb"),
        ("state:failed", "b"),
        ("state:", "dcba"),
        ("memory", ""),
        ("reason:memory", "b"),
        ("!fit", "dc"),
        ("!", "dcba"),
        ("a:b", ""),
        ("%", ""),
        ("_", ""),
        ("f_t", ""),
        ("fit!", ""),
        ("x" * 100_000, ""),
        ("'; DROP TABLE jobs; --", ""),
        ("{0}", ""),
    ],
)
def test_the_filter(history: History, words: str, found: str) -> None:
    assert "".join(listed(history, words=words)) == found
    assert len(history.list()) == 4


@pytest.mark.parametrize(
    ("order", "first", "reverse"),
    [
        ("age", "dcba", "abcd"),
        ("job", "dcab", "bacd"),
        ("backend", "adcb", "dcba"),
        ("state", "cbda", "adbc"),
        # The one that runs has taken longest.
        ("time", "cabd", "dbac"),
        # What is unknown comes last either way.
        ("python", "dcba", "dcba"),
        ("reason", "bdca", "bdca"),
    ],
)
def test_the_order(history: History, order: str, first: str, reverse: str) -> None:
    assert "".join(listed(history, order=order)) == first
    assert "".join(listed(history, order=order, reverse=True)) == reverse


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_lists_every_job(history: History, order: str) -> None:
    for reverse in (False, True):
        assert sorted(listed(history, order=order, reverse=reverse)) == list("abcd")


def test_groups_have_their_counts_and_keep_the_order_inside(history: History) -> None:
    listing = Listing(history)
    listing.read(ListingQuery(group="backend"), NOW)
    assert [(one.name, one.first, one.jobs) for one in listing.groups] == [
        ("docker", 0, 1),
        ("local", 1, 3),
    ]
    assert [listing.group_of(place) for place in range(4)] == [0, 1, 1, 1]
    assert "".join(listed(history, group="backend")) == "adcb"
    assert "".join(listed(history, group="state", order="job", reverse=True)) == "cbda"


def test_the_total_includes_filtered_jobs(history: History) -> None:
    listing = Listing(history)
    listing.read(ListingQuery("docker"), NOW)
    assert (len(listing), listing.total) == (1, 4)
    assert listing.place("fit-bbbbbb") is None
    assert listing.place("nobody") is None


def test_a_page_is_read_when_it_is_looked_at_and_no_sooner(tmp_path: Path) -> None:
    with History(tmp_path / "h.sqlite") as history:
        for number in range(3 * PAGE):
            add(history, f"j-{number}", number + 1)
        listing = Listing(history)
        listing.read(ListingQuery(), NOW)
        asked: list[int] = []
        read = history.numbered

        def counted(numbers: list[int]) -> dict[int, Job]:
            asked.append(len(numbers))
            return read(numbers)

        history.numbered = counted  # type: ignore[method-assign,assignment]
        for place in range(PAGE):
            listing.job(place)
        assert asked == [PAGE]
        listing.job(3 * PAGE - 1)
        assert asked == [PAGE, PAGE]


def test_a_job_that_has_gone_is_none_and_a_reading_that_fails_keeps_the_last(
    history: History, tmp_path: Path
) -> None:
    reading = History(history.path, read_only=True)
    listing = Listing(reading)
    listing.read(ListingQuery(), NOW)
    history.remove("clean-dddddd")
    assert listing.job(0) is None
    reading.close()
    with pytest.raises(EngineError):
        listing.read(ListingQuery("fit"), NOW)
    assert len(listing) == 4


def test_a_locked_history_is_reported_at_once(history: History) -> None:
    reading = History(history.path, read_only=True)
    history.query("PRAGMA wal_checkpoint(TRUNCATE)")
    history.query("PRAGMA journal_mode = DELETE")
    history.query("BEGIN EXCLUSIVE")
    with pytest.raises(EngineError, match="another program holds the history") as caught:
        Listing(reading).read(ListingQuery(), NOW)
    assert "fuser" in (caught.value.hint or "")
    history.query("COMMIT")
    reading.close()


def test_a_reader_writes_nothing(history: History) -> None:
    with History(history.path, read_only=True) as reading, pytest.raises(EngineError):
        reading.remove("fit-aaaaaa")
    assert len(history.list()) == 4


def test_unfinished_and_recently_failed_jobs_are_counted_despite_a_filter(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Listing(history)
    listing.read(ListingQuery(words="clean"), NOW)
    assert len(listing) == 1
    assert listing.unfinished == {JobState.RUNNING: 1}
    assert (listing.failed_lately, listing.has_more_lately) == (1, False)
    listing.read(ListingQuery(), NOW + DAY_SECONDS)
    assert listing.failed_lately == 0
    monkeypatch.setattr("stoke.history.listing.MOST_LATELY", 2)
    listing.read(ListingQuery(), NOW)
    assert (listing.failed_lately, listing.has_more_lately) == (0, True)
