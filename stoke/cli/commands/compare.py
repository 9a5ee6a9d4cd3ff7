"""`stoke compare`: two jobs side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

import click

from stoke.cli.completion import complete_job
from stoke.cli.job_lookup import find_job, fresh, open_history
from stoke.cli.output import Cell, print_json, print_table, state_text
from stoke.cli.result_changes import MARKS, change_document, change_line
from stoke.text.sanitize import clean
from stoke.text.units import UNKNOWN, human_bytes, human_seconds

if TYPE_CHECKING:
    from stoke.history.job import Job, Phase
    from stoke.jobs.compare import Comparison, FileChange

T = TypeVar("T")

MOST_FILES = 40
"""Files and results that are shown, of each; `--json` prints all."""


@click.command()
@click.argument("first", metavar="JOB", shell_complete=complete_job)
@click.argument("second", metavar="JOB", shell_complete=complete_job)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(first: str, second: str, as_json: bool) -> None:
    """Show two jobs side by side.

    Shows the differences of the requests, the packages and the files of the project that were added,
    removed or changed, the results by name, size and digest, and the seconds of each phase. Everything
    comes from this machine's history.

    \b
    stoke compare train-7k2pqa train-m3x5ab
    stoke compare train-7k train-m3 --json | jq .packages
    """
    from stoke.jobs.compare import compare

    with open_history() as history:
        jobs = [find_job(history, name) for name in (first, second)]
        jobs = fresh(jobs, history)
        found = compare(jobs[0], jobs[-1], history)
    if as_json:
        print_json(_document(found))
    else:
        _print(found)


def _document(found: Comparison) -> dict[str, object]:
    return {
        "jobs": [found.first.id, found.second.id],
        "spec": [asdict(one) for one in found.spec],
        "code": list(found.code),
        "packages": {
            kind: [{**asdict(one), "change": one.change} for one in changes]
            for kind, changes in found.packages.items()
        },
        "files": None
        if found.files is None
        else [{**asdict(one), "change": one.change} for one in found.files],
        "results": None
        if found.results is None
        else [change_document(one) for one in found.results.changes],
        "unknown_results": list(found.without_results),
        "unknown_packages": list(found.unknown),
        "phases": [
            {
                "name": pair.name,
                "first": pair.first.as_json() if pair.first else None,
                "second": pair.second.as_json() if pair.second else None,
            }
            for pair in found.phases
        ],
    }


def _print(found: Comparison) -> None:
    first, second = found.first, found.second
    rows: list[list[Cell]] = [
        ["state", state_text(first), state_text(second)],
        ["exit code", *(_number(job.exit_code) for job in (first, second))],
        ["took", human_seconds(first.seconds), human_seconds(second.seconds)],
        ["environment", *(human_seconds(job.environment_seconds) for job in (first, second))],
        ["received", *(human_bytes(job.received_bytes) for job in (first, second))],
        ["cpu", human_seconds(first.cpu_seconds), human_seconds(second.cpu_seconds)],
        ["peak memory", human_bytes(first.peak_memory), human_bytes(second.peak_memory)],
    ]
    rows += [[pair.name, _phase(pair.first), _phase(pair.second)] for pair in found.phases]
    rows += [[one.what, one.first or UNKNOWN, one.second or UNKNOWN] for one in found.spec]
    print_table(["", first.id, second.id], rows)
    for kind, changes in found.packages.items():
        click.echo(f"\n{kind} packages: {'the same' if not changes else ''}".rstrip())
        for one in changes:
            versions = " -> ".join(one for one in (one.first, one.second) if one)
            click.echo(f"{MARKS[one.change]} {clean(one.name)} {clean(versions)}".rstrip())
    for kind in found.unknown:
        click.echo(f"\n{kind} packages: {_where_to_ask(kind, first, second)}")
    if found.files is not None:
        _print_changes("files", found.files, _file_line)
    _print_results(found)
    if found.code:
        click.echo("\ncode:")
        for line in found.code:
            click.echo(clean(line))


def _print_results(found: Comparison) -> None:
    for job_id in found.without_results:
        click.echo(
            f"\nresults of {clean(job_id)}: not on this machine: stoke results {clean(job_id)}"
        )
    if found.results is not None:
        _print_changes("results", found.results.changes, change_line)


def _print_changes(what: str, changes: Sequence[T], line: Callable[[T], str]) -> None:
    click.echo(f"\n{what}: {'the same' if not changes else ''}".rstrip())
    for one in changes[:MOST_FILES]:
        click.echo(line(one))
    if len(changes) > MOST_FILES:
        click.echo(f"and {len(changes) - MOST_FILES:,} more: --json lists all")


def _file_line(one: FileChange) -> str:
    sides = clean(" -> ".join(one.sides(human_bytes)))
    return f"{MARKS[one.change]} {clean(one.path)} {sides}"


def _where_to_ask(kind: str, first: Job, second: Job) -> str:
    if kind == "system":
        return "not known for both jobs"
    ask = " and ".join(f"stoke render lock --job {clean(job.id)}" for job in (first, second))
    return f"not known for both jobs on this machine; ask the caches: {ask}"


def _phase(phase: Phase | None) -> str:
    if phase is None:
        return UNKNOWN
    parts = [human_seconds(phase.seconds)]
    if phase.outcome:
        parts.append(phase.outcome)
    if phase.packages is not None:
        parts.append(f"{phase.packages:,} package{'' if phase.packages == 1 else 's'}")
    if phase.bytes:
        parts.append(human_bytes(phase.bytes))
    return ", ".join(parts)


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)
