"""What the caches saved, told from jobs."""

from __future__ import annotations

from stoke.caches import Savings, savings
from stoke.job import Job, JobState, Phase


def job(at: float, hit: bool | None, seconds: float, received: int | None, **fields: str) -> Job:
    known = {"backend": "docker", "scope": "default", "request_hash": "r", **fields}
    return Job(
        id=f"job-{at}",
        name="job",
        state=JobState.SUCCEEDED,
        submitted_at=at,
        phases=[Phase("python", at, seconds, hit, 4, None, received)],
        **known,  # type: ignore[arg-type]
    )


def of_python(*jobs: Job) -> Savings:
    return savings(jobs, "docker", "default", "python")


def test_nothing_known_is_none_and_not_zero() -> None:
    assert of_python() == Savings(None, None, None)
    assert of_python(job(1, None, 1, None)) == Savings(None, None, None)
    assert of_python(job(1, False, 9, 100)) == Savings(0.0, None, None)
    # A hit whose miss nobody saw.
    assert of_python(job(1, True, 1, 0)) == Savings(1.0, None, None)


def test_a_hit_saves_what_the_latest_miss_of_its_request_took() -> None:
    jobs = [
        job(1, False, 9.0, 900),
        job(2, True, 1.0, 0),
        job(3, False, 5.0, 500),
        job(4, True, 1.0, 100),
        job(5, False, 70.0, 7000, request_hash="another"),
    ]
    assert of_python(*reversed(jobs)) == Savings(0.4, 12.0, 1300)


def test_other_scopes_and_backends_do_not_count() -> None:
    jobs = [
        job(1, False, 9, 9),
        job(2, True, 1, 0, scope="other"),
        job(3, True, 1, 0, backend="local"),
    ]
    assert of_python(*jobs) == Savings(0.0, None, None)
    assert savings(jobs, "docker", "default", "system") == Savings(None, None, None)


def test_bytes_that_could_not_be_counted_stay_unknown() -> None:
    assert of_python(job(1, False, 9, None), job(2, True, 1, None)) == Savings(0.5, 8.0, None)
