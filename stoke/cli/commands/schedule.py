"""`stoke schedule`: run requests regularly."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from stoke.cli.completion import complete_schedule
from stoke.cli.job_lookup import find_engine_runs
from stoke.cli.option_errors import FILLED
from stoke.cli.options import (
    BACKEND,
    CODE,
    PROJECT,
    QUIET,
    UPGRADE,
    CodeCommand,
    apply,
    once,
    request_from,
    request_options,
)
from stoke.cli.output import Cell, human_time, print_json, print_notice, print_table, time_ago
from stoke.errors import EngineError, StokeError
from stoke.text.times import rfc3339

if TYPE_CHECKING:
    from stoke.history.database import History
    from stoke.jobs.prepare import PreparedRequest
    from stoke.schedules.store import LastRun, Schedule

LIST_SECONDS = 10.0
"""How long a listing waits for the runs that engines have begun."""
HEADS = ["SCHEDULE", "STATE", "CRON", "BACKEND", "NEXT RUN", "LAST RUN"]
NAME = click.argument("name", metavar="NAME", shell_complete=complete_schedule)


class _Group(click.Group):
    """Takes the names that the commands for jobs and caches have, too."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, {"ls": "list", "rm": "remove"}.get(cmd_name, cmd_name))


@click.group(cls=_Group)
def command() -> None:
    """Run requests regularly, at the times of cron expressions.

    A timer of systemd's user instance starts the runs or, where that does not answer, a line in your
    crontab; on a cluster, Argo does. Each run is an ordinary job with the name of the schedule.

    \b
    stoke schedule add --cron '0 3 * * *' train.py
    stoke schedule add --cron '*/15 9-17 * * mon-fri' --name mail -b docker report.py --send
    stoke schedule list
    stoke schedule pause train
    """


@command.command("add", cls=CodeCommand)
@click.option(
    "--cron", metavar="TIMES", type=FILLED, multiple=True, callback=once, required=True,
    help="When to run: minute, hour, day of month, month and day of week, as in a crontab; or @hourly, "
    "@daily, @weekly, @monthly, @yearly.",
)  # fmt: skip
@click.option(
    "--timezone", metavar="ZONE", type=FILLED,
    help="Timezone of these times, such as Europe/Berlin (default: this machine's). On this machine it "
    "needs systemd.",
)  # fmt: skip
@click.option(
    "--name", metavar="NAME", type=FILLED,
    help="Name of the schedule and of its jobs (default: from FILE).",
)  # fmt: skip
@click.option(
    "--fresh", is_flag=True,
    help="Take the code and the project at each run as they are then, not as they are now.",
)  # fmt: skip
@apply(CODE, PROJECT, BACKEND, request_options(changes_json=True), (UPGRADE,))
def add(
    cron: str,
    timezone: str | None,
    name: str | None,
    fresh: bool,
    backend: str | None,
    **options: Any,
) -> None:
    """Run a request regularly. Takes the options of stoke run, before FILE.

    Each run takes the code and the files of the project as they are now, whatever is changed later,
    as stoke rerun does. With --fresh, which no cluster has, it takes them as they are at that time.

    A run is skipped while the job of an earlier one has not ended.

    \b
    stoke schedule add --cron '0 3 * * *' train.py
    stoke schedule add --cron @hourly --name poll -w httpx -c 'import poll; poll.main()'
    stoke schedule add --cron '30 6 * * mon' --fresh -b docker report.py --week
    """
    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config
    from stoke.history.database import History
    from stoke.schedules.changes import add_schedule, read_name, read_times
    from stoke.schedules.environment import left_out
    from stoke.schedules.store import name_for

    times = read_times(cron, timezone)
    given = None if name is None else read_name(name)
    config = load_config()
    request = request_from(config, name=given, **options)
    request = replace(request, name=given or name_for(request.name))
    with closing(Backends(config)) as backends, History() as history:
        chosen = backends.get(backend or config.backend)
        added = add_schedule(
            times,
            request,
            chosen,
            history,
            fresh=fresh,
            script=_script(options) if fresh else None,
        )
    for note in _notes(added.prepared):
        print_notice(note)
    click.echo(added.schedule.name)
    print_notice(f"next run: {_next_text(added.schedule)}, started by {added.schedule.started_by}")
    when = "at that time" if fresh else "now; with --fresh, as they are at that time"
    if added.schedule.starter == "engine":
        print_notice("each run takes the code and its files as they are now")
    else:
        print_notice(f"each run takes the code and its files as they are {when}")
        for variable in left_out():
            print_notice(f"{variable} is not recorded for the runs: its name looks like a secret's")
    if added.note is not None:
        print_notice(added.note)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_schedules(as_json: bool) -> None:
    """List the schedules with their next run, and how the last one went.

    A schedule is missing if its timer, its line in the crontab or its CronWorkflow is gone: stoke
    schedule resume makes it again.

    \b
    stoke schedule list --json
    """
    from stoke.history.database import History
    from stoke.schedules.store import load_schedule, schedule_names

    documents = []
    installed: dict[str, set[str]] = {}
    with History() as history:
        find_engine_runs(history, LIST_SECONDS)
        for name in schedule_names():
            try:
                schedule = load_schedule(name)
            except EngineError as error:
                print_notice(f"{error.what}; {error.hint}")
                continue
            if schedule.starter == "engine":
                documents.append(_engine_document(schedule, history))
                continue
            if schedule.starter not in installed:
                installed[schedule.starter] = _installed(schedule.starter)
            state = "active" if name in installed[schedule.starter] else "missing"
            documents.append(
                _local_document(schedule, "paused" if schedule.paused else state, history)
            )
    if as_json:
        print_json(documents)
        return
    if not documents:
        print_notice("no schedules; add one: stoke schedule add --cron '0 3 * * *' FILE")
        return
    print_table(HEADS, [_cells(one) for one in documents])


@command.command()
@NAME
def pause(name: str) -> None:
    """Begin no run until `stoke schedule resume`. Jobs that run continue.

    \b
    stoke schedule pause nightly
    """
    from stoke.schedules.changes import pause_schedule

    done = pause_schedule(name)
    print_notice(f"paused {name}" if done else f"{name} is paused already")


@command.command()
@NAME
def resume(name: str) -> None:
    """Begin runs again, at the next time. Runs that were missed are not made up for, except on a
    cluster one that is less than two minutes late.

    \b
    stoke schedule resume nightly
    """
    from stoke.schedules.changes import resume_schedule

    schedule = resume_schedule(name)
    print_notice(f"resumed {name}; next run: {_next_text(schedule)}")


@command.command()
@NAME
def remove(name: str) -> None:
    """Remove a schedule. Its jobs stay in the history, and those that run continue.

    \b
    stoke schedule remove nightly
    """
    from stoke.schedules.changes import remove_schedule

    remove_schedule(name)
    print_notice(f"removed {name}")


@command.command()
@NAME
@QUIET
def run(name: str, quiet: bool) -> None:
    """Begin a run now, and print the id of its job. The timer and cron use this command.

    Begins none while the job of an earlier run has not ended.

    \b
    stoke schedule run nightly
    """
    from stoke.config.loader import load_config
    from stoke.schedules.environment import use_environment
    from stoke.schedules.run import run_schedule
    from stoke.schedules.store import load_schedule

    schedule = load_schedule(name)
    if schedule.starter == "engine":
        from stoke.schedules import engine

        begun = engine.begin_run(schedule)
    else:
        use_environment(schedule.environment)
        begun = run_schedule(name, load_config())
    if quiet:
        return
    if begun.skipped:
        print_notice(f"skipped: {begun.why}")
    else:
        click.echo(begun.job)


# ---------------------------------------------------------------------------- helpers


def _script(options: dict[str, Any]) -> str | None:
    """Return the absolute path of FILE; None if the request runs no file."""
    words: tuple[str, ...] = options["words"]
    if any(options[name] is not None for name in ("code", "module", "exec")):
        return None
    return os.path.abspath(words[0]) if os.path.isfile(words[0]) else None


def _notes(prepared: PreparedRequest) -> list[str]:
    """Return what the user should know about the request."""
    notes = [*prepared.request.notes, prepared.note, prepared.workspace_note]
    if prepared.snapshot is not None:
        notes += [f"{text}; {hint}" for text, hint in prepared.snapshot.notes]
    return [note for note in notes if note is not None]


def _installed(starter: str) -> set[str]:
    """Return the schedules that a starter runs; none, with a notice, if it does not answer."""
    from stoke.schedules.starter import starter_named

    try:
        return starter_named(starter).installed()
    except StokeError as error:
        print_notice(error.what)
        return set()


def _local_document(schedule: Schedule, state: str, history: History) -> dict[str, Any]:
    from stoke.cli.job_lookup import fresh
    from stoke.schedules.store import load_last_run

    run = load_last_run(schedule.name)
    job = None if run is None or run.job is None else history.get(run.job)
    if job is not None:
        job = next(iter(fresh([job], history)), None)
    return _document(schedule, state, run, None if job is None else str(job.state))


def _engine_document(schedule: Schedule, history: History) -> dict[str, Any]:
    """Return the document of a schedule with the state that its engine has of it."""
    from stoke.cli.job_lookup import fresh
    from stoke.schedules import engine

    state, problem = "missing", None
    try:
        there = engine.state_of(schedule)
    except StokeError as error:
        print_notice(f"the state of {schedule.name} is unknown: {error.what}")
        state = "unknown"
    else:
        if there is not None:
            state, problem = "paused" if there.paused else "active", there.problem
    run, job = engine.last_run(schedule, history)
    if job is not None:
        job = next(iter(fresh([job], history)), None)
    return _document(schedule, state, run, None if job is None else str(job.state), problem)


def _next(schedule: Schedule) -> float | None:
    from stoke.schedules.cron import next_run, parse_cron

    return next_run(parse_cron(schedule.cron), schedule.timezone, datetime.now(UTC))


def _next_text(schedule: Schedule) -> str:
    return human_time(_next(schedule))


def _document(
    schedule: Schedule,
    state: str,
    run: LastRun | None,
    job_state: str | None,
    problem: str | None = None,
) -> dict[str, Any]:
    last = None
    if run is not None:
        result = "skipped" if run.skipped else "failed" if run.why is not None else "begun"
        last = {
            "at": rfc3339(run.at),
            "result": result,
            "job": run.job,
            "job_state": job_state,
            "why": run.why,
        }
    return {
        "name": schedule.name,
        "state": state,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "backend": schedule.backend,
        "started_by": schedule.started_by,
        "fresh": schedule.fresh,
        "added_at": rfc3339(schedule.added_at),
        "next_run": rfc3339(_next(schedule)) if state == "active" else None,
        "last_run": last,
        "problem": problem,
    }


def _cells(document: dict[str, Any]) -> list[Cell]:
    last = document["last_run"]
    zone = document["timezone"]
    colour = {"active": "green", "paused": "yellow"}.get(document["state"], "red")
    return [
        document["name"],
        (document["state"], colour),
        document["cron"] + (f" {zone}" if zone else ""),
        document["backend"],
        _local(document["next_run"]),
        _last_cell(last, document["problem"]),
    ]


def _last_cell(last: dict[str, Any] | None, problem: str | None) -> Cell:
    if problem is not None:
        return f"no run can begin: {problem}", "red"
    return "none yet" if last is None else _last_text(last)


def _local(time: str | None) -> str:
    return "-" if time is None else human_time(datetime.fromisoformat(time).timestamp())


def _last_text(last: dict[str, Any]) -> str:
    ago = time_ago(datetime.fromisoformat(last["at"]).timestamp())
    if last["result"] != "begun":
        return f"{ago}: {last['result']}: {last['why']}"
    return f"{ago}: {last['job']} ({last['job_state'] or 'removed'})"
