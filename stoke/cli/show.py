"""`stoke show`: everything that is known about one job."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from stoke.cli.finding import find_job, fresh, open_history
from stoke.cli.narration import hit_text, prediction_text
from stoke.cli.options import JOB, apply
from stoke.cli.output import (
    UNKNOWN,
    Cell,
    hidden_values,
    human_age,
    human_bytes,
    human_seconds,
    human_time,
    job_document,
    log_size,
    paint,
    print_json,
    print_table,
    removed_log,
    state_colour,
    state_text,
)
from stoke.job import Job
from stoke.logs.sanitise import MASK, clean, clean_block

MOST_LINES = 40
"""How much of the code is shown; `--json` has all of it."""


@click.command()
@apply(JOB)
@click.option("--json", "as_json", is_flag=True, help="As one JSON document.")
def command(job: str, as_json: bool) -> None:
    """Show everything that is known about a job.

    JOB is its id or the beginning of it. Secrets are shown by where they stand, and variables that
    look like secrets by their name only.

    \b
    stoke show train-7k2pqa
    stoke show train --json | jq .phases
    """
    with open_history() as history:
        found = find_job(history, job)
        found = next(iter(fresh([found], history)), found)
        if as_json:
            print_json(job_document(found, history))
            return
        spec = history.spec(found.id)
    _show_job(found)
    if found.phases:
        click.echo()
        _show_phases(found)
    if spec is not None:
        click.echo()
        _show_spec(hidden_values(json.loads(spec)))
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
    _pairs(
        {
            "name": job.name,
            "backend": f"{job.backend}, scope {job.scope}",
            "submitted": f"{human_time(job.submitted_at)} ({human_age(job.submitted_at)})",
            "code began": human_time(job.started_at) if job.started_at else None,
            "took": ", ".join([human_seconds(job.seconds), *used]),
            "why": job.reason,
            "environment": _against(job),
            "log": f"{lines} lines, {human_bytes(size)}{gaps}: "
            + (removed or f"stoke logs {job.id}"),
        }
    )


def _against(job: Job) -> str | None:
    """What was expected of the caches, and what it took."""
    expected = prediction_text(job.predicted)
    took = job.environment_seconds
    parts = [] if took is None else [human_seconds(took)]
    if expected:
        parts.append(f"expected {expected}")
    return ", ".join(parts) or None


def _show_phases(job: Job) -> None:
    rows: list[list[Cell]] = [
        [
            phase.name,
            "going on" if phase.seconds is None else human_seconds(phase.seconds),
            hit_text(phase),
            UNKNOWN if phase.packages is None else str(phase.packages),
            UNKNOWN if phase.cached is None else str(phase.cached),
            human_bytes(phase.bytes),
        ]
        for phase in job.phases
    ]
    heads = ["PHASE", "TOOK", "CACHE", "PACKAGES", "CACHED", "RECEIVED"]
    print_table(heads, rows, frozenset({1, 3, 4, 5}))


def _show_spec(spec: dict[str, Any]) -> None:
    index = spec.get("index") or {}
    _pairs(
        {
            "python": spec.get("python"),
            "packages": "\n".join(spec.get("dependencies") or ()),
            "requirements": spec.get("requirements"),
            "system": " ".join(spec.get("system") or ()),
            "arguments": "\n".join(spec.get("args") or ()),
            "env": "\n".join(f"{name}={value}" for name, value in spec["env"].items()),
            "secrets": "\n".join(
                f"{name}={MASK} ({where})" for name, where in spec.get("secrets", {}).items()
            ),
            "index": "\n".join(filter(None, [index.get("url"), *(index.get("extra") or ())])),
            "image": spec.get("image"),
            "timeout": human_seconds(spec["timeout"]) if spec.get("timeout") else None,
            "cpu": None if spec.get("cpu") is None else f"{spec['cpu']:g}",
            "memory": human_bytes(spec["memory"]) if spec.get("memory") else None,
            "cache": None if spec.get("use_cache", True) else "not used",
            "code": _beginning(spec["code"]),
        }
    )


def _beginning(code: str) -> str:
    lines = clean_block(code).splitlines()
    more = len(lines) - MOST_LINES
    return "\n".join(lines[:MOST_LINES] + ([f"... and {more} more lines"] if more > 0 else []))


def _pairs(facts: dict[str, str | None]) -> None:
    """`name  value`, values of several lines below one another; what is empty is left out."""
    for name, value in facts.items():
        if not value:
            continue
        lines = clean_block(value).strip("\n").split("\n")
        click.echo(f"{name:<12}  {lines[0]}")
        for line in lines[1:]:
            click.echo(f"{'':<12}  {line}")
