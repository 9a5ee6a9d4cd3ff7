"""The cache volumes: made with our labels, and found by them.

A volume that has the name of one of ours and not its labels is somebody else's: it is neither
mounted nor touched.
"""

from __future__ import annotations

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
from stoke.backend.api import Volume
from stoke.errors import EngineError


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
                replace(volume, in_use_by=tuple(_holders(api, volume.name)))
                for volume in sorted(volumes, key=lambda one: (one.scope, one.kind))
            ]

    def remove(self, scope: str) -> None:
        """Removes a scope's volumes; the engine refuses while a container refers to one."""
        for volume in self.found():
            if volume.scope != scope:
                continue
            try:
                with self._engine.call(f"remove the volume {volume.name}") as api:
                    api.remove_volume(volume.name)
            except AnswerError as error:
                if error.status != 404:  # gone
                    raise

    def check_is_ours(self, name: str) -> None:
        """`EngineError` unless the volume is there and was made by us."""
        with self._engine.call(f"look at the volume {name}") as api:
            if not _is_ours(api.inspect_volume(name)):
                raise _foreign(name)

    def refuse_strangers(self, name: str) -> None:
        """Our own jobs hold locks on the volume; of others only the engine knows that they use it."""
        with self._engine.call(f"look who uses {name}") as api:
            containers = api.containers(filters={"volume": [name]})
        for container in containers:
            ours = has_labels(container, {MANAGED: "true"})
            if not ours and any(mount.get("Name") == name for mount in container["Mounts"]):
                raise EngineError(
                    f"{name} is in use by a container that is not a job of stoke's",
                    f"see which one: docker ps --filter volume={name}",
                )


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


def _holders(api: Any, name: str) -> list[str]:
    """Our jobs that refer to the volume and run, or are about to."""
    filters = {"volume": [name], "label": [f"{MANAGED}=true", f"{KIND}=job"]}
    return sorted(
        container["Labels"][JOB]
        for container in api.containers(all=True, filters=filters)
        # The engine's filter takes a part of a name for the name.
        if any(mount.get("Name") == name for mount in container["Mounts"])
        and container["State"] not in ("exited", "stopped", "dead", "removing")
    )
