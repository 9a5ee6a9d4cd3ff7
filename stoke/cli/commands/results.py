"""`stoke results`: list, copy, compare and clear what jobs produced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoke.cli.confirm import confirm
from stoke.cli.job_lookup import find_job, fresh, open_history
from stoke.cli.option_errors import read_option
from stoke.cli.options import JOBS_IF_ANY, apply
from stoke.cli.output import (
    Cell,
    counted,
    print_error,
    print_json,
    print_notice,
    print_table,
    time_ago,
)
from stoke.cli.progress import ProgressLine
from stoke.cli.result_changes import change_document, change_line, file_document
from stoke.errors import EXIT_ENGINE, RequestError
from stoke.history.job import SWEEP
from stoke.text.times import rfc3339
from stoke.text.units import human_bytes, parse_duration

if TYPE_CHECKING:
    from stoke.history.database import History
    from stoke.history.job import Job
    from stoke.results.collect import Collected


@click.command()
@apply(JOBS_IF_ANY)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Copy the results of JOB into this folder.",
)
@click.option("--force", is_flag=True, help="With -o, replace other files of the same names.")
@click.option("--clear", is_flag=True, help="Remove results from this machine, and keep the jobs.")
@click.option(
    "--older-than",
    metavar="TIME",
    help="With --clear, only of jobs that ended at least this long ago: 30d.",
)
@click.option(
    "--table",
    is_flag=True,
    help="Of a sweep: the values, state, exit code, time and last line of each task.",
)
@click.option("--csv", "as_csv", is_flag=True, help="With --table, print CSV.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    jobs: tuple[str, ...],
    output: Path | None,
    force: bool,
    clear: bool,
    older_than: str | None,
    table: bool,
    as_csv: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """List, copy, compare and clear what jobs left behind.

    These are the files that a job wrote to $STOKE_RESULTS, and those that --results matched.

    With one JOB, list its files with sizes and digests, or copy them with -o. With two, show their
    differences. Without any, list the jobs that have results. Results that are still at the engine are
    collected first.

    \b
    stoke results train-7k2pqa
    stoke results train -o out
    stoke results train-7k2pqa train-m3x5ab
    stoke results train-7k2pqa --table --csv
    stoke results --clear --older-than 30d
    """
    if table or as_csv:
        if not table or len(jobs) != 1 or clear or output is not None or (as_csv and as_json):
            raise click.UsageError("--table takes one sweep, and either --csv or --json.")
        return _print_table(jobs[0], as_csv, as_json)
    if older_than is not None and not clear:
        raise click.UsageError("--older-than needs --clear.")
    if clear:
        if output is not None or (jobs and older_than is not None):
            raise click.UsageError("--clear takes jobs or --older-than, and no other option.")
        return _clear(jobs, older_than, yes)
    if output is not None and len(jobs) != 1:
        raise click.UsageError("-o copies the results of one job: name it.")
    if force and output is None:
        raise click.UsageError("--force needs -o.")
    if len(jobs) > 2:
        raise click.UsageError("Name one job, or two to compare them.")
    with open_history() as history:
        if not jobs:
            _list_jobs(history, as_json)
            return 0
        found = fresh([find_job(history, name) for name in jobs], history)
        for job in found:
            if job.kind == SWEEP:
                raise RequestError(
                    job.id,
                    "is a sweep; its tasks have the results",
                    f"list its tasks: stoke results {job.id} --table",
                )
        collected = [_collected(job, history) for job in found]
    if len(found) == 2:
        _compare(found, collected, as_json)
    elif as_json and output is None:
        print_json(_document(found[0], collected[0]))
    elif output is None:
        _print(found[0], collected[0])
    if output is not None:
        _copy(found[0], collected[0], output, force, as_json)
    return 0


def _collected(job: Job, history: History) -> Collected:
    """Return the results of a job, collected now if they are still at its engine."""
    from contextlib import closing

    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config
    from stoke.jobs.fetch_results import fetch_results

    with closing(Backends(load_config())) as backends, ProgressLine() as progress:
        return fetch_results(job, lambda job: backends.get(job.backend), history, progress)


def _print_table(name: str, as_csv: bool, as_json: bool) -> int:
    """Print the tasks of a sweep."""
    from stoke.cli.sweep_output import print_csv, print_task_table
    from stoke.history.sweeps import Sweeps
    from stoke.jobs.sweep_report import report_on, task_documents

    with open_history() as history:
        job = find_job(history, name)
        if job.kind != SWEEP:
            raise RequestError("table", f"{job.id} is no sweep")
        fresh([job], history)
        report = report_on(job, history)
        if as_json:
            print_json(list(task_documents(report.sweep, history)))
        elif as_csv:
            print_csv(task_documents(report.sweep, history), report.sweep.names)
        else:
            print_task_table(Sweeps(history).tasks(report.sweep), report)
    return 0


def _print(job: Job, results: Collected) -> None:
    from stoke.results.compare import DIGITS

    if not results.files and not results.refused:
        print_notice(
            f"{job.id} has no results: its code wrote nothing to $STOKE_RESULTS, and no new file "
            "matched --results"
        )
        return
    rows: list[list[Cell]] = [
        [human_bytes(file.size), file.sha256[:DIGITS], file.path] for file in results.files
    ]
    print_table(["SIZE", "SHA256", "FILE"], rows, frozenset({0}))
    from stoke.results.store import results_folder

    total = f"{counted(len(results.files), 'file')}, {human_bytes(results.bytes)}"
    print_notice(f"{total}, in {results_folder(job.id)}")
    for path, why in results.refused:
        print_notice(f"not collected: {path!r}: {why}")
    more = results.refused_count - len(results.refused)
    if more:
        print_notice(f"not collected: {more:,} more")


def _document(job: Job, results: Collected) -> dict[str, object]:
    from stoke.results.store import results_folder

    return {
        "job": job.id,
        "folder": str(results_folder(job.id)),
        "collected_at": rfc3339(job.results_at),
        "bytes": results.bytes,
        "files": [file_document(file) for file in results.files],
        "refused": [{"path": path, "why": why} for path, why in results.refused],
        "refused_count": results.refused_count,
    }


def _copy(job: Job, results: Collected, target: Path, force: bool, as_json: bool) -> None:
    from stoke.results.copy_out import copy_out
    from stoke.results.store import results_folder

    with ProgressLine() as progress:
        written = copy_out(
            results,
            results_folder(job.id),
            target,
            force=force,
            progress=lambda files, size: progress(f"copying: {files:,} files, {human_bytes(size)}"),
        )
    if as_json:
        print_json({**_document(job, results), "output": str(target), "written": written})
        return
    same = len(results.files) - written
    already = f"; {counted(same, 'file')} already there" if same else ""
    print_notice(f"copied {counted(written, 'file')} to {target}{already}")


def _compare(jobs: list[Job], results: list[Collected], as_json: bool) -> None:
    from stoke.results.compare import compare_results

    found = compare_results(*results)
    if as_json:
        files = [change_document(one) for one in found.changes]
        print_json({"jobs": [job.id for job in jobs], "files": files})
        return
    for one in found.changes:
        click.echo(change_line(one))
    differences = counted(len(found.changes), "difference")
    print_notice(f"{differences}, {counted(found.same, 'file')} the same")


def _list_jobs(history: History, as_json: bool) -> None:
    from stoke.results.retention import older_than

    jobs = older_than(None, history)
    if as_json:
        print_json(
            [
                {
                    "job": job.id,
                    "files": job.results_files,
                    "bytes": job.results_bytes,
                    "collected_at": rfc3339(job.results_at),
                }
                for job in jobs
            ]
        )
        return
    if not jobs:
        print_notice("no results on this machine; a job writes them to $STOKE_RESULTS")
        return
    rows: list[list[Cell]] = [
        [
            f"{job.results_files:,}",
            human_bytes(job.results_bytes),
            time_ago(job.finished_at),
            job.id,
        ]
        for job in jobs
    ]
    print_table(["FILES", "SIZE", "ENDED", "JOB"], rows, frozenset({0, 1}))
    print_notice(f"{human_bytes(sum(job.results_bytes for job in jobs))} in all")


def _clear(names: tuple[str, ...], older_than_text: str | None, yes: bool) -> int:
    from stoke.results.retention import forget, older_than

    age = None
    if older_than_text is not None:
        age = read_option("--older-than", older_than_text, parse_duration)
    with open_history() as history:
        jobs = older_than(age, history)
        if names:
            wanted = {find_job(history, name).id for name in names}
            jobs = [job for job in jobs if job.id in wanted]
    if not jobs:
        print_notice("no such results on this machine; nothing was removed")
        return 0
    size = human_bytes(sum(job.results_bytes for job in jobs))
    files = counted(sum(job.results_files for job in jobs), "file")
    print_notice(f"{files}, {size}, of {counted(len(jobs), 'job')}")
    if not yes:
        confirm("Remove them?", "results", "nothing was removed")
    failed = [job for job in jobs if not forget(job.id, "by stoke results --clear")]
    freed = sum(job.results_bytes for job in jobs) - sum(job.results_bytes for job in failed)
    print_notice(f"freed {human_bytes(freed)}")
    for job in failed:
        print_error(f"the results of {job.id} are in use, or their folder cannot be changed", None)
    return EXIT_ENGINE if failed else 0
