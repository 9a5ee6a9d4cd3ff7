"""Submit a request and follow its job.

The modules that follow a job are imported after it is submitted, while it starts.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoke.backend.pool import Backends
from stoke.cli.output import print_json
from stoke.cli.progress_output import ProgressPrinter
from stoke.config.model import Config
from stoke.errors import RequestError, StokeError
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.jobs.document import job_document
from stoke.jobs.prepare import prepare
from stoke.jobs.request import Request
from stoke.jobs.submit import submit

if TYPE_CHECKING:
    from stoke.cli.run_on_save import RunControl
    from stoke.cli.session import Shell
    from stoke.history.queue import Placement
    from stoke.jobs.sweeps import SweepRequest


def run_request(
    request: Request,
    backend_name: str,
    config: Config,
    *,
    detach: bool,
    as_json: bool,
    quiet: bool,
    folder: Path | None = None,
    control: RunControl | None = None,
    queue: Placement | None = None,
    sweep: SweepRequest | None = None,
) -> int:
    """Submit the request and, unless `detach`, follow the job to its end. Return the exit code.

    `folder` is that of the script, given for new code: packages that its imports need are proposed.
    `control` can end the run. With `queue`, the job waits in the queue until it is its turn. With
    `sweep`, the request is that of its tasks.
    """
    progress = ProgressPrinter(quiet)
    shell: Shell | None = None
    with closing(Backends(config)) as backends, History() as history:
        backend = backends.get(backend_name)
        if request.spec.shell:
            from stoke.cli.session import Shell, interactive

            interactive(backend)
            if detach or as_json:
                raise RequestError("shell", "cannot be combined with --detach and --json")
        if sweep is not None:
            from stoke.jobs.sweeps import check_sweep

            check_sweep(request.spec, sweep, backend)
        turn = None
        if queue is not None:
            from stoke.jobs.dependencies import check_dependencies
            from stoke.jobs.turns import Turn

            check_dependencies(queue.after, history)
            turn = Turn(queue, config)
        prepared = prepare(request, backend, history)
        for note in prepared.request.notes:
            progress.print(note)
        if not request.lock_only:
            progress.print_prediction(backend, prepared.prediction)
        if prepared.note is not None:
            progress.print(prepared.note)
        if prepared.workspace_note is not None:
            progress.print(prepared.workspace_note)
        if prepared.snapshot is not None:
            for text, hint in prepared.snapshot.notes:
                progress.print(f"{text}; {hint}")
        # Where there is a requirements.txt, a note proposes that and not a guess.
        has_file = folder is not None and os.path.isfile(folder / "requirements.txt")
        if folder is not None and not has_file and not request.spec.has_packages:
            from stoke.request.undeclared_packages import undeclared

            progress.print_undeclared(undeclared(request.spec, folder))
        if sweep is not None:
            from stoke.cli.run_sweep import run_sweep

            return run_sweep(
                prepared,
                sweep,
                history,
                config,
                progress,
                queue=queue,
                detach=detach,
                as_json=as_json,
            )
        try:
            job = submit(prepared, history, progress.print_submission, turn)
        except StokeError as error:
            failed = history.get(error.job_id) if error.job_id else None
            if as_json and failed is not None:
                print_json(job_document(failed, history))
            raise
        if request.spec.shell:
            shell = Shell(backend, job.id)
        if detach:
            if as_json:
                # The state at submission; nothing has read the engine since.
                print_json(job_document(replace(job, state=JobState.QUEUED), history))
            else:
                click.echo(job.id)
            return 0
        from stoke.cli.watch import watch_job

        return watch_job(job, backend, history, config, progress, as_json, folder, control, shell)
