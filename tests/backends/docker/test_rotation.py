"""A job that prints more than its engine keeps: what was dropped shows where it was, and nothing comes
twice (F7)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator

import pytest

from stoke.backend.pool import Backends
from stoke.config.model import Config, DockerConfig, LogConfig
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.job import Job
from stoke.jobs.tracker import Tracker
from stoke.logs.spool import NOTE
from tests.lab import Lab, until
from tests.spools import lines_in

pytestmark = pytest.mark.docker

LINES = 150_000
PRINTS = f"""
import sys
for first in range(0, {LINES}, 500):
    sys.stdout.write("".join("%099d\\n" % number for number in range(first, first + 500)))
    sys.stdout.flush()
"""
# 20 MB as the engine stores them, and it keeps from 4 to 8.
KEPT = 4 * 1024**2


@pytest.fixture
def lab(bare_image: str, docker_cleanup: Callable[[str], None]) -> Iterator[Lab]:
    scope = f"test-{secrets.token_hex(4)}"
    docker_cleanup(scope)
    config = Config(docker=DockerConfig(image=bare_image), log=LogConfig(max_size=KEPT))
    backends = Backends(config)
    yield Lab(backends.get("docker"), config, scope, "")
    backends.close()


def holes(job: Job) -> list[int]:
    """Which lines come behind a hole, each of which has a note; fails for one that has none, and for a
    line that is not whole or comes again."""
    found, expected, noted = [], 0, False
    for line in lines_in(job_dir(job.id)):
        if line.stream == NOTE:
            assert line.text.startswith(b"gap: ")
            noted = True
            continue
        assert len(line.text) == 100
        number = int(line.text)
        assert number >= expected, f"{number} again, or late"
        if number > expected:
            assert noted, f"{expected} to {number} are missing without a word"
            found.append(number)
        expected, noted = number + 1, False
    assert expected == LINES
    return found


@pytest.mark.parametrize("pause", [0, 0.02], ids=["quick", "slow"])
def test_f07_c19_rotated_faster_than_it_is_followed(lab: Lab, pause: float) -> None:
    job = lab.submit(PRINTS, use_cache=False)
    with History() as history:
        # As slow as a disk may be; the engine does not wait for a reader.
        Tracker(lab.backend, history, job.id, on_change=lambda: time.sleep(pause)).run()
        done = history.get(job.id)
    found = holes(job)
    assert done is not None and done.exit_code == 0
    assert done.log_gaps >= len(found)
    if pause:
        assert found
    lab.backend.remove(job.id)


def test_f07_a_log_whose_beginning_was_rotated_away_has_a_gap(lab: Lab) -> None:
    job = lab.submit(PRINTS, use_cache=False)
    until(lambda: lab.backend.inspect(job.id).status == "exited", "the job's end")
    done, _ = lab.follow(job)
    first = lines_in(job_dir(job.id))[0]
    assert (first.stream, first.text) == (
        NOTE,
        b"gap: the engine no longer has the beginning of the log\n",
    )
    assert (len(holes(job)), done.log_gaps, done.exit_code) == (1, 1, 0)
