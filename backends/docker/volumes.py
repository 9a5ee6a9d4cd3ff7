"""The cache volumes: made with our labels, found, measured and emptied by them.

A volume that has the name of one of ours and not its labels is somebody else's: it is neither
mounted nor removed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backends.docker.engine import AnswerError, Engine
from backends.docker.names import (
    JOB,
    KIND,
    MANAGED,
    SCOPE,
    has_labels,
    volume_labels,
    volume_name,
)
from stoke.backend import Volume
from stoke.errors import EngineError

# For how long measuring waits for somebody else's: the engine does one at a time.
BUSY_SECONDS = 60.0


class Volumes:
    """The cache volumes of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ensure(self, scope: str, kind: str) -> None:
        """Makes the volume unless it is there. One request, safe against others that do the same:
        the engine answers with the volume that has the name, whoever made it."""
        name = volume_name(scope, kind)
        with self._engine.call(f"make the volume {name}") as api:
            labels = volume_labels(scope, kind)
            made = api.create_volume(name, driver="local", labels=labels)
            if not _is_ours(made):
                raise _foreign(name)

    def found(self) -> list[Volume]:
        with self._engine.call("list the cache volumes") as api:
            listed = api.volumes(filters={"label": [f"{MANAGED}=true"]})["Volumes"] or []
            volumes = [_volume(one) for one in listed if _is_ours(one)]
            return [
                replace(volume, in_use_by=tuple(_holders(api, volume.name)[0]))
                for volume in sorted(volumes, key=lambda one: (one.scope, one.kind))
            ]

    def measure(self, volume: Volume) -> Volume:
        with self._engine.call(f"measure {volume.name}") as api:
            return replace(
                volume,
                bytes=_size(api, volume.name),
                measured_at=time.time(),
                in_use_by=tuple(_holders(api, volume.name)[0]),
            )

    def clear(self, volume: Volume, progress: Callable[[str], None]) -> int:
        """Removes the volume and makes it again: the engine itself refuses while any container, of
        whatever state, refers to it, so no job can lose its environment under its feet."""
        name = volume.name
        with self._engine.call(f"clear {name}") as api:
            try:
                there = api.inspect_volume(name)
            except Exception as error:
                if getattr(error, "status_code", None) == 404:
                    return 0
                raise
            if not _is_ours(there):
                raise _foreign(name)
            _refuse_if_held(api, name)
            progress(f"measuring {name}")
            freed = _size(api, name)
            progress(f"removing {name}")
            try:
                with self._engine.call(f"clear {name}"):
                    api.remove_volume(name)
            except AnswerError as error:
                if error.status == 409:
                    # Between our look and the engine's somebody came.
                    _refuse_if_held(api, name)
                    raise EngineError(
                        f"{name} is in use by a container that is not a job of stoke's",
                        f"see which one: docker ps -a --filter volume={name}",
                    ) from error
                raise
        self.ensure(volume.scope, volume.kind)
        progress(f"{name} is empty")
        return freed or 0


def _volume(record: dict[str, Any]) -> Volume:
    labels = record["Labels"]
    return Volume("docker", labels[SCOPE], labels[KIND], record["Name"])


def _is_ours(record: dict[str, Any]) -> bool:
    """By its labels, and by its name: it has to be the one that they say."""
    labels = record.get("Labels") or {}
    scope, kind = labels.get(SCOPE, ""), labels.get(KIND, "")
    mine = has_labels(record, {MANAGED: "true"}) and kind in ("python", "system")
    return mine and bool(record["Name"] == volume_name(scope, kind))


def _foreign(name: str) -> EngineError:
    return EngineError(
        f"the volume {name} was not made by stoke and is left alone",
        "choose another scope: --scope NAME; or, if it is yours to remove: docker volume rm "
        + name,
    )


def _holders(api: Any, name: str) -> tuple[list[str], list[str]]:
    """Our jobs that refer to the volume: those that run or are about to, and those that ended."""
    filters = {"volume": [name], "label": [f"{MANAGED}=true", f"{KIND}=job"]}
    unfinished: list[str] = []
    finished: list[str] = []
    for container in api.containers(all=True, filters=filters):
        # The engine's filter takes a part of a name for the name.
        if all(mount.get("Name") != name for mount in container["Mounts"]):
            continue
        over = container["State"] in ("exited", "dead", "removing")
        (finished if over else unfinished).append(container["Labels"][JOB])
    return sorted(unfinished), sorted(finished)


def _refuse_if_held(api: Any, name: str) -> None:
    unfinished, finished = _holders(api, name)
    if unfinished:
        raise EngineError(
            f"{name} is in use by {', '.join(unfinished)}",
            f"wait for them, or stop them: stoke stop {unfinished[0]}",
        )
    if finished:
        raise EngineError(
            f"{name} is still held by jobs that ended, whose logs may not have been fetched yet: "
            f"{', '.join(finished)}",
            f"fetch them: stoke jobs; or remove them: stoke rm {finished[0]}",
        )


def _size(api: Any, name: str) -> int | None:
    """Bytes on disk, a hard-linked file counted once; None where the engine does not know."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        # Engines from 23.0 on leave out images and containers, which take longer; older ones ignore it.
        answer = api._get(api._url("/system/df"), params={"type": "volume"})
        busy = answer.status_code >= 500 and "already running" in answer.text
        if not busy or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    api._raise_for_status(answer)
    for record in json.loads(answer.content).get("Volumes") or []:
        if record["Name"] == name:
            size = (record.get("UsageData") or {}).get("Size", -1)
            return int(size) if size >= 0 else None
    return None
