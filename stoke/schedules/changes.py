"""Add, pause, resume and remove schedules."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stoke.errors import EngineError, RequestError
from stoke.jobs.prepare import PreparedRequest, prepare
from stoke.schedules.cron import check_timezone, parse_cron
from stoke.schedules.environment import recorded_environment
from stoke.schedules.recorded_request import check_request, record_files
from stoke.schedules.starter import Starter, choose_starter, starter_named
from stoke.schedules.store import (
    Schedule,
    changing,
    check_known,
    check_name,
    delete_schedule,
    load_schedule,
    new_folder,
    save_schedule,
)

if TYPE_CHECKING:
    from stoke.backend.api import Backend
    from stoke.history.database import History
    from stoke.jobs.request import Request
    from stoke.schedules.cron import CronTimes


@dataclass(frozen=True)
class Times:
    """A checked cron expression and its timezone."""

    cron: str
    timezone: str | None
    parsed: CronTimes


@dataclass(frozen=True)
class Added:
    """A new schedule, what starts its runs, and its request."""

    schedule: Schedule
    starter: Starter
    prepared: PreparedRequest


def read_times(cron: str, timezone: str | None) -> Times:
    """Check when a schedule runs. `RequestError` names what is wrong."""
    try:
        parsed = parse_cron(cron)
    except ValueError as error:
        raise RequestError("cron", str(error)) from None
    try:
        checked = None if timezone is None else check_timezone(timezone)
    except ValueError as error:
        raise RequestError("timezone", str(error)) from None
    return Times(" ".join(cron.lower().split()), checked, parsed)


def read_name(name: str) -> str:
    """Check the name of a schedule. `RequestError` says what is wrong."""
    try:
        return check_name(name)
    except ValueError as error:
        raise RequestError("name", str(error)) from None


def add_schedule(
    times: Times,
    request: Request,
    backend: Backend,
    history: History,
    *,
    fresh: bool,
    script: str | None = None,
) -> Added:
    """Store a request and have it run at these times; the request's name is the schedule's.

    With `fresh`, each run takes the project as it is then, or without one the file `script`.

    Raises `RequestError` for what cannot run, and `EngineError`. Nothing is left then.
    """
    if backend.capabilities.pods:
        raise RequestError(
            "backend",
            "schedules run on this machine and on Docker only; a schedule on "
            f"{backend.name} would have to be a CronWorkflow, which stoke does not make yet",
            "choose: -b docker",
        )
    name = request.name
    starter = choose_starter()
    prepared = prepare(request, backend, history)
    check_request(prepared.request.spec, fresh, script)
    schedule = Schedule(
        name=name,
        cron=times.cron,
        timezone=times.timezone,
        starter="systemd" if starter.name == "systemd" else "cron",
        paused=False,
        backend=backend.name,
        fresh=fresh,
        script=script,
        upgrade=request.upgrade,
        program=request.program,
        spec=json.loads(prepared.request.spec.model_dump_json()),
        environment=recorded_environment(),
        added_at=time.time(),
    )
    with changing():
        with new_folder(name) as folder:
            if not fresh:
                record_files(prepared.snapshot, folder)
            save_schedule(schedule, folder)
        try:
            starter.install(name, times.parsed, times.timezone)
        except BaseException:
            with suppress(EngineError):
                starter.uninstall(name)
            delete_schedule(name)
            raise
    return Added(schedule, starter, prepared)


def pause_schedule(name: str) -> bool:
    """Begin no further run. Return whether the schedule was not paused before."""
    with changing():
        schedule = load_schedule(name)
        starter_named(schedule.starter).uninstall(name)
        save_schedule(schedule.model_copy(update={"paused": True}))
    return not schedule.paused


def resume_schedule(name: str) -> Schedule:
    """Have a schedule run again, also one whose line or timer is gone."""
    with changing():
        schedule = load_schedule(name)
        times = read_times(schedule.cron, schedule.timezone)
        starter_named(schedule.starter).install(name, times.parsed, times.timezone)
        schedule = schedule.model_copy(update={"paused": False})
        save_schedule(schedule)
    return schedule


def remove_schedule(name: str) -> None:
    """Remove a schedule, also a damaged one. Its jobs stay."""
    with changing():
        check_known(name)
        try:
            starters = [starter_named(load_schedule(name).starter)]
        except EngineError:
            starters = [starter_named("systemd"), starter_named("cron")]
        for starter in starters:
            starter.uninstall(name)
        delete_schedule(name)
