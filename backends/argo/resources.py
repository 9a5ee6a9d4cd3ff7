"""Requests for workflows, pods, secrets and events, by name or by the id of their job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backends.argo.cluster import (
    METADATA_LIST,
    METADATA_ONE,
    WORKFLOWS,
    ApiError,
    Cluster,
    pods_path,
    resource_path,
    workflows_path,
)
from backends.argo.names import WORKFLOW
from backends.argo.shapes import NAMED
from backends.argo.task_names import pod_of, workflow_of

Object = dict[str, Any]
MERGE = "application/merge-patch+json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
"""Merges lists of owners instead of replacing them."""
PLURALS = {"ConfigMap": "configmaps", "Secret": "secrets"}
"""The resources of kinds, as paths have them."""
PAGE = "500"
MOST_PAGES = 1000


class KubernetesResources:
    """The resources of one namespace. Missing objects are returned as None."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def metadata(self, name: str) -> Object | None:
        """Return a workflow's metadata: 1 KB, where the whole workflow may have 100 KB."""
        return self._get(workflows_path(self._cluster.namespace, workflow_of(name)), METADATA_ONE)

    def workflow(self, name: str) -> Object | None:
        return self._get(workflows_path(self._cluster.namespace, workflow_of(name)))

    def pod(self, job_id: str) -> Object | None:
        """Return the pod of a job, or of a workflow with one template."""
        return self._get(pods_path(self._cluster.namespace, pod_of(job_id)))

    def pods_of(self, sweep_id: str) -> list[Object]:
        """Return the pods of a sweep."""
        query = {"labelSelector": f"{WORKFLOW}={sweep_id}", "resourceVersion": "0"}
        listed = self._cluster.request("GET", pods_path(self._cluster.namespace), query=query)
        found: list[Object] = listed.get("items") or []
        return found

    def list_workflows(self, selector: str, cached: bool = True) -> Iterator[Object]:
        """Give the metadata of the workflows with these labels.

        From the server's cache, which may lag by milliseconds but takes a tenth of the time, unless not
        `cached`.
        """
        query = {"labelSelector": selector, "limit": PAGE}
        query |= {"resourceVersion": "0"} if cached else {}
        path = workflows_path(self._cluster.namespace)
        for _ in range(MOST_PAGES):
            page = self._cluster.request("GET", path, query=query, accept=METADATA_LIST)
            yield from page.get("items", ())
            more = page.get("metadata", {}).get("continue")
            if not more:
                return
            query.pop("resourceVersion", None)
            query["continue"] = more
        raise ApiError(f"{path}: the list has more than {MOST_PAGES} pages")

    def events(self, job_id: str) -> list[Object]:
        """Return the cluster's events about a job's pod."""
        name = pod_of(job_id)
        path = resource_path("v1", self._cluster.namespace, "events")
        query = {"fieldSelector": f"involvedObject.kind=Pod,involvedObject.name={name}"}
        listed = self._cluster.request("GET", path, query=query)
        events: list[Object] = listed.get("items") or []
        return events

    def list_config_maps(self, selector: str) -> list[Object]:
        """Return the metadata of the ConfigMaps with these labels."""
        path = resource_path("v1", self._cluster.namespace, "configmaps")
        # From the server's cache, because storage would read the data of all ConfigMaps.
        query = {"labelSelector": selector, "resourceVersion": "0"}
        listed = self._cluster.request("GET", path, query=query, accept=METADATA_LIST)
        found: list[Object] = listed.get("items") or []
        return found

    def count_owners(self, config_map: str) -> int | None:
        """Return the number of owners of a ConfigMap, 0 if it does not exist.

        None if the user may not change it, or not create it.
        """
        namespace = self._cluster.namespace
        path = resource_path("v1", namespace, "configmaps", config_map)
        try:
            found = self._cluster.request(
                "PATCH", path, body={}, content_type=MERGE, accept=METADATA_ONE
            )
            return len(found["metadata"].get("ownerReferences") or ())
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            if error.status == 403:
                return None
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": config_map}}
        try:
            self._cluster.request(
                "POST",
                resource_path("v1", namespace, "configmaps"),
                query={"dryRun": "All"},
                body=body,
                accept=METADATA_ONE,
            )
        except ApiError as error:
            # Another job has just created it, or admission allows none.
            if error.status // 100 != 4:
                raise
            return 0 if error.status == 409 else None
        return 0

    def add_owner(self, name: str, owner: Mapping[str, Any], resource: str = "configmaps") -> bool:
        """Keep a ConfigMap for as long as `owner` exists, too; return whether it is there."""
        path = resource_path("v1", self._cluster.namespace, resource, name)
        changes = {"metadata": {"ownerReferences": [dict(owner)]}}
        try:
            self._cluster.request(
                "PATCH", path, body=changes, content_type=STRATEGIC_MERGE, accept=METADATA_ONE
            )
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def create(self, resource: str, body: Object, seconds: float = 10) -> Object:
        """Create an object and return its metadata."""
        namespace = self._cluster.namespace
        api = WORKFLOWS if resource in ("workflows", "cronworkflows") else "v1"
        path = resource_path(api, namespace, resource)
        made: Object = self._cluster.request(
            "POST", path, body=body, accept=METADATA_ONE, timeout=seconds
        )
        return made

    def patch_workflow(self, name: str, changes: Object) -> None:
        """Patch a workflow. A workflow that does not exist is no error."""
        path = workflows_path(self._cluster.namespace, workflow_of(name))
        try:
            self._cluster.request(
                "PATCH", path, body=changes, content_type=MERGE, accept=METADATA_ONE
            )
        except ApiError as error:
            if error.status != 404:
                raise

    def delete_workflow(self, name: str) -> None:
        """Delete a workflow and everything that it owns: its pod and its bundle object."""
        self._delete(
            workflows_path(self._cluster.namespace, name), {"propagationPolicy": "Background"}
        )

    def delete_secret(self, name: str) -> None:
        self.delete("secrets", name)

    def delete(self, resource: str, name: str) -> None:
        """Delete an object of the core, such as a ConfigMap."""
        self._delete(resource_path("v1", self._cluster.namespace, resource, name), {})

    def cron_workflow(self, name: str) -> Object | None:
        return self._get(self._cron_path(name))

    def patch_cron_workflow(self, name: str, changes: Object) -> bool:
        """Patch a CronWorkflow; return whether it is there."""
        try:
            self._cluster.request(
                "PATCH",
                self._cron_path(name),
                body=changes,
                content_type=MERGE,
                accept=METADATA_ONE,
            )
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def delete_cron_workflow(self, name: str) -> None:
        """Delete a CronWorkflow and everything that only it owns."""
        self._delete(self._cron_path(name), {"propagationPolicy": "Background"})

    def _cron_path(self, name: str) -> str:
        return resource_path(WORKFLOWS, self._cluster.namespace, "cronworkflows", name)

    def delete_pod(self, job_id: str, grace: int) -> None:
        """Delete a job's pod with `grace` seconds between SIGTERM and SIGKILL; 0 deletes it at once."""
        self._delete(
            pods_path(self._cluster.namespace, pod_of(job_id)), {"gracePeriodSeconds": str(grace)}
        )

    def _get(self, path: str, accept: str | None = None) -> Object | None:
        try:
            found: Object = self._cluster.request("GET", path, accept=accept, shape=NAMED)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def _delete(self, path: str, query: dict[str, str]) -> None:
        try:
            self._cluster.request("DELETE", path, query=query)
        except ApiError as error:
            if error.status != 404:
                raise
