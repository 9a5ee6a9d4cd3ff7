"""`stoke exec`: run a program inside a running job."""

from __future__ import annotations

import click

from stoke.cli.options import JOB, apply
from stoke.errors import EngineError
from stoke.history.job import SWEEP


@click.command(context_settings={"ignore_unknown_options": True})
@apply(JOB)
@click.argument("argv", metavar="[--] [PROGRAM [ARG]...]", nargs=-1, type=click.UNPROCESSED)
def command(job: str, argv: tuple[str, ...]) -> int:
    """Run a program inside a running job, by default a shell.

    The program gets the variables and the working directory of the job's code, and its `python`. At a
    terminal it gets one of its own; otherwise its streams are those of this command, byte for byte. Its
    exit code becomes that of this command. It ends with the job.

    \b
    stoke exec train-7k2pqa
    stoke exec train -- python -c 'import torch; print(torch.cuda.is_available())'
    stoke exec train -- tar c out > out.tar
    """
    from contextlib import closing

    from stoke.backend.pool import Backends
    from stoke.cli.job_lookup import find_job, fresh, open_history
    from stoke.cli.output import print_notice
    from stoke.cli.session import Session, interactive
    from stoke.config.loader import load_config

    with open_history() as history, closing(Backends(load_config())) as backends:
        found = find_job(history, job)
        if found.kind == SWEEP:
            from stoke.history.sweeps import Sweeps

            task = next(iter(Sweeps(history).unfinished_jobs(found.id)), None)
            raise EngineError(
                f"{found.id} is a sweep; programs run inside its tasks",
                f"list its tasks: stoke show {found.id}"
                if task is None
                else f"name one of its tasks: stoke exec {task.id}",
            )
        backend = interactive(backends.get(found.backend))
        found = next(iter(fresh([found], history)), found)
        if found.state.finished and not found.held:
            raise EngineError(
                f"{found.id} has {found.state}, so nothing can run inside it",
                f"run it again, and keep it if it fails: stoke rerun --hold {found.id}",
            )
    told: list[str] = []

    def tell_waiting() -> None:
        if not told:
            told.append(found.id)
            print_notice(f"{found.id} is not ready yet; waiting for it")

    session = Session(backend, found.id, list(argv), main=False)
    session.connect(tell_waiting)
    return session.run()
