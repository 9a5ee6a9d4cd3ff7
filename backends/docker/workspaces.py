"""Workspaces on an engine: a named volume for each, found by its labels.

Containers of our own measure and copy: the volume is mounted into one that is never connected to a
network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import chain
from tempfile import TemporaryFile
from typing import Any

from backends.common.names import JOB, KIND, MANAGED, SCOPE, TYPE, WORKSPACE_NAME
from backends.docker.container import (
    FOLDER,
    HOUSEKEEPING,
    archive_of,
    helper_config,
    workspace_mount,
)
from backends.docker.engine import AnswerError, Engine
from backends.docker.housekeeping import read_answer, remove_abandoned, stdout_of
from backends.docker.names import (
    has_labels,
    housekeeping_labels,
    workspace_labels,
    workspace_volume,
)
from backends.docker.removal import remove_container
from stoke.backend.capabilities import Workspace
from stoke.config.model import Config
from stoke.errors import EngineError
from stoke.remote.bundle import housekeeping_source, packing_source
from stoke.remote.common.archives import END
from stoke.request.workspace_name import WORKSPACE
from stoke.workspaces.keeper import in_use

CLONE = "/clone"
ENDED = ("exited", "stopped", "dead", "removing")


class DockerWorkspaces:
    """The workspaces of one engine. `image` returns the image for our own containers."""

    def __init__(self, engine: Engine, config: Config, image: Callable[[], str]) -> None:
        self._engine = engine
        self._config = config
        self._image = image

    def ensure(self, name: str, scope: str) -> None:
        """Create the volume if it does not exist; a single request, safe against concurrent ones."""
        volume = workspace_volume(name)
        with self._engine.call(f"create the volume {volume}") as api:
            labels = workspace_labels(name, scope)
            made = api.create_volume(volume, driver="local", labels=labels)
            if not _is_ours(made):
                raise EngineError(
                    f"the volume {volume} was not created by stoke and is left alone",
                    "choose another name: --workspace NAME; or, if it is yours to remove: "
                    f"docker volume rm {volume}",
                )

    def found(self) -> list[Workspace]:
        with self._engine.call("list the workspaces") as api:
            filters = {"label": [f"{MANAGED}=true", f"{TYPE}=workspace"]}
            volumes = [
                one for one in api.volumes(filters=filters)["Volumes"] or [] if _is_ours(one)
            ]
            users = _users(api) if volumes else []
            return sorted(
                (_workspace(one, users) for one in volumes), key=lambda workspace: workspace.name
            )

    def tend(
        self, workspace: Workspace, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        with self._measuring(workspace, operation) as (container, what):
            return self._run(container, what, progress)

    def read(self, workspace: Workspace, path: str, name: str) -> Generator[bytes]:
        what = f"read the workspace {workspace.name}"
        mounts = [_read_only(workspace_mount(workspace.name, workspace.scope))]
        arguments = [f"{FOLDER}/{HOUSEKEEPING}", WORKSPACE, path, name]
        with self._container(what, arguments, mounts, workspace.scope, packing_source()) as one:
            with self._engine.call(what) as api:
                output = api.attach(one, stream=True, demux=True, logs=False)
                api.start(one)
                errors: list[bytes] = []
                yield from stdout_of(output, errors)
            if errors:
                last = b"".join(errors).decode(errors="replace").strip().splitlines()[-1:]
                raise EngineError(f"cannot {what}: {' '.join(last)}")

    def write(self, workspace: Workspace, folder: str, archive: Iterator[bytes]) -> list[str]:
        """Have the engine unpack the archive: it writes nowhere outside of the container."""
        operation = {"kind": "workspace", "do": "target", "path": f"{folder}/", "name": "."}
        with self._measuring(workspace, operation) as (container, _):
            what = f"copy into the workspace {workspace.name}"
            self._run(container, what, lambda _: None)
            with self._body(chain(archive, [END])) as body, self._engine.call(what) as api:
                api.put_archive(container, f"{WORKSPACE}/{folder}", body)
        return []

    @contextmanager
    def _body(self, pieces: Iterator[bytes]) -> Iterator[Any]:
        """Give the body of a request: the pieces, or for Podman a file, whose length is known.

        Podman closes the connection after an archive, before the end of a body sent in chunks.
        """
        if not self._engine.is_podman():
            yield pieces
            return
        with TemporaryFile() as file:
            for piece in pieces:
                file.write(piece)
            file.seek(0)
            yield file

    def clone(
        self, workspace: Workspace, new: str, progress: Callable[[str], None]
    ) -> dict[str, Any]:
        self.ensure(new, workspace.scope)
        operation = {"kind": "workspace", "do": "copy", "to": CLONE}
        target = workspace_mount(new, workspace.scope, CLONE)
        try:
            with self._measuring(workspace, operation, target) as (container, what):
                return self._run(container, what, progress)
        except BaseException:
            with suppress(EngineError), self._engine.call(f"remove the workspace {new}") as api:
                api.remove_volume(workspace_volume(new))
            raise

    def remove(self, workspace: Workspace) -> None:
        volume = workspace_volume(workspace.name)
        try:
            with self._engine.call(f"remove the volume {volume}") as api:
                api.remove_volume(volume)
        except AnswerError as error:
            if error.status == 404:  # removed already
                return
            if error.status != 409:
                raise
            raise self._holders(workspace.name, error) from error

    def _holders(self, name: str, error: AnswerError) -> EngineError:
        """Return the error for a volume that containers refer to, ended ones too."""
        volume = workspace_volume(name)
        with self._engine.call(f"list the containers that use {volume}") as api:
            there = [one for one in api.containers(all=True) if volume in _volumes_of(one)]
        running = tuple(sorted(_job(one) for one in there if _job(one) and not _has_ended(one)))
        ended = sorted(_job(one) for one in there if _job(one) and _has_ended(one))
        if running:
            return in_use(name, running, "removed")
        if ended:
            return EngineError(
                f"the workspace {name} was not removed: the containers of {', '.join(ended)}, "
                "which have ended, still refer to it",
                f"save their logs, which removes them: stoke logs {' '.join(ended)}",
            )
        if there:
            return EngineError(
                f"the workspace {name} is in use by a container that stoke did not create",
                f"find it: docker ps --all --filter volume={volume}",
            )
        return error

    # ------------------------------------------------------------------ containers of our own

    @contextmanager
    def _measuring(
        self, workspace: Workspace, operation: Mapping[str, object], *mounts: dict[str, Any]
    ) -> Iterator[tuple[str, str]]:
        """Create a container that will perform an operation; yield it, and what it does."""
        what = f"look after the workspace {workspace.name}"
        arguments = [f"{FOLDER}/{HOUSEKEEPING}", WORKSPACE, json.dumps(operation)]
        mount = workspace_mount(workspace.name, workspace.scope)
        source = housekeeping_source("workspace")
        with self._container(what, arguments, [mount, *mounts], workspace.scope, source) as one:
            yield one, what

    @contextmanager
    def _container(
        self,
        what: str,
        arguments: list[str],
        mounts: list[dict[str, Any]],
        scope: str,
        program: bytes,
    ) -> Iterator[str]:
        remove_abandoned(self._engine)
        labels = housekeeping_labels(scope)
        body = helper_config(arguments, mounts, labels, self._config, self._image())
        # A job may have taken the rights to its files away.
        body["HostConfig"]["CapAdd"] = ["DAC_OVERRIDE", "FOWNER"]
        with self._engine.call(what) as api:
            container: str = api.create_container_from_config(body)["Id"]
        try:
            with self._engine.call(what) as api:
                api.put_archive(container, FOLDER, archive_of({HOUSEKEEPING: program}))
            yield container
        finally:
            remove_container(self._engine, container, f"end what is needed to {what}")

    def _run(self, container: str, what: str, progress: Callable[[str], None]) -> dict[str, Any]:
        with self._engine.call(what) as api:
            output = api.attach(container, stream=True, demux=True, logs=False)
            api.start(container)
            return read_answer(output, what, progress)


def _workspace(record: dict[str, Any], users: Iterable[tuple[str, list[str]]]) -> Workspace:
    labels = record["Labels"]
    volume = record["Name"]
    try:
        created_at = datetime.fromisoformat(record["CreatedAt"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        created_at = None
    return Workspace(
        "docker",
        labels[WORKSPACE_NAME],
        volume,
        labels.get(SCOPE, ""),
        created_at=created_at,
        in_use_by=tuple(sorted(job for job, mounted in users if volume in mounted)),
    )


def _is_ours(record: dict[str, Any]) -> bool:
    """Whether a volume has our labels, and the name that belongs to them."""
    name = (record.get("Labels") or {}).get(WORKSPACE_NAME, "")
    mine = has_labels(record, {MANAGED: "true", TYPE: "workspace"})
    return mine and bool(record["Name"] == workspace_volume(name))


def _users(api: Any) -> list[tuple[str, list[str]]]:
    """Return the jobs that run or are about to, each with the volumes that it mounts."""
    filters = {"label": [f"{MANAGED}=true", f"{KIND}=job"]}
    return [
        (_job(one), _volumes_of(one))
        for one in api.containers(all=True, filters=filters)
        if not _has_ended(one)
    ]


def _job(container: dict[str, Any]) -> str:
    labels = container.get("Labels") or {}
    return labels.get(JOB, "") if labels.get(KIND) == "job" else ""


def _has_ended(container: dict[str, Any]) -> bool:
    return container["State"] in ENDED


def _volumes_of(container: dict[str, Any]) -> list[str]:
    return [mount["Name"] for mount in container["Mounts"] or () if mount.get("Name")]


def _read_only(mount: dict[str, Any]) -> dict[str, Any]:
    return {**mount, "ReadOnly": True}
