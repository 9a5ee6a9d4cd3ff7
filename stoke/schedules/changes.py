"""Add, pause, resume and remove schedules."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stoke.backend.capabilities import RunsSchedules
from stoke.errors import EngineError, RequestError
from stoke.history.job import new_job_id
from stoke.jobs.prepare import PreparedRequest, prepare
from stoke.schedules import engine
from stoke.schedules.cron import check_timezone, parse_cron
from stoke.schedules.environment import recorded_environment
from stoke.schedules.recorded_request import check_request, record_files
from stoke.schedules.starter import choose_starter, starter_named
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
    """A new schedule, its request, and why its runs may not start."""

    schedule: Schedule
    prepared: PreparedRequest
    note: str | None = None


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
    if isinstance(backend, RunsSchedules):
        return _add_to_engine(times, request, backend, history, fresh)
    name = request.name
    starter = choose_starter()
    prepared = prepare(request, backend, history)
    check_request(prepared.request.spec, fresh, script)
    schedule = _schedule(
        times, prepared, "systemd" if starter.name == "systemd" else "cron"
    ).model_copy(update={"fresh": fresh, "script": script, "environment": recorded_environment()})
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
    return Added(schedule, prepared, starter.note())


def _add_to_engine(
    times: Times, request: Request, backend: Backend, history: History, fresh: bool
) -> Added:
    """Add a schedule whose runs its engine begins."""
    assert isinstance(backend, RunsSchedules)
    engine.check_engine_request(request.spec, backend, fresh)
    plan = engine.plan_of(times.parsed, times.timezone)
    prepared = prepare(request, backend, history)
    check_request(prepared.request.spec, fresh, None)
    schedule = _schedule(times, prepared, "engine").model_copy(
        update={"timezone": plan.timezone, "engine_id": new_job_id(request.name)}
    )
    with changing():
        with new_folder(schedule.name) as folder:
            record_files(prepared.snapshot, folder)
            save_schedule(schedule, folder)
        try:
            engine.install(schedule, prepared, history)
        except BaseException:
            engine.forget(schedule.engine_id or "", history)
            delete_schedule(schedule.name)
            raise
    return Added(schedule, prepared)


def _schedule(
    times: Times, prepared: PreparedRequest, starter: Literal["systemd", "cron", "engine"]
) -> Schedule:
    request = prepared.request
    return Schedule(
        name=request.name,
        cron=times.cron,
        timezone=times.timezone,
        starter=starter,
        paused=False,
        backend=prepared.backend.name,
        fresh=False,
        script=None,
        upgrade=request.upgrade,
        program=request.program,
        spec=json.loads(request.spec.model_dump_json()),
        environment={},
        added_at=time.time(),
    )


def pause_schedule(name: str) -> bool:
    """Begin no further run. Return whether the schedule was not paused before."""
    with changing():
        schedule = load_schedule(name)
        if schedule.starter == "engine":
            engine.pause(schedule)
        else:
            starter_named(schedule.starter).uninstall(name)
        save_schedule(schedule.model_copy(update={"paused": True}))
    return not schedule.paused


def resume_schedule(name: str) -> Schedule:
    """Have a schedule run again, also one whose line or timer is gone."""
    with changing():
        schedule = load_schedule(name)
        times = read_times(schedule.cron, schedule.timezone)
        if schedule.starter == "engine":
            engine.resume(schedule)
        else:
            starter_named(schedule.starter).install(name, times.parsed, times.timezone)
        schedule = schedule.model_copy(update={"paused": False})
        save_schedule(schedule)
    return schedule


def remove_schedule(name: str) -> None:
    """Remove a schedule, also a damaged one. Its jobs stay."""
    with changing():
        check_known(name)
        try:
            starter = load_schedule(name).starter
            starters = [] if starter == "engine" else [starter_named(starter)]
        except EngineError:
            starters = [starter_named("systemd"), starter_named("cron")]
        engine.remove(name)
        for one in starters:
            one.uninstall(name)
        delete_schedule(name)
