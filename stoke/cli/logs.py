"""`stoke logs`: a job's output from the spool, which outlives the container.

Imports nothing that is slow to load when the job is over.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from stoke.cli.finding import find_job, open_history
from stoke.cli.options import JOB, apply
from stoke.cli.output import narrate
from stoke.cli.passthrough import Outlet, Passthrough
from stoke.logs.spool import ENGINE_LOG, SpoolReader
from stoke.paths import job_dir

if TYPE_CHECKING:
    from stoke.history import History
    from stoke.job import Job


@click.command()
@apply(JOB)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("--engine", is_flag=True, help="Only what the engine wrote into the log itself.")
@click.option("-t", "--timestamps", is_flag=True, help="Each line with its time, in UTC.")
def command(job: str, follow: bool, tail: int | None, engine: bool, timestamps: bool) -> None:
    """Print a job's output.

    What the job wrote to stdout goes to stdout and what it wrote to stderr to stderr, byte for byte.
    Leaving with ctrl+c leaves the job running.

    \b
    stoke logs train-7k2pqa
    stoke logs -f train
    stoke logs --tail 20 --timestamps train
    """
    with open_history() as history:
        found = find_job(history, job)
        stdout, stderr = Outlet(1, sys.stdout.encoding), Outlet(2, sys.stderr.encoding)
        unfinished = not found.state.finished or found.provisional
        if unfinished and not follow:
            _catch_up(found, history)
        if engine:
            _print_engine_log(found, stdout)
            return
        first = _first_row(found, tail)
        passthrough = Passthrough(
            job_dir(found.id), stdout, stderr, first, _stamp if timestamps else None
        )
        if unfinished and follow:
            _follow(found, history, passthrough)
        else:
            passthrough.pump()
        passthrough.close()


def _print_engine_log(job: Job, stdout: Outlet) -> None:
    """Argo's own lines, for example: they say why a container came to nothing."""
    try:
        stdout.write((job_dir(job.id) / ENGINE_LOG).read_bytes())
    except FileNotFoundError:
        narrate("the engine wrote nothing into it")
    stdout.finish()


def _first_row(job: Job, tail: int | None) -> int:
    if tail is None:
        return 0
    reader = SpoolReader(job_dir(job.id))
    _, rows = reader.size()
    reader.close()
    return max(0, rows - tail)


def _catch_up(job: Job, history: History) -> None:
    """Brings the log up to now; what cannot be had is said, and what is here is shown."""
    from stoke.config import load_config
    from stoke.errors import EngineError
    from stoke.lifecycle import Backends, settle

    try:
        settle(job, Backends(load_config()).get(job.backend), history)
    except EngineError as error:
        narrate(f"this may not be all of it: {error.what}")


def _follow(job: Job, history: History, passthrough: Passthrough) -> None:
    from stoke.cli.narration import Narrator
    from stoke.cli.watch import Follow
    from stoke.config import load_config
    from stoke.lifecycle import Backends, clean_up

    backend = Backends(load_config()).get(job.backend)
    Follow(job.id, backend, history, passthrough, Narrator(quiet=True)).run()
    clean_up(job.id, backend, history)


def _stamp(time: int) -> bytes:
    moment = datetime.fromtimestamp(time / 1e9, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z ").encode()
