"""`stoke logs`: print the output of jobs from their spools, which outlive the containers.

Slow modules are imported only for unfinished jobs.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from stoke.cli.job_lookup import attempt_of, find_jobs, open_history, with_tasks
from stoke.cli.log_lines import JobLines, LineFilter, LinePrinter, since_time, stamp
from stoke.cli.options import JOBS, apply
from stoke.cli.output import print_error, print_notice, print_unsaved_log, removed_log, shows_colour
from stoke.cli.passthrough import OutputStream, Passthrough
from stoke.cli.terminal import JobScreen
from stoke.errors import RequestError
from stoke.history.job import SWEEP
from stoke.logs.fallback import LogLocation, LogLocations
from stoke.logs.pattern import Pattern
from stoke.logs.spool import ENGINE_LOG, STDERR, STDOUT, SpoolReader
from stoke.text.sanitize import clean

if TYPE_CHECKING:
    from stoke.history.database import History
    from stoke.history.job import Job
    from stoke.history.sweeps import Sweep


def _pattern(_context: click.Context, _option: click.Parameter, text: str | None) -> Pattern | None:
    try:
        return None if text is None else Pattern(text)
    except RequestError as error:
        raise click.BadParameter(error.why) from None


@click.command()
@apply(JOBS)
@click.option("-f", "--follow", is_flag=True, help="Continue until the jobs end.")
@click.option(
    "-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines."
)
@click.option(
    "--since",
    metavar="TIME",
    help="Only lines since then: 90s, 5m, 2h or 1d ago, or a date and time.",
)
@click.option("-t", "--timestamps", is_flag=True, help="Print the time of each line, in UTC.")
@click.option(
    "--stream", type=click.Choice(["stdout", "stderr"]), help="Only lines of this stream."
)
@click.option(
    "--grep",
    metavar="REGEX",
    callback=_pattern,
    help="Only lines that match. In lines longer than 1 MiB, a match has at most 64 KiB.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each line as a line of JSON.")
@click.option(
    "--task",
    "task",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only this task of a sweep.",
)
@click.option(
    "--attempt", type=click.IntRange(min=1), metavar="N", help="Of a job with retries, attempt N."
)
@click.option("--engine", is_flag=True, help="Only what the engine itself wrote into the log.")
def command(
    jobs: tuple[str, ...],
    follow: bool,
    tail: int | None,
    since: str | None,
    timestamps: bool,
    stream: str | None,
    grep: Pattern | None,
    as_json: bool,
    task: int | None,
    attempt: int | None,
    engine: bool,
) -> int:
    """Print the output of jobs.

    A job's stdout goes to stdout and its stderr to stderr, byte for byte unless an option changes
    lines. With several jobs, each line begins with its job's name. Ctrl+c ends the command and not the
    jobs. Of a sweep, the output of all its tasks is printed, or that of one with --task.

    \b
    stoke logs train-7k2pqa
    stoke logs train-7k2pqa --task 17
    stoke logs -f train eval
    stoke logs --attempt 1 train-7k2pqa
    stoke logs --since 5m --grep 'loss=nan' train
    stoke logs --json train | jq -r 'select(.stream == "stderr").text'
    """
    if engine and (follow or tail is not None or since or timestamps or stream or grep or as_json):
        raise click.UsageError(
            "--engine prints the engine's whole log; it cannot be combined with other options."
        )
    wanted = LineFilter(
        stream={None: None, "stdout": STDOUT, "stderr": STDERR}[stream],
        since=0 if since is None else since_time(since, time.time()),
        grep=grep,
    )
    locations = LogLocations()
    with open_history() as history:
        found, unknown = find_jobs(history, jobs)
        sweeps = _with_waiting_tasks(found, history) if follow and task is None else []
        found = with_tasks(found, task, history, follow=follow)
        names = [job.id for job in found]
        if sweeps:
            from stoke.cli.sweep_logs import names_of_all

            names = names_of_all(found, sweeps)
        if attempt is not None:
            found = [attempt_of(job, attempt, history) for job in found]
        for error in unknown:
            print_error(error.what, error.hint)
        code = max((error.exit_code for error in unknown), default=0)
        for job in found:
            if removed := removed_log(job):
                print_notice(f"{job.id}: {removed}")
                code = code or 1
        copied = (
            len(found) == len(names) == 1 and wanted == LineFilter() and not as_json and not engine
        )
        screen = JobScreen() if copied and not timestamps else None
        stdout = OutputStream(1, sys.stdout.encoding, screen)
        stderr = OutputStream(2, sys.stderr.encoding, screen)
        if engine:
            _print_engine_logs(found, history, locations, stdout)
        elif copied:
            one: Job | None = found[0]
            while one is not None:
                location = locations.of(one.id)
                _copy(one, history, location, stdout, stderr, follow, tail, timestamps)
                one = _next_attempt(one, history) if follow and attempt is None else None
        elif names:
            printer = LinePrinter(
                stdout,
                stderr,
                names,
                as_json=as_json,
                timestamps=timestamps,
                colours=shows_colour(sys.stdout),
                grep=grep,
            )
            _print_lines(found, sweeps, history, locations, printer, wanted, follow, tail)
            stdout.finish()
            stderr.finish()
    return code


def _copy(
    job: Job,
    history: History,
    location: LogLocation,
    stdout: OutputStream,
    stderr: OutputStream,
    follow: bool,
    tail: int | None,
    timestamps: bool,
) -> None:
    """Copy one job's output unchanged."""
    if _is_open(job) and not follow:
        _catch_up(job, history, location)
    first = _first_row(location, tail)
    before = (lambda moment: stamp(moment).encode()) if timestamps else None
    passthrough = Passthrough(location, stdout, stderr, first, before)
    if _is_open(job) and follow:
        _follow(job, history, location, passthrough)
    else:
        passthrough.pump()
    passthrough.close()


def _with_waiting_tasks(jobs: list[Job], history: History) -> list[Sweep]:
    """Return the sweeps among the jobs of which some tasks have not begun."""
    if all(job.kind != SWEEP for job in jobs):
        return []
    from stoke.history.sweeps import Sweeps

    sweeps = [Sweeps(history).of(job) for job in jobs if job.kind == SWEEP]
    return [sweep for sweep in sweeps if sweep.has_waiting]


def _next_attempt(job: Job, history: History) -> Job | None:
    """Return the attempt that follows a job which has just ended, and say why there is one."""
    from stoke.history.queue import JobQueue

    if not JobQueue(history).has_sequel(job.id):
        return None
    from stoke.cli.progress_output import ProgressPrinter
    from stoke.cli.watch import run_again

    return run_again(job, history, ProgressPrinter(quiet=False))


def _print_lines(
    jobs: list[Job],
    sweeps: list[Sweep],
    history: History,
    locations: LogLocations,
    printer: LinePrinter,
    wanted: LineFilter,
    follow: bool,
    tail: int | None,
) -> None:
    unfinished = [job for job in jobs if _is_open(job)]
    if not follow:
        for job in unfinished:
            _catch_up(job, history, locations.of(job.id))
    sources = [JobLines(job.id, locations.of(job.id), wanted, tail) for job in jobs]
    if follow and (unfinished or sweeps):
        from stoke.cli.sweep_logs import BeginningTasks
        from stoke.cli.watch import follow_jobs

        beginning = BeginningTasks(sweeps, {job.id for job in jobs}, history)

        def more() -> list[Job] | None:
            begun = beginning.new()
            sources.extend(
                JobLines(job.id, locations.of(job.id), wanted, tail) for job in begun or ()
            )
            return begun and [job for job in begun if _is_open(job)]

        follow_jobs(
            unfinished,
            history,
            locations,
            lambda all_of_it: printer.print_merged(sources, all_of_it),
            more,
        )
    printer.print_merged(sources, all_of_it=True)
    for source in sources:
        source.close()


def _is_open(job: Job) -> bool:
    return not job.state.finished or (job.provisional and not job.held)


def _print_engine_logs(
    jobs: list[Job], history: History, locations: LogLocations, stdout: OutputStream
) -> None:
    """Argo's own lines, for example: they say why a container came to nothing."""
    for job in jobs:
        location = locations.of(job.id)
        if _is_open(job):
            _catch_up(job, history, location)
        try:
            data = (location.current / ENGINE_LOG).read_bytes()
        except FileNotFoundError:
            if not removed_log(job):
                print_notice(f"{job.id}: the engine wrote nothing into its log")
            continue
        if len(jobs) > 1:
            name = f"{clean(job.id)} | ".encode()
            data = b"".join(name + line + b"\n" for line in data.splitlines())
        stdout.write(data)
    stdout.finish()


def _first_row(location: LogLocation, tail: int | None) -> int:
    if tail is None:
        return 0
    reader = SpoolReader(location)
    _, rows = reader.size()
    reader.close()
    return max(0, rows - tail)


def _catch_up(job: Job, history: History, location: LogLocation) -> None:
    """Fetch the rest of the log. Report a part that cannot be fetched, and show the saved part."""
    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config
    from stoke.errors import EngineError
    from stoke.jobs.refresh import reconcile

    try:
        backend = Backends(load_config()).get(job.backend)
        reconcile(job, backend, history, on_unsaved=print_unsaved_log, location=location)
    except EngineError as error:
        print_notice(f"the log may be incomplete: {error.what}")


def _follow(job: Job, history: History, location: LogLocation, passthrough: Passthrough) -> None:
    from stoke.backend.pool import Backends
    from stoke.cli.progress_output import ProgressPrinter
    from stoke.cli.watch import JobFollower
    from stoke.config.loader import load_config
    from stoke.jobs.refresh import clean_up

    backend = Backends(load_config()).get(job.backend)
    progress = ProgressPrinter(quiet=True, troubles=True)
    JobFollower(job.id, backend, history, location, passthrough, progress).run()
    clean_up(job.id, backend, history)
