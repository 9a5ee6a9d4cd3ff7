"""Schedules whose runs their engine begins, while no program of ours runs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from stoke.backend.api import Delivery
from stoke.backend.capabilities import EngineSchedule, RunsSchedules, SchedulePlan
from stoke.backend.pool import Backends
from stoke.config.loader import load_config
from stoke.delivery.checkpoints import checkpoint_name
from stoke.delivery.payload import runner_source
from stoke.errors import EngineError, RequestError
from stoke.files.paths import job_dir
from stoke.history.database import History
from stoke.history.engine_schedules import EngineSchedules, RunRecord
from stoke.jobs.engine_runs import find_runs, take_run
from stoke.jobs.prepare import PreparedRequest, prepare
from stoke.jobs.refresh import refresh
from stoke.jobs.submit import network_for
from stoke.project.manifest_store import release_manifest, save_manifest
from stoke.project.pack import ProjectDelivery
from stoke.remote.common.trees import remove_tree
from stoke.schedules.cron import CronTimes, parse_cron
from stoke.schedules.local_timezone import local_timezone
from stoke.schedules.recorded_request import request_of
from stoke.schedules.store import LastRun, Schedule, files_pack, schedule_folder

if TYPE_CHECKING:
    from stoke.history.job import Job
    from stoke.request.spec import JobSpec

ASK_SECONDS = 10.0
"""How long a command about schedules waits for the engines of their runs."""


def check_engine_request(spec: JobSpec, engine: RunsSchedules, fresh: bool) -> None:
    """Raise `RequestError` for a request that an engine cannot run on its own."""
    if fresh:
        raise RequestError(
            "fresh",
            "the cluster begins the runs, and it does not see the files of this machine",
            "leave it out: each run takes the files as they are now",
        )
    if spec.retries:
        raise RequestError(
            "retries",
            "the cluster begins the runs, and no program of stoke runs there that could begin another "
            "attempt",
            "leave it out",
        )
    engine.check_schedule(spec)


def plan_of(times: CronTimes, timezone: str | None) -> SchedulePlan:
    """Return the times of a schedule for an engine, in this machine's timezone unless one is named.

    Raises `RequestError` for times that an engine would understand otherwise.
    """
    line = times.unambiguous_line()
    if line is None:
        raise RequestError(
            "cron",
            "day of month and day of week both have to match here, which a cluster does not know: for "
            "it one of them is enough",
            "write one of the two fields as *, or give days of the month in numbers",
        )
    return SchedulePlan(line, timezone or local_timezone())


def install(schedule: Schedule, prepared: PreparedRequest, history: History) -> None:
    """Have the engine begin runs of a stored schedule from now on. It has nothing after an error."""
    backend, spec = prepared.backend, prepared.request.spec
    schedule_id = schedule.engine_id
    assert schedule_id is not None and isinstance(backend, RunsSchedules)
    known = EngineSchedules(history).get(schedule_id)
    nonce = secrets.token_hex(8) if known is None else known.nonce
    checkpoint = checkpoint_name(schedule.name, schedule_id, prepared.request.checkpoint)
    keys = prepared.keys
    payload = prepared.request.payload(
        spec, keys, nonce, network_for(spec, backend), checkpoint=checkpoint
    )
    public_spec = spec.model_dump_json()
    project = None
    if prepared.snapshot is not None:
        if known is None:
            save_manifest(prepared.snapshot.manifest, prepared.snapshot.virtual, schedule_id)
        pack = files_pack(schedule_folder(schedule.name))
        project = ProjectDelivery(prepared.snapshot.manifest.digest, pack)
    delivery = Delivery(
        schedule_id,
        spec,
        runner_source(spec),
        nonce,
        payload,
        public_spec.encode(),
        keys.request,
        renews=True,
        project=project,
    )
    record = RunRecord(
        schedule_id, schedule.name, backend.name, spec.scope, spec.image, keys.request, keys.python,
        keys.system, checkpoint, public_spec, nonce,
    )  # fmt: skip
    # First the record: a run that begins at once has to find it.
    EngineSchedules(history).put(record)
    for kind, names in keys.packages.items():
        history.add_asked(keys.request, kind, names)
    backend.create_schedule(delivery, plan_of(parse_cron(schedule.cron), schedule.timezone))


def forget(schedule_id: str, history: History) -> None:
    """Remove what this machine has of a schedule besides its folder. Its jobs stay."""
    EngineSchedules(history).remove(schedule_id)
    release_manifest(schedule_id)
    remove_tree(str(job_dir(schedule_id)))


def pause(schedule: Schedule) -> None:
    """Begin no further run; an engine that no longer has the schedule begins none anyway."""
    with _engine(schedule) as (engine, schedule_id, _):
        engine.pause_schedule(schedule_id, True)


def resume(schedule: Schedule) -> None:
    """Begin runs again, and make a schedule that is gone from its engine again."""
    with _engine(schedule) as (engine, schedule_id, backends):
        if engine.schedule(schedule_id) is not None and engine.pause_schedule(schedule_id, False):
            return
        with History() as history:
            request, snapshot = request_of(schedule, backends.config)
            backend = backends.get(schedule.backend)
            install(schedule, prepare(request, backend, history, snapshot), history)


def remove(name: str) -> None:
    """Remove a schedule from its engine, if an engine has it. Its runs become jobs of the history
    before."""
    with History() as history:
        records = EngineSchedules(history).named(name)
        if not records:
            return
        with closing(Backends(load_config())) as backends:
            if problems := find_runs(history, backends, ASK_SECONDS):
                raise EngineError(problems[0])
            for record in records:
                engine = backends.get(record.backend)
                if isinstance(engine, RunsSchedules):
                    engine.remove_schedule(record.id)
            find_runs(history, backends, ASK_SECONDS)  # One may have begun meanwhile.
        for record in records:
            forget(record.id, history)


def begin_run(schedule: Schedule) -> LastRun:
    """Begin a run now, unless an earlier one has not ended."""
    with _engine(schedule) as (engine, schedule_id, backends), History() as history:
        if engine.schedule(schedule_id) is None:
            raise EngineError(
                f"the cluster no longer has {schedule_id}, which begins the runs of {schedule.name}",
                f"make it again: stoke schedule resume {schedule.name}",
            )
        find_runs(history, backends, ASK_SECONDS)
        earlier = EngineSchedules(history).newest_run(schedule_id)
        if earlier is not None and not earlier.state.finished:
            earlier = next(iter(refresh([earlier], backends, history, ASK_SECONDS)), None)
        if earlier is not None and not earlier.state.finished:
            why = f"{earlier.id} of an earlier run has not ended ({earlier.state})"
            return LastRun(at=earlier.submitted_at, skipped=True, why=why)
        found = engine.begin_run(schedule_id)
        job = take_run(found, history)
        return LastRun(at=found.submitted_at, job=None if job is None else job.id)


def state_of(schedule: Schedule) -> EngineSchedule | None:
    """Return the state of a schedule at its engine; None if that does not have it."""
    with _engine(schedule) as (engine, schedule_id, _):
        return engine.schedule(schedule_id)


def last_run(schedule: Schedule, history: History) -> tuple[LastRun | None, Job | None]:
    """Return how the newest run began that the history has, and its job."""
    job = EngineSchedules(history).newest_run(schedule.engine_id or "")
    return (None, None) if job is None else (LastRun(at=job.submitted_at, job=job.id), job)


@contextmanager
def _engine(schedule: Schedule) -> Iterator[tuple[RunsSchedules, str, Backends]]:
    with closing(Backends(load_config())) as backends:
        engine = backends.get(schedule.backend)
        if not isinstance(engine, RunsSchedules) or schedule.engine_id is None:
            raise EngineError(
                f"the schedule {schedule.name} is damaged",
                f"remove it, and add it again: stoke schedule remove {schedule.name}",
            )
        yield engine, schedule.engine_id, backends
