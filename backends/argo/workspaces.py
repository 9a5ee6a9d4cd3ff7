"""Workspaces on a cluster: a claim each or, where caches are folders of nodes, a folder of one node.

A claim has our labels. A folder is recorded in a ConfigMap with the same name and labels, and with the
node once its first job has been scheduled. Pods of one workspace run on one node: a claim can often be
mounted by one node at a time only, and a folder is on one.

Files are copied through a pod that waits while programs are run in it (`pods/exec`).
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from typing import Any

from backends.argo import bundle
from backends.argo.cluster import ApiError, Cluster, pods_path, resource_path
from backends.argo.exec_socket import ExecSocket
from backends.argo.housekeeping import lines_of_workflow, run_workflow
from backends.argo.names import (
    OURS,
    UNFINISHED_JOBS,
    has_labels,
    labels_of,
    workspace_labels,
    workspace_object,
)
from backends.argo.resources import MERGE, KubernetesResources
from backends.argo.shapes import NAMED
from backends.argo.status import epoch, is_over
from backends.argo.volumes import NO_NODE, TABLE, rows_of
from backends.argo.workflow import make_helper
from backends.argo.workspace_volumes import (
    CLONE,
    clone_volumes,
    is_on_nodes,
    parent_volumes,
    workspace_claim,
    workspace_folder,
    workspace_volumes,
)
from backends.common.names import SCOPE, TYPE, WORKSPACE_NAME
from stoke.backend.capabilities import Workspace
from stoke.cache.volumes import lines_of, read_outcome
from stoke.config.model import Config
from stoke.errors import EngineError
from stoke.files.debug import Logger
from stoke.remote.bundle import housekeeping_source, packing_source
from stoke.remote.common.archives import Counts, summary
from stoke.request.workspace_name import WORKSPACE
from stoke.workspaces.copying import AGAIN
from stoke.workspaces.keeper import in_use

NODE = "node"
PROGRAM = f"{bundle.FOLDER}/housekeeping.py"
PACKER = f"{bundle.FOLDER}/pack.py"
COPY_SECONDS = 86400
DELETE_SECONDS = 60.0
MOST_CREATIONS = 10
MOST_FAILURES = 3
"""Connections in a row that may be cut before they bring anything new."""
SELECTOR = f"{OURS},{TYPE}=workspace"

_log = Logger(__name__)


class ArgoWorkspaces:
    """The workspaces of one namespace. `image` is for pods of our own."""

    def __init__(self, cluster: Cluster, config: Config, image: str) -> None:
        self._cluster = cluster
        self._config = config
        self._image = image
        self._resources = KubernetesResources(cluster)
        self._on_nodes = is_on_nodes(config.argo)

    # ------------------------------------------------------------------ before and after a job

    def ensure(self, name: str, scope: str) -> str | None:
        """Create what a job's workspace needs; return the node on which it is, if that is known."""
        found = self._object(name) or self._create(name, scope)
        if not _is_ours(found):
            raise EngineError(
                f"{workspace_object(name)} was not created by stoke and is left alone",
                "choose another name: --workspace NAME",
            )
        if not self._on_nodes:
            return None
        node = (found.get("data") or {}).get(NODE) or self._node_of_pods(name)
        if node and not (found.get("data") or {}).get(NODE):
            self.note_node(name, node)
        return node

    def note_node(self, name: str, node: str) -> None:
        """Record the node of a workspace's first job."""
        if self._on_nodes:
            self._patch(name, {"data": {NODE: node}})

    def _create(self, name: str, scope: str, node: str | None = None) -> dict[str, Any]:
        body = (
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": workspace_object(name),
                    "labels": workspace_labels(name, scope),
                },
                "data": {NODE: node} if node else {},
            }
            if self._on_nodes
            else workspace_claim(name, scope, self._config.argo)
        )
        for left in range(MOST_CREATIONS, 0, -1):
            try:
                return self._cluster.request(  # type: ignore[no-any-return]
                    "POST", self._path(), body=body, shape=NAMED
                )
            except ApiError as error:
                if error.status != 409 or left == 1:
                    raise
                # Another process was faster, or the old one is being deleted.
                found = self._object(name)
                if found is not None:
                    return found
        raise AssertionError  # The last attempt returns or raises.

    def _node_of_pods(self, name: str) -> str | None:
        """Return the node of a pod that mounts the workspace, running or not."""
        table = self._cluster.request(
            "GET",
            pods_path(self._cluster.namespace),
            query={"labelSelector": f"{WORKSPACE_NAME}={name}"},
            accept=TABLE,
        )
        nodes = (row.get("Node", NO_NODE) for row, _ in rows_of(table))
        return next((node for node in nodes if node != NO_NODE), None)

    # ------------------------------------------------------------------ what there is

    def found(self) -> list[Workspace]:
        listed = self._cluster.request("GET", self._path(), query={"labelSelector": SELECTOR})
        items = listed.get("items") or ()
        records = [one for one in items if _is_ours(one) and not _is_going(one)]
        users = self._users() if records else {}
        return sorted(
            (self._workspace(one, users) for one in records), key=lambda workspace: workspace.name
        )

    def _workspace(self, record: Mapping[str, Any], users: Mapping[str, list[str]]) -> Workspace:
        labels = labels_of(record)
        name = labels[WORKSPACE_NAME]
        node = (record.get("data") or {}).get(NODE)
        if self._on_nodes and node is None:
            node = self._node_of_pods(name)
        place = record["metadata"]["name"]
        if self._on_nodes:
            place = workspace_folder(self._config.argo, self._cluster.namespace, name)
        return Workspace(
            "argo",
            name,
            place,
            labels.get(SCOPE, ""),
            node=node,
            created_at=epoch(record["metadata"].get("creationTimestamp")),
            in_use_by=tuple(sorted(users.get(name, ()))),
        )

    def _users(self) -> dict[str, list[str]]:
        """Return the unfinished jobs of each workspace."""
        users: dict[str, list[str]] = {}
        for workflow in self._resources.list_workflows(f"{UNFINISHED_JOBS},{WORKSPACE_NAME}"):
            if not is_over(workflow):
                name = labels_of(workflow)[WORKSPACE_NAME]
                users.setdefault(name, []).append(workflow["metadata"]["name"])
        return users

    # ------------------------------------------------------------------ operations

    def tend(
        self, workspace: Workspace, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        volumes = workspace_volumes(workspace.name, self._config.argo)
        return self._run(workspace, operation, volumes, progress)

    def clone(
        self, workspace: Workspace, new: str, progress: Callable[[str], None]
    ) -> dict[str, Any]:
        made = self._create(new, workspace.scope, workspace.node)
        operation = {"kind": "workspace", "do": "copy", "to": CLONE}
        volumes = clone_volumes(workspace.name, new, self._config.argo)
        try:
            return self._run(workspace, operation, volumes, progress)
        except BaseException:
            self._remove(self._workspace(made, {}))
            raise

    def remove(self, workspace: Workspace) -> None:
        users = self._users().get(workspace.name)
        if users:
            raise in_use(workspace.name, tuple(sorted(users)), "removed")
        self._remove(workspace)

    def _remove(self, workspace: Workspace) -> None:
        if self._on_nodes and workspace.node is not None:
            operation = {"kind": "workspace", "do": "drop", "name": workspace.name}
            volumes = parent_volumes(self._config.argo)
            self._run(workspace, operation, volumes, lambda _: None)
        try:
            self._cluster.request("DELETE", self._path(workspace_object(workspace.name)))
        except ApiError as error:
            if error.status != 404:
                raise

    def read(self, workspace: Workspace, path: str, name: str) -> Generator[bytes]:
        what = f"read the workspace {workspace.name}"
        with self._waiting_pod(workspace) as pod:
            argv = ["python3", "-I", "-S", PACKER, WORKSPACE, path, name]
            yield from self._archive(pod, argv, what)

    def _archive(self, pod: str, argv: Sequence[str], what: str) -> Generator[bytes]:
        """Yield what a packing program writes; after a cut, another one writes the rest."""
        taken, size, failures = hashlib.sha256(), 0, 0
        while True:
            before = size
            begin = [str(size), taken.hexdigest()] if size else []
            try:
                with closing(ExecSocket(self._cluster, pod, [*argv, *begin], what)) as program:
                    for piece in program.output():
                        taken.update(piece)
                        size += len(piece)
                        yield piece
                return
            except ApiError as error:
                failures = 0 if size > before else failures + 1
                _log.debug("%s: the copy was cut at %d: %s", pod, size, error.what)
                if error.status or failures == MOST_FAILURES:
                    raise EngineError(error.what, error.hint or AGAIN) from error
                time.sleep(failures)

    def write(self, workspace: Workspace, folder: str, archive: Iterator[bytes]) -> list[str]:
        what = f"copy into the workspace {workspace.name}"
        operation = json.dumps({"kind": "workspace", "do": "unpack", "path": folder})
        with self._waiting_pod(workspace) as pod:
            argv = ["python3", "-I", "-S", PROGRAM, WORKSPACE, operation]
            with closing(ExecSocket(self._cluster, pod, argv, what)) as program:
                output = program.output(chain(archive, [summary(Counts())]))
                # The outcome is the end: after an error, input is left unread.
                try:
                    result = read_outcome(lines_of(output), lambda _: None)
                except ApiError as error:
                    raise EngineError(error.what, AGAIN) from error
        problems = result.get("problems")
        if not isinstance(problems, list):
            raise EngineError(f"cannot {what}: it ended without a report", AGAIN)
        return [str(one) for one in problems]

    def _run(
        self,
        workspace: Workspace,
        operation: Mapping[str, object],
        volumes: list[tuple[str, str, dict[str, Any]]],
        progress: Callable[[str], None],
    ) -> dict[str, Any]:
        workflow = self._helper(workspace, operation, volumes)
        return run_workflow(self._cluster, self._config, workflow, workspace.node, progress)

    @contextmanager
    def _waiting_pod(self, workspace: Workspace) -> Iterator[str]:
        """Start a pod that mounts the workspace and waits; yield its name once it does."""
        volumes = workspace_volumes(workspace.name, self._config.argo)
        workflow = self._helper(workspace, {"kind": "workspace", "do": "wait"}, volumes)
        name = workflow["metadata"]["name"]
        self._resources.create("workflows", workflow)
        lines = lines_of_workflow(self._cluster, self._config, name, workspace.node, lambda _: None)
        try:
            for line in lines:
                read_outcome([line, b'{"result": {}}'], lambda _: None)
                break  # It has begun to wait.
            lines.close()
            yield name
        finally:
            lines.close()
            self._resources.delete_workflow(name)

    def _helper(
        self,
        workspace: Workspace,
        operation: Mapping[str, object],
        volumes: list[tuple[str, str, dict[str, Any]]],
    ) -> dict[str, Any]:
        return make_helper(
            f"stoke-workspace-{secrets.token_hex(4)}",
            workspace.scope,
            {"housekeeping.py": housekeeping_source("workspace"), "pack.py": packing_source()},
            [PROGRAM, WORKSPACE, json.dumps(operation)],
            volumes,
            self._config,
            self._image,
            workspace.node,
            deadline=COPY_SECONDS,
            workspace=workspace.name,
        )

    def _object(self, name: str) -> dict[str, Any] | None:
        """Return a workspace's claim or ConfigMap; wait for the end of one that is being deleted."""
        deadline = time.monotonic() + DELETE_SECONDS
        while True:
            try:
                found: dict[str, Any] = self._cluster.request(
                    "GET", self._path(workspace_object(name)), shape=NAMED
                )
            except ApiError as error:
                if error.status == 404:
                    return None
                raise
            if not _is_going(found):
                return found
            if time.monotonic() > deadline:
                raise EngineError(
                    f"the old workspace {name} is still being deleted, because a pod mounts it",
                    "try again later, or choose another name: --workspace NAME",
                )
            time.sleep(0.2)

    def _patch(self, name: str, changes: dict[str, Any]) -> None:
        path = self._path(workspace_object(name))
        self._cluster.request("PATCH", path, body=changes, content_type=MERGE)

    def _path(self, name: str = "") -> str:
        kind = "configmaps" if self._on_nodes else "persistentvolumeclaims"
        return resource_path("v1", self._cluster.namespace, kind, name)


def _is_going(record: Mapping[str, Any]) -> bool:
    """Whether a claim is deleted as soon as the last pod that mounts it has ended."""
    return record["metadata"].get("deletionTimestamp") is not None


def _is_ours(record: Mapping[str, Any]) -> bool:
    """Whether a claim or ConfigMap has our labels, and the name that belongs to them."""
    name = labels_of(record).get(WORKSPACE_NAME, "")
    mine = has_labels(record, {TYPE: "workspace"})
    return mine and bool(record["metadata"]["name"] == workspace_object(name))
