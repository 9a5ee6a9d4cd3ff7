"""What each run of a schedule takes: the request, and the files of its project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stoke.config.defaults import check_notify, with_defaults
from stoke.delivery.payload import read_reference
from stoke.errors import EngineError, RequestError
from stoke.jobs.request import Request
from stoke.jobs.snapshot_delivery import make_delivery
from stoke.project.manifest import parse_manifest
from stoke.project.pack import read_pack
from stoke.project.snapshot import Snapshot
from stoke.request.sources import read_code, request_from_fields
from stoke.request.spec import JobSpec, make_spec
from stoke.schedules.store import Schedule, files_pack, schedule_folder

if TYPE_CHECKING:
    from stoke.config.model import Config


def check_request(spec: JobSpec, fresh: bool, script: str | None) -> None:
    """Raise `RequestError` for a request that a later run could not submit."""
    if fresh and spec.project is None and script is None:
        raise RequestError(
            "fresh",
            "the request has no file and no project that could change",
            "leave it out, or name a file: stoke schedule add --cron @daily --fresh FILE",
        )
    references = [(f"secrets.{name}", one) for name, one in spec.secrets.items()]
    for field, reference in [*references, ("index.credentials", spec.index.credentials)]:
        kind, _, where = (reference or "").partition(":")
        if kind == "env":
            raise RequestError(
                field,
                f"a schedule's runs do not have the variable {where[:80]}",
                "put the value into a file that only you can read, and name it: file:/path",
            )
        if kind == "file":
            read_reference(reference or "", field)


def record_files(snapshot: Snapshot | None, folder: Path) -> None:
    """Store all contents of a snapshot in the folder of a schedule. Raises as `make_delivery` does."""
    if snapshot is not None:
        make_delivery(snapshot, frozenset(), files_pack(folder))


def request_of(schedule: Schedule, config: Config) -> tuple[Request, Snapshot | None]:
    """Return the request of a run, and the recorded snapshot of its project, if it takes that.

    Raises `RequestError` for a project that is wrong by now, `EngineError` for damaged files.
    """
    spec = make_spec(schedule.spec)
    choices: dict[str, Any] = {
        "name": schedule.name,
        "program": schedule.program,
        "upgrade": schedule.upgrade,
        "schedule": schedule.name,
    }
    snapshot = None
    if schedule.fresh and spec.project is None:
        code = read_code(schedule.script or "")
        spec = with_defaults(request_from_fields({**schedule.spec, "code": code}), config)
    elif schedule.fresh:
        from stoke.project.fresh_request import fresh_request

        spec, project = fresh_request(spec)
        spec = with_defaults(spec, config, project.settings)
        choices |= {"notes": project.notes, "project_files": project.extra_files}
    elif spec.project is not None:
        snapshot = _recorded_snapshot(schedule.name, spec)
    check_notify(spec, config)
    return Request.configured(spec, config, **choices), snapshot


def _recorded_snapshot(name: str, spec: JobSpec) -> Snapshot:
    project = spec.project
    assert project is not None
    try:
        with files_pack(schedule_folder(name)).open("rb") as file:
            contents = dict(read_pack(file))
        manifest = parse_manifest(contents[project.digest or ""])
    except (OSError, ValueError, LookupError, RecursionError) as error:
        raise EngineError(
            f"the files recorded for the schedule {name} cannot be read: {error}",
            f"remove it, and add it again: stoke schedule remove {name}",
        ) from None
    return Snapshot(project.root, manifest, {}, contents)
