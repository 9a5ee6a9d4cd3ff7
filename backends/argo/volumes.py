"""Where caches are on a cluster: folders of nodes, recorded in a ConfigMap a scope, or claims.

For a claim that all nodes mount, the ConfigMap (`cache_register`) records which environments are in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from backends.argo.cache_register import CacheRegister
from backends.argo.cluster import ApiError, Cluster, pods_path, resource_path
from backends.argo.mounts import cache_folder, claim
from backends.argo.names import (
    CACHES,
    OURS,
    UNFINISHED_JOBS,
    WORKFLOW,
    cache_labels,
    claim_name,
    has_labels,
    labels_of,
)
from backends.argo.resources import KubernetesResources
from backends.argo.shapes import NAMED
from backends.argo.status import is_over
from backends.common.names import KIND, SCOPE
from stoke.backend.api import CACHE_KINDS, Volume
from stoke.config.model import ArgoConfig
from stoke.errors import EngineError

UNFINISHED = "status.phase!=Succeeded,status.phase!=Failed"
# Like kubectl's lists: a pod's node without the rest of the pod.
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
# Nodes that a job prefers, those first that had its environment last.
PREFERRED = 20
# The register's entry for a claim that all nodes mount.
SHARED = "shared"
# What a Table has in place of the node of a pod without one.
NO_NODE = "<none>"
# How long an environment that a job has built is mounted read-only. The next job may write again,
# so that it marks the environment as used: one that is only read would be pruned as unused.
READ_SECONDS = 86400


@dataclass(frozen=True)
class _User:
    job: str
    scope: str
    kinds: tuple[str, ...]
    node: str | None


class ArgoVolumes:
    """The caches of one namespace. Safe to use from several threads."""

    def __init__(self, cluster: Cluster, argo: ArgoConfig) -> None:
        self._cluster = cluster
        self._argo = argo
        self._register = CacheRegister(cluster, argo)
        self._ensured: set[tuple[str, str]] = set()
        self._noted: set[tuple[str, str, str, int]] = set()

    # ------------------------------------------------------------------ before a job

    def ensure(self, scope: str, kind: str) -> None:
        """Create the claim if it does not exist. A node creates its own folder."""
        if self._argo.cache not in ("claim", "shared-claim") or (scope, kind) in self._ensured:
            return
        name = claim_name(scope, kind)
        body = claim(scope, kind, cache_labels(scope, kind), self._argo)
        try:
            found = self._cluster.request("GET", self._claims(name), shape=NAMED)
        except ApiError as error:
            if error.status != 404:
                raise
            try:
                found = self._cluster.request("POST", self._claims(), body=body, shape=NAMED)
            except ApiError as refused:
                if refused.status == 409:  # another process was faster
                    return
                if refused.status == 403:
                    raise EngineError(
                        f"the claim {name} is missing, and you may not create it: {refused.message}",
                        "ask an administrator to run: stoke setup argo "
                        f'--scope {scope} --apply; or keep no cache: argo.cache = "none"',
                    ) from refused
                raise
        if not has_labels(found, cache_labels(scope, kind)):
            raise _foreign(name)
        self._ensured.add((scope, kind))

    def warm_nodes(self, scope: str, request: str) -> tuple[str, ...]:
        """Return the nodes that are recorded to have the environment of a request."""
        used = self.last_use(scope, request) if self._argo.cache == "hostpath" else {}
        return tuple(sorted(used, key=lambda node: (-used[node], node))[:PREFERRED])

    def last_use(self, scope: str, request: str) -> dict[str, float]:
        """Return the nodes that are recorded to have an environment, and when it was used there."""
        try:
            return self._register.last_use(scope, request)
        except EngineError:
            return {}  # Only a preference; the job runs without it.

    def only_reads(self, scope: str, request: str, lock_ttl: float) -> bool:
        """Whether a job need not write to a claim that all nodes mount, because its environment is
        there.

        If the record is wrong, the job builds the environment for itself.
        """
        if self._argo.cache != "shared-claim" or self._argo.by_template:
            return False
        age = time.time() - self.last_use(scope, request).get(SHARED, 0.0)
        # An expired lockfile is resolved again, and the new one has to be written.
        return age < min(READ_SECONDS, lock_ttl)

    # ------------------------------------------------------------------ after a job

    def note(self, scope: str, node: str, kinds: tuple[str, ...], request: str) -> None:
        """Record that a job has used its caches on a node.

        If that is not allowed, only these figures and preferences are lost.
        """
        node = SHARED if self._argo.cache == "shared-claim" else node
        noting = (scope, node, request, int(time.time() // READ_SECONDS))
        registered = self._argo.cache in ("hostpath", "shared-claim")
        if not registered or not kinds or noting in self._noted:
            return
        self._noted.add(noting)
        with suppress(EngineError):
            self._register.note(scope, node, kinds, request)

    def forget(self, scope: str, node: str = SHARED) -> None:
        """Forget a node's environments after its cache was cleared or pruned. Later jobs record them
        again."""
        with suppress(EngineError):
            self._register.forget(scope, node)
        self._noted = {one for one in self._noted if one[:2] != (scope, node)}

    # ------------------------------------------------------------------ what there is

    def found(self) -> list[Volume]:
        if self._argo.cache == "none":
            return []
        found = self._on_nodes() if self._argo.cache == "hostpath" else self._claimed()
        return sorted(found, key=lambda one: (one.scope, one.kind, one.node or ""))

    def check_is_ours(self, volume: Volume) -> None:
        """Raise `EngineError` unless the volume is one of the caches found now."""
        if not any((one.name, one.node) == (volume.name, volume.node) for one in self.found()):
            raise _foreign(volume.name)

    def _on_nodes(self) -> list[Volume]:
        users = self._users()
        # Recorded caches, and caches that a running job is about to create.
        kinds: dict[tuple[str, str], set[str]] = {}
        recorded = dict(self._register.all())
        for scope, entries in recorded.items():
            for node, what in entries.items():
                kinds.setdefault((scope, node), set()).update(what["kinds"])
        for user in users:
            if user.node is not None:
                kinds.setdefault((user.scope, user.node), set()).update(user.kinds)
        gone = self._gone({node for _, node in kinds})
        for scope, entries in recorded.items():
            if not gone.isdisjoint(entries):
                with suppress(EngineError):  # One may read the register and not write it.
                    self._register.remove(scope, gone.intersection(entries))
        return [
            Volume(
                "argo",
                scope,
                kind,
                self._folder(scope, kind),
                node,
                in_use_by=_holders(users, scope, kind, node),
            )
            for (scope, node), some in kinds.items()
            for kind in CACHE_KINDS
            if kind in some and node not in gone
        ]

    def _gone(self, nodes: set[str]) -> set[str]:
        """Return the nodes that no longer exist, and whose folders are lost.

        For a user who may not list nodes, none: all recorded caches are listed.
        """
        if not nodes:
            return set()
        try:
            table = self._cluster.request(
                "GET", "/api/v1/nodes", query={"includeObject": "None"}, accept=TABLE
            )
        except ApiError as error:
            if error.status == 403:
                return set()
            raise
        there = {row.get("Name") for row, _ in rows_of(table)}
        return nodes - there if there else set()

    def _claimed(self) -> list[Volume]:
        users = self._users()
        listed = self._cluster.request("GET", self._claims(), query={"labelSelector": OURS})
        volumes = []
        for record in listed.get("items") or ():
            labels = labels_of(record)
            scope, kind = labels.get(SCOPE, ""), labels.get(KIND, "")
            name = record["metadata"]["name"]
            if kind in CACHE_KINDS and name == claim_name(scope, kind):
                in_use_by = _holders(users, scope, kind, None)
                volumes.append(Volume("argo", scope, kind, name, in_use_by=in_use_by))
        return volumes

    def _users(self) -> list[_User]:
        """Return the jobs that use caches now or are about to."""
        # The pod of a removed workflow is deleted a little later.
        unfinished = {
            workflow["metadata"]["name"]: labels_of(workflow)
            for workflow in KubernetesResources(self._cluster).list_workflows(UNFINISHED_JOBS)
            if not is_over(workflow)
        }
        table = self._cluster.request(
            "GET",
            pods_path(self._cluster.namespace),
            query={"labelSelector": WORKFLOW, "fieldSelector": UNFINISHED},
            accept=TABLE,
        )
        users = []
        for row, pod in rows_of(table):
            job = labels_of(pod).get(WORKFLOW, "")
            labels = unfinished.get(job, {})
            scope = labels.get(SCOPE)
            node = row.get("Node")
            kinds = tuple(filter(None, labels.get(CACHES, "").split(".")))
            if scope and kinds:
                users.append(_User(job, scope, kinds, None if node == NO_NODE else node))
        return users

    def _folder(self, scope: str, kind: str) -> str:
        return cache_folder(self._argo, self._cluster.namespace, scope, kind)

    def _claims(self, name: str = "") -> str:
        return resource_path("v1", self._cluster.namespace, "persistentvolumeclaims", name)


def _holders(users: Iterable[_User], scope: str, kind: str, node: str | None) -> tuple[str, ...]:
    """Return the jobs that use one cache; with `node` None, on any node."""
    return tuple(
        sorted(
            user.job
            for user in users
            if user.scope == scope and kind in user.kinds and node in (None, user.node)
        )
    )


def rows_of(table: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Give the text of each row by its columns, and the row's object, empty if it was left out."""
    columns = [column["name"] for column in table.get("columnDefinitions", ())]
    for row in table.get("rows", ()):
        cells = zip(columns, row["cells"], strict=False)
        texts = {column: cell for column, cell in cells if isinstance(cell, str)}
        yield texts, row.get("object", {})


def _foreign(name: str) -> EngineError:
    return EngineError(
        f"the cache {name} was not created by stoke and is left alone",
        "choose another scope: --scope NAME",
    )
