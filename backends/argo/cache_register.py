"""The register of a scope's caches on nodes: a ConfigMap with an entry for each node.

It tells users who may not list nodes which of them have a cache, and which environments are in it. An
entry says where the cache is, which kinds there are, and when the newest environments were used last.
A ConfigMap has room for 1 MiB, so with more nodes fewer environments of each are kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from backends.argo.cluster import ApiError, Cluster, resource_path
from backends.argo.mounts import cache_folder
from backends.argo.names import OURS, cache_labels, labels_of, register_name
from backends.argo.resources import MERGE
from backends.argo.shapes import NAMED
from backends.common.names import KIND, SCOPE
from stoke.config.model import ArgoConfig
from stoke.files.shapes import is_time
from stoke.files.untrusted import parse_json

Entries = dict[str, dict[str, Any]]
"""The kinds of caches on each node, and the times of the last use of their environments."""

MAX_BYTES = 900_000  # of the 1,048,576 that Kubernetes allows
NODE_BYTES = 400
"""At most, of a node's name, folder and kinds."""
REQUEST_BYTES = 32
"""Of an environment, with its time."""
REMEMBERED = 200
"""Environments recorded for a node, at most; the oldest are dropped."""
KEY_LENGTH = 16
"""Of a request's hash: enough to tell a scope's requests apart."""


class CacheRegister:
    """The registers of one namespace."""

    def __init__(self, cluster: Cluster, argo: ArgoConfig) -> None:
        self._cluster = cluster
        self._argo = argo

    def all(self) -> Iterator[tuple[str, Entries]]:
        """Give each scope and its entries; none without the right to list ConfigMaps."""
        query = {"labelSelector": f"{OURS},{KIND}=nodes"}
        try:
            listed = self._cluster.request("GET", self._path(), query=query)
        except ApiError as error:
            if error.status == 403:
                return  # Without that right, only the caches of running jobs are known.
            raise
        for record in listed.get("items") or ():
            scope = labels_of(record).get(SCOPE, "")
            if record["metadata"]["name"] == register_name(scope):
                yield scope, _entries(record, self._where())

    def of(self, scope: str) -> Entries:
        try:
            record = self._cluster.request("GET", self._path(register_name(scope)), shape=NAMED)
        except ApiError as error:
            if error.status == 404:
                return {}
            raise
        return _entries(record, self._where())

    def last_use(self, scope: str, request: str) -> dict[str, float]:
        """Return the nodes that have the environment of a request, and when it was used there."""
        return {
            node: entry["requests"][key]
            for node, entry in self.of(scope).items()
            if (key := request[:KEY_LENGTH]) in entry["requests"]
        }

    def note(self, scope: str, node: str, kinds: tuple[str, ...], request: str) -> None:
        """Record that a job has just used its caches on a node."""
        entries = self.of(scope)
        entry = entries.get(node, {"kinds": [], "requests": {}})
        requests = {**entry["requests"], request[:KEY_LENGTH]: round(time.time())}
        entries[node] = {"kinds": sorted({*entry["kinds"], *kinds}), "requests": requests}
        most = _most_remembered(len(entries))
        changed = {
            one: {**entry, "requests": _newest(entry["requests"], most)}
            for one, entry in entries.items()
            if one == node or len(entry["requests"]) > most
        }
        self._write(scope, changed)

    def forget(self, scope: str, node: str) -> None:
        """Forget the environments of a node."""
        entry = self.of(scope).get(node)
        if entry is not None:
            self._write(scope, {node: {**entry, "requests": {}}})

    def remove(self, scope: str, nodes: Iterable[str]) -> None:
        self._write(scope, dict.fromkeys(nodes))

    def _where(self) -> str | None:
        """Return the folder that the entries refer to; None if caches are in claims."""
        if self._argo.cache != "hostpath":
            return None
        return cache_folder(self._argo, self._cluster.namespace, "", "").rstrip("/")

    def _write(self, scope: str, entries: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Replace the entries of some nodes; None removes one."""
        name = register_name(scope)
        data = {
            node: None if entry is None else _text({"where": self._where(), **entry})
            for node, entry in entries.items()
        }
        try:
            self._cluster.request(
                "PATCH", self._path(name), body={"data": data}, content_type=MERGE
            )
        except ApiError as error:
            if error.status != 404:
                raise
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "labels": cache_labels(scope, "nodes")},
                "data": data,
            }
            self._cluster.request("POST", self._path(), body=body)

    def _path(self, name: str = "") -> str:
        return resource_path("v1", self._cluster.namespace, "configmaps", name)


def _most_remembered(nodes: int) -> int:
    """Return how many environments of each node there is room for."""
    return max(0, min(REMEMBERED, (MAX_BYTES // nodes - NODE_BYTES) // REQUEST_BYTES))


def _newest(requests: Mapping[str, float], most: int) -> dict[str, float]:
    newest = sorted(requests, key=lambda one: -requests[one])[:most]
    return {one: requests[one] for one in newest}


def _text(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, separators=(",", ":"))


def _entries(record: Mapping[str, Any], where: str | None) -> Entries:
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
        if of != where or not all(is_time(at) for at in requests.values()):
            continue
        if not all(isinstance(kind, str) for kind in kinds):
            continue
        nodes[node] = {"kinds": kinds, "requests": requests}
    return nodes
