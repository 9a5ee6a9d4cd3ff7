"""`stoke show`: show one job in detail."""

from __future__ import annotations

import sys

import click

from stoke.cli.job_lookup import find_job, fresh, open_history
from stoke.cli.options import JOB, apply
from stoke.cli.output import (
    Cell,
    counted,
    human_time,
    notes_text,
    paint,
    print_json,
    print_pairs,
    print_table,
    removed_log,
    state_colour,
    state_text,
    time_ago,
)
from stoke.cli.progress_output import hit_text, prediction_text, results_text
from stoke.errors import RequestError
from stoke.history.attempts import Attempt, Attempts
from stoke.history.job import CODE, SWEEP, Job, JobState, Usage
from stoke.history.usage import UsageCurves, resampled
from stoke.jobs.document import log_size, shown_document
from stoke.request.fields import rows
from stoke.request.stored import read_stored_fields
from stoke.text.sanitize import clean, clean_block
from stoke.text.sparkline import sparkline
from stoke.text.units import UNKNOWN, human_bytes, human_load, human_seconds

ASK_SECONDS = 5.0
"""Seconds to wait for the backend, more than a listing does: a cluster may answer slowly."""
MOST_LINES = 40
"""Lines of code that are shown; `--json` prints all."""
MOST_PACKAGES = 20
CURVE_WIDTH = 40


@click.command()
@apply(JOB)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(job: str, as_json: bool) -> None:
    """Show a job in detail.

    JOB is the beginning of its id. Of a sweep, its progress and its tasks are shown, failed ones first.
    Of a secret the source is shown, and of a variable whose name looks
    secret only the name.

    \b
    stoke show train-7k2pqa
    stoke show train --json | jq .phases
    """
    with open_history() as history:
        found = find_job(history, job)
        found = next(iter(fresh([found], history, ASK_SECONDS)), found)
        if found.kind == SWEEP:
            from stoke.cli.sweep_output import show_sweep

            show_sweep(found, history, as_json)
            return
        if as_json:
            print_json(shown_document(found, history))
            return
        spec, notes = history.spec(found.id), history.notes(found.id)
        packages = history.packages(found.id)
        curve = UsageCurves(history).of(found.id)
        attempts = [(one, history.get(one.job_id)) for one in Attempts(history).all_of(found.id)]
    _show_job(found)
    if len(attempts) > 1:
        click.echo()
        _show_attempts(attempts)
    if found.phases:
        click.echo()
        _show_phases(found)
    if curve:
        click.echo()
        _show_usage(found, curve)
    if notes or packages:
        click.echo()
        print_pairs(
            {
                **{kind: _packages_text(found, kind, packages[kind]) for kind in packages},
                "notes": notes_text(notes, found.reason),
            }
        )
    if spec is not None:
        click.echo()
        _show_stored(spec)
    click.echo(f"\nagain: stoke rerun {clean(found.id)}")


def _show_job(job: Job) -> None:
    state = paint(state_text(job), state_colour(job), sys.stdout)
    code = "" if job.exit_code is None else f"  exit {job.exit_code}"
    click.echo(f"{paint(clean(job.id), 'bold', sys.stdout)}  {state}{code}")
    lines, size, missing = log_size(job)
    gaps = f", {missing} gap{'s' if missing > 1 else ''}" if missing else ""
    removed = removed_log(job)
    used = [
        f"{what} {figure}"
        for what, figure in (
            ("cpu", human_seconds(job.cpu_seconds)),
            ("peak memory", human_bytes(job.peak_memory)),
        )
        if figure != UNKNOWN
    ]
    print_pairs(
        {
            "name": job.name,
            "kind": None if job.kind == CODE else job.kind,
            "task": job.sweep and f"{job.task} of {job.sweep}: stoke show {job.sweep}",
            "schedule": job.schedule and f"{job.schedule}: stoke schedule list",
            "backend": f"{job.backend}, scope {job.scope}",
            "submitted": f"{human_time(job.submitted_at)} ({time_ago(job.submitted_at)})",
            "code began": human_time(job.started_at) if job.started_at else None,
            "took": ", ".join([human_seconds(job.seconds), *used]),
            "why": job.reason,
            "held": f"until {human_time(job.held_until)}: stoke exec {job.id}; release it: "
            f"stoke stop {job.id}"
            if job.held and job.held_until
            else None,
            "damaged": None
            if job.damage is None
            else f"{job.damage}; remove the record: stoke rm {job.id}",
            "environment": _environment_text(job),
            "lock": _lock_text(job),
            "log": f"{counted(lines, 'line')}, {human_bytes(size)}{gaps}: "
            + (removed or f"stoke logs {job.id}")
            + _beyond_budget(job, size),
            "results": _results_text(job),
        }
    )


def _show_usage(job: Job, curve: list[Usage]) -> None:
    """Show the processor load and the memory over time, and their newest or highest figures."""
    drawn = resampled(curve, CURVE_WIDTH)
    most, memory = max(one.cores for one in curve), max(one.memory for one in curve)
    load, used = f"up to {human_load(most)}", f"up to {human_bytes(memory)}"
    if job.state is JobState.RUNNING:
        load = f"{human_load(curve[-1].cores)}, {load}"
        used = f"{human_bytes(curve[-1].memory)}, {used}"
    print_pairs(
        {
            "cpu": f"{sparkline([one.cores for one in drawn], CURVE_WIDTH, max(1, most))}  {load}",
            "memory": f"{sparkline([one.memory for one in drawn], CURVE_WIDTH, memory)}  {used}",
        }
    )


def _beyond_budget(job: Job, size: int) -> str:
    if job.state.finished:
        return ""
    from stoke.config.loader import load_config

    limit = load_config().log.spool_max
    if size <= limit:
        return ""
    return f" (beyond log.spool_max, {human_bytes(limit)}: not counted until the job ends)"


def _results_text(job: Job) -> str | None:
    if job.results_problem is not None:
        return f"not collected: {job.results_problem}; try again: stoke results {job.id}"
    if not job.results_files:
        return None
    from stoke.results.store import results_removed

    removed = results_removed(job.id)
    where = f"removed, {removed}" if removed else f"stoke results {job.id}"
    return f"{results_text(job)}: {where}"


def _environment_text(job: Job) -> str | None:
    """Return the seconds that the environment took, and the prediction."""
    expected = prediction_text(job.predicted)
    took = job.environment_seconds
    parts = [] if took is None else [human_seconds(took)]
    if expected:
        parts.append(f"expected {expected}")
    return ", ".join(parts) or None


def _lock_text(job: Job) -> str | None:
    phase = next((one for one in job.phases if one.name == "lock"), None)
    if phase is None or phase.made_at is None:
        return None
    made = f"resolved {human_time(phase.made_at)} ({time_ago(phase.made_at)})"
    return f"{made}: stoke render lock --job {job.id}"


def _packages_text(job: Job, kind: str, packages: dict[str, bool]) -> str:
    """Return how many packages came from the cache, and which were downloaded."""
    phase = next((one for one in job.phases if one.name == kind), None)
    total = (phase.packages if phase else None) or len(packages)
    cached = phase.cached if phase and phase.cached is not None else sum(packages.values())
    fetched = [name for name, was_cached in packages.items() if not was_cached]
    text = f"{cached} of {counted(total, 'package')} from the cache"
    if fetched:
        more = len(fetched) - MOST_PACKAGES
        names = fetched[:MOST_PACKAGES] + ([f"and {more} more"] if more > 0 else [])
        text += f"; downloaded: {', '.join(names)}"
    return text


def _show_attempts(attempts: list[tuple[Attempt, Job | None]]) -> None:
    rows: list[list[Cell]] = []
    for attempt, job in attempts:
        known: list[Cell] = ["removed", UNKNOWN, UNKNOWN]
        if job is not None:
            code = UNKNOWN if job.exit_code is None else str(job.exit_code)
            known = [state_text(job), code, human_seconds(job.seconds)]
        rows.append([str(attempt.number), attempt.job_id, *known, attempt.why or ""])
    print_table(
        ["ATTEMPT", "JOB", "STATE", "EXIT", "TOOK", "RUN AGAIN BECAUSE"], rows, frozenset({0, 3, 4})
    )


def _show_phases(job: Job) -> None:
    rows: list[list[Cell]] = [
        [
            phase.name,
            human_seconds(phase.seconds)
            if phase.seconds is not None or job.state.finished
            else "going on",
            hit_text(phase),
            UNKNOWN if phase.packages is None else str(phase.packages),
            UNKNOWN if phase.cached is None else str(phase.cached),
            human_bytes(phase.bytes),
        ]
        for phase in job.phases
    ]
    heads = ["PHASE", "TOOK", "CACHE", "PACKAGES", "CACHED", "RECEIVED"]
    print_table(heads, rows, frozenset({1, 3, 4, 5}))


def _show_stored(text: str) -> None:
    try:
        spec = read_stored_fields(text)
        found = rows(spec)
    except RequestError as error:
        return print_pairs({"request": error.why})
    except (TypeError, ValueError, AttributeError, LookupError):
        # A field of another type than any version has written.
        return print_pairs({"request": "cannot be read: its record in the history is damaged"})
    code = _beginning(spec.get("code", ""))
    return print_pairs({**{label: "\n".join(lines) for label, lines in found}, "code": code})


def _beginning(code: str) -> str:
    lines = clean_block(code).splitlines()
    more = len(lines) - MOST_LINES
    if more > 0:
        lines[MOST_LINES:] = [f"... and {counted(more, 'more line')}"]
    return "\n".join(lines)
