"""The cache volumes: created with our labels, and found by them.

A volume that has the name of one of ours but not its labels is foreign: it is neither mounted nor
changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from backends.common.names import JOB, KIND, MANAGED, SCOPE
from backends.docker.engine import AnswerError, Engine
from backends.docker.names import has_labels, volume_labels, volume_name
from stoke.backend.api import CACHE_KINDS, Volume
from stoke.errors import EngineError


class DockerVolumes:
    """The cache volumes of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ensure(self, scope: str, kind: str) -> None:
        """Create the volume if it does not exist.

        A single request, safe against concurrent ones: the engine returns the volume with that
        name.
        """
        name = volume_name(scope, kind)
        with self._engine.call(f"create the volume {name}") as api:
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
        """Remove a scope's volumes. The engine refuses while a container refers to one."""
        for volume in self.found():
            if volume.scope != scope:
                continue
            try:
                with self._engine.call(f"remove the volume {volume.name}") as api:
                    api.remove_volume(volume.name)
            except AnswerError as error:
                if error.status != 404:  # removed already
                    raise

    def check_is_ours(self, name: str) -> None:
        """Raise `EngineError` unless the volume exists and was created by stoke."""
        with self._engine.call(f"inspect the volume {name}") as api:
            if not _is_ours(api.inspect_volume(name)):
                raise _foreign(name)

    def refuse_foreign_users(self, name: str) -> None:
        """Raise `EngineError` if a container that is not ours uses the volume.

        Our own jobs hold file locks on the volume; foreign users are known only to the engine.
        """
        with self._engine.call(f"list the containers that use {name}") as api:
            containers = api.containers(filters={"volume": [name]})
        for container in containers:
            ours = has_labels(container, {MANAGED: "true"})
            if not ours and any(mount.get("Name") == name for mount in container["Mounts"]):
                raise EngineError(
                    f"{name} is in use by a container that stoke did not create",
                    f"find it: docker ps --filter volume={name}",
                )


def _volume(record: dict[str, Any]) -> Volume:
    labels = record["Labels"]
    return Volume("docker", labels[SCOPE], labels[KIND], record["Name"])


def _is_ours(record: dict[str, Any]) -> bool:
    """Whether a volume has our labels, and the name that belongs to them."""
    labels = record.get("Labels") or {}
    scope, kind = labels.get(SCOPE, ""), labels.get(KIND, "")
    mine = has_labels(record, {MANAGED: "true"}) and kind in CACHE_KINDS
    return mine and bool(record["Name"] == volume_name(scope, kind))


def _foreign(name: str) -> EngineError:
    return EngineError(
        f"the volume {name} was not created by stoke and is left alone",
        "choose another scope: --scope NAME; or, if it is yours to remove: docker volume rm "
        + name,
    )


def _holders(api: Any, name: str) -> list[str]:
    """Return our jobs that refer to the volume and are running or about to run."""
    filters = {"volume": [name], "label": [f"{MANAGED}=true", f"{KIND}=job"]}
    return sorted(
        container["Labels"][JOB]
        for container in api.containers(all=True, filters=filters)
        # The engine's filter also matches parts of names.
        if any(mount.get("Name") == name for mount in container["Mounts"])
        and container["State"] not in ("exited", "stopped", "dead", "removing")
    )
