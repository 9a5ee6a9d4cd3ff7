"""Where caches are on a cluster: folders of nodes, recorded in a ConfigMap a scope, or claims.

The ConfigMap (the register) tells users who may not list nodes which nodes have a cache. For a
claim that all nodes mount it records which environments are in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends.argo.cluster import METADATA_ONE, ApiError, Cluster, pods_path, resource_path
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
    register_name,
)
from backends.argo.resources import MERGE, KubernetesResources
from backends.argo.status import is_over
from backends.common.names import KIND, SCOPE
from stoke.backend.api import CACHE_KINDS, Volume
from stoke.config.model import ArgoConfig
from stoke.errors import EngineError
from stoke.files.untrusted import parse_json

UNFINISHED = "status.phase!=Succeeded,status.phase!=Failed"
# Like kubectl's lists: a pod's node without the rest of the pod.
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
# Environments recorded for a node; the oldest are dropped.
REMEMBERED = 200
# The register's entry for a claim that all nodes mount.
SHARED = "shared"
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
            found = self._cluster.request("GET", self._claims(name))
        except ApiError as error:
            if error.status != 404:
                raise
            try:
                found = self._cluster.request("POST", self._claims(), body=body)
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
        if self._argo.cache != "hostpath":
            return ()
        try:
            known = self._register(scope)
        except EngineError:
            return ()  # Only a preference; the job runs without it.
        return tuple(sorted(node for node, noted in known.items() if request in noted["requests"]))

    def only_reads(self, scope: str, request: str, lock_ttl: float) -> bool:
        """Whether a job need not write to a claim that all nodes mount, because its environment is
        there.

        If the record is wrong, the job builds the environment for itself.
        """
        if self._argo.cache != "shared-claim" or self._argo.by_template:
            return False
        try:
            filled = self._register(scope).get(SHARED, {"requests": {}})["requests"]
        except EngineError:
            return False
        age = time.time() - float(filled.get(request, 0))
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
        try:
            noted = self._register(scope).get(node) or {"kinds": [], "requests": {}}
            requests = {**noted["requests"], request: round(time.time())}
            newest = sorted(requests, key=lambda one: -requests[one])[:REMEMBERED]
            text = json.dumps(
                {
                    "where": self._where(),
                    "kinds": sorted({*noted["kinds"], *kinds}),
                    "requests": {one: requests[one] for one in newest},
                },
                separators=(",", ":"),
            )
            self._write_register(scope, {node: text})
        except EngineError:
            pass

    def forget(self, scope: str, node: str = SHARED) -> None:
        """Forget a node's environments after its cache was cleared or pruned. Later jobs record them
        again."""
        try:
            noted = self._register(scope).get(node)
            if noted is not None:
                text = json.dumps(
                    {"where": self._where(), **noted, "requests": {}}, separators=(",", ":")
                )
                self._write_register(scope, {node: text})
        except EngineError:
            pass
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
        for scope, noted in self._registers():
            for node, what in noted.items():
                kinds.setdefault((scope, node), set()).update(what["kinds"])
        for user in users:
            if user.node is not None:
                kinds.setdefault((user.scope, user.node), set()).update(user.kinds)
        gone = self._gone({node for _, node in kinds})
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

    def _gone(self, nodes: Iterable[str]) -> set[str]:
        """Return the nodes that no longer exist, and whose folders are lost.

        For a user who may not get nodes, none: all recorded caches are listed.
        """
        gone = set()
        for node in nodes:
            try:
                self._cluster.request("GET", f"/api/v1/nodes/{node}", accept=METADATA_ONE)
            except ApiError as error:
                if error.status == 403:
                    break
                if error.status != 404:
                    raise
                gone.add(node)
        return gone

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
        columns = [column["name"] for column in table["columnDefinitions"]]
        users = []
        for row in table.get("rows") or ():
            job = labels_of(row["object"]).get(WORKFLOW, "")
            labels = unfinished.get(job, {})
            scope = labels.get(SCOPE)
            node = dict(zip(columns, row["cells"], strict=False)).get("Node")
            kinds = tuple(filter(None, labels.get(CACHES, "").split(".")))
            if scope and kinds:
                users.append(_User(job, scope, kinds, None if node in (None, "<none>") else node))
        return users

    # ------------------------------------------------------------------ the register

    def _registers(self) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
        query = {"labelSelector": f"{OURS},{KIND}=nodes"}
        try:
            listed = self._cluster.request("GET", self._config_maps(), query=query)
        except ApiError as error:
            if error.status == 403:
                return  # Without that right, only the caches of running jobs are known.
            raise
        for record in listed.get("items") or ():
            scope = labels_of(record).get(SCOPE, "")
            if record["metadata"]["name"] == register_name(scope):
                yield scope, _read_register(record, self._where())

    def _register(self, scope: str) -> dict[str, dict[str, Any]]:
        try:
            record = self._cluster.request("GET", self._config_maps(register_name(scope)))
        except ApiError as error:
            if error.status == 404:
                return {}
            raise
        return _read_register(record, self._where())

    def _where(self) -> str | None:
        """Return the folder that the register's entries refer to; None if caches are in claims."""
        if self._argo.cache != "hostpath":
            return None
        return cache_folder(self._argo, self._cluster.namespace, "", "").rstrip("/")

    def _folder(self, scope: str, kind: str) -> str:
        return cache_folder(self._argo, self._cluster.namespace, scope, kind)

    def _write_register(self, scope: str, nodes: Mapping[str, str]) -> None:
        name = register_name(scope)
        try:
            self._cluster.request(
                "PATCH", self._config_maps(name), body={"data": nodes}, content_type=MERGE
            )
        except ApiError as error:
            if error.status != 404:
                raise
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "labels": cache_labels(scope, "nodes")},
                "data": nodes,
            }
            self._cluster.request("POST", self._config_maps(), body=body)

    def _config_maps(self, name: str = "") -> str:
        return resource_path("v1", self._cluster.namespace, "configmaps", name)

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


def _read_register(record: Mapping[str, Any], where: str | None) -> dict[str, dict[str, Any]]:
    """Return the entry of each node. Skips unreadable entries and those about another folder than
    `where`."""
    nodes = {}
    for node, text in (record.get("data") or {}).items():
        try:
            noted = parse_json(text)
            kinds, requests = list(noted["kinds"]), dict(noted["requests"])
            of = noted.get("where")
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if of != where:
            continue
        nodes[node] = {"kinds": kinds, "requests": requests}
    return nodes


def _foreign(name: str) -> EngineError:
    return EngineError(
        f"the cache {name} was not created by stoke and is left alone",
        "choose another scope: --scope NAME",
    )
