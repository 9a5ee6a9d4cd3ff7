"""Where caches are on a cluster: folders of nodes, noted in a ConfigMap a scope; or claims.

Who may list no nodes still learns here which of them have a cache, whoever's job made it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from backends.argo.cluster import METADATA_LIST, ApiError, Cluster, pods_path, resource_path
from backends.argo.names import (
    CACHES,
    JOB,
    JOBS,
    KIND,
    OURS,
    SCOPE,
    cache_labels,
    claim_name,
    has_labels,
    labels_of,
    register_name,
)
from backends.argo.records import MERGE
from backends.argo.workflow import claim
from stoke.backend import Volume
from stoke.config import ArgoConfig
from stoke.errors import EngineError

KINDS = ("python", "system")
UNFINISHED = "status.phase!=Succeeded,status.phase!=Failed"
# How many environments a node is remembered to have; the oldest are forgotten.
REMEMBERED = 200


class Volumes:
    """The caches of one namespace. Safe to use from several threads."""

    def __init__(self, cluster: Cluster, argo: ArgoConfig) -> None:
        self._cluster = cluster
        self._argo = argo
        self._ensured: set[tuple[str, str]] = set()
        self._noted: set[tuple[str, str, str]] = set()

    # ------------------------------------------------------------------ before a job

    def ensure(self, scope: str, kind: str) -> None:
        """Makes the claim unless it is there; a node's folder is made by the node."""
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
                if refused.status == 409:  # somebody was quicker
                    return
                if refused.status == 403:
                    raise EngineError(
                        f"the claim {name} is not there, and you may not make it: {refused.message}",
                        "have it made by somebody who may: stoke setup argo "
                        f'--scope {scope} --apply; or keep no cache: argo.cache = "none"',
                    ) from refused
                raise
        if not has_labels(found, cache_labels(scope, kind)):
            raise _foreign(name)
        self._ensured.add((scope, kind))

    def warm_nodes(self, scope: str, request: str) -> tuple[str, ...]:
        """The nodes that have the environment of a request, as far as anybody noted it."""
        if self._argo.cache != "hostpath":
            return ()
        try:
            known = self._register(scope)
        except EngineError:
            return ()  # A preference; the job runs without it.
        return tuple(sorted(node for node, noted in known.items() if request in noted["requests"]))

    # ------------------------------------------------------------------ after a job

    def note(self, scope: str, node: str, kinds: tuple[str, ...], request: str) -> None:
        """Notes that a job of this scope has used its caches on a node. Nothing is lost where that is
        not allowed: only these figures and preferences."""
        if self._argo.cache != "hostpath" or not kinds or (scope, node, request) in self._noted:
            return
        self._noted.add((scope, node, request))
        try:
            noted = self._register(scope).get(node, {"kinds": [], "requests": {}})
            requests = {**noted["requests"], request: round(time.time())}
            newest = sorted(requests, key=lambda one: -requests[one])[:REMEMBERED]
            text = json.dumps(
                {
                    "kinds": sorted({*noted["kinds"], *kinds}),
                    "requests": {one: requests[one] for one in newest},
                },
                separators=(",", ":"),
            )
            self._write_register(scope, {node: text})
        except EngineError:
            pass

    def forget(self, scope: str, node: str) -> None:
        """After a cache was cleared or pruned: what the node has is noted anew, job by job."""
        try:
            noted = self._register(scope).get(node)
            if noted is not None:
                text = json.dumps({**noted, "requests": {}}, separators=(",", ":"))
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
        """`EngineError` unless it is one of the caches that are found now."""
        if not any((one.name, one.node) == (volume.name, volume.node) for one in self.found()):
            raise _foreign(volume.name)

    def _on_nodes(self) -> list[Volume]:
        listed = self._cluster.request(
            "GET", self._config_maps(), query={"labelSelector": f"{OURS},{KIND}=nodes"}
        )
        volumes = []
        for record in listed.get("items") or ():
            scope = labels_of(record).get(SCOPE, "")
            if record["metadata"]["name"] != register_name(scope):
                continue
            for node, noted in _read_register(record).items():
                holders = self._holders(scope, node)
                volumes += [
                    Volume(
                        "argo",
                        scope,
                        kind,
                        f"{self._argo.cache_path.rstrip('/')}/{scope}/{kind}",
                        node,
                        in_use_by=tuple(holders.get(kind, ())),
                    )
                    for kind in KINDS
                    if kind in noted["kinds"]
                ]
        return volumes

    def _claimed(self) -> list[Volume]:
        listed = self._cluster.request("GET", self._claims(), query={"labelSelector": OURS})
        volumes = []
        for record in listed.get("items") or ():
            labels = labels_of(record)
            scope, kind = labels.get(SCOPE, ""), labels.get(KIND, "")
            name = record["metadata"]["name"]
            if kind in KINDS and name == claim_name(scope, kind):
                holders = self._holders(scope, None)
                in_use_by = tuple(holders.get(kind, ()))
                volumes.append(Volume("argo", scope, kind, name, in_use_by=in_use_by))
        return volumes

    def _holders(self, scope: str, node: str | None) -> dict[str, list[str]]:
        """Kind of cache to the jobs that use it now, or are about to."""
        where = UNFINISHED + (f",spec.nodeName={node}" if node else "")
        listed = self._cluster.request(
            "GET",
            pods_path(self._cluster.namespace),
            query={"labelSelector": f"{JOBS},{SCOPE}={scope}", "fieldSelector": where},
            accept=METADATA_LIST,
        )
        holders: dict[str, list[str]] = {}
        for pod in listed.get("items") or ():
            labels = labels_of(pod)
            for kind in labels.get(CACHES, "").split("."):
                holders.setdefault(kind, []).append(labels.get(JOB, pod["metadata"]["name"]))
        return {kind: sorted(jobs) for kind, jobs in holders.items()}

    # ------------------------------------------------------------------ the register

    def _register(self, scope: str) -> dict[str, dict[str, Any]]:
        try:
            record = self._cluster.request("GET", self._config_maps(register_name(scope)))
        except ApiError as error:
            if error.status == 404:
                return {}
            raise
        return _read_register(record)

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


def _read_register(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Node to what was noted of it; what is not as we write it is passed over."""
    nodes = {}
    for node, text in (record.get("data") or {}).items():
        try:
            noted = json.loads(text)
            kinds, requests = list(noted["kinds"]), dict(noted["requests"])
        except (ValueError, KeyError, TypeError):
            continue
        nodes[node] = {"kinds": kinds, "requests": requests}
    return nodes


def _foreign(name: str) -> EngineError:
    return EngineError(
        f"the cache {name} was not made by stoke and is left alone",
        "choose another scope: --scope NAME",
    )
