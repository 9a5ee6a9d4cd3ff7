"""Ask the cluster, without creating anything, whether its policies admit the pod of a job.

A server-side dry run passes all admission plugins and webhooks
(https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run). Argo makes the pods of jobs; the
one that is asked about here has the same settings, and the job's image in place of Argo's own.
"""

from __future__ import annotations

import json
import re
from typing import Any

from backends.argo.cluster import ApiError, Cluster, pods_path
from backends.argo.mounts import OWN_NAMESPACE, job_volumes, shared_memory, used_caches
from backends.argo.pod_patch import merged
from backends.argo.pod_workflow import PodShape, pod_workflow
from backends.argo.refusals import diagnose
from backends.common.names import PUBLIC_IMAGE
from stoke.backend.api import CheckResult
from stoke.config.model import Config

Object = dict[str, Any]
NAME = "stoke-doctor"
_OWN_CONTAINERS = {"main", "wait"}
_NODES = "500"


def check_admission(cluster: Cluster, config: Config) -> CheckResult:
    """Check whether the cluster would admit a job's pod, and whether it would add containers to it."""
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    try:
        made = cluster.request(
            "POST", pods_path(cluster.namespace), query=query, body=_pod(cluster, config)
        )
    except ApiError as error:
        if error.status == 403 and 'cannot create resource "pods"' in error.message:
            detail = "unknown: you may not create pods, so policies cannot be asked before a job"
            return CheckResult("policies", None, detail, "run a job: stoke run -b argo -c pass")
        if error.status in (400, 403, 422) and error.message:
            refused = diagnose(error.message)
            return CheckResult("policies", False, error.message, refused.hint)
        raise
    containers = made.get("spec", {}).get("containers", ())
    added = sorted({one["name"] for one in containers} - _OWN_CONTAINERS)
    if added:
        return CheckResult(
            "policies",
            False,
            f"the cluster adds containers to each pod ({', '.join(added)}), which may keep jobs from "
            "ending",
            "turn that off for jobs, such as with "
            'argo.annotations = { "sidecar.istio.io/inject" = "false" }, or have the containers end: '
            "workflows.argoproj.io/kill-cmd-NAME",
        )
    return CheckResult("policies", True, "a dry run of a job's pod was admitted")


def check_gpus(cluster: Cluster, config: Config) -> CheckResult:
    resource = config.argo.gpu_resource
    try:
        listed = cluster.request("GET", "/api/v1/nodes", query={"limit": _NODES})
    except ApiError as error:
        if error.status != 403:
            raise
        return CheckResult("gpus", None, "unknown: you may not list nodes")
    given = [
        one.get("status", {}).get("allocatable", {}).get(resource, "0")
        for one in listed.get("items", ())
    ]
    counts = [int(one) for one in given if re.fullmatch("[0-9]{1,6}", one)]
    nodes = sum(count > 0 for count in counts)
    return CheckResult("gpus", True, f"{sum(counts)} of {resource} on {nodes} nodes")


def _pod(cluster: Cluster, config: Config) -> Object:
    argo = config.argo
    image = argo.image or PUBLIC_IMAGE
    volumes = job_volumes(config.scope, used_caches(True, False), False, None, NAME, argo)
    workflow = pod_workflow(
        NAME,
        {},
        argo,
        PodShape(None, grace=1, keep=1),
        image=image,
        variables={},
        volumes=[*volumes, shared_memory(None)],
    )
    text = json.dumps(workflow["spec"]).replace(OWN_NAMESPACE, cluster.namespace)
    spec: Object = json.loads(text)
    (template,) = spec["templates"]
    own = {"image": image, "volumeMounts": [{"name": "stoke", "mountPath": "/var/run/argo"}]}
    pod: Object = {
        "restartPolicy": "Never",
        "initContainers": [{"name": "init", **own}],
        "containers": [{"name": "wait", **own}, {"name": "main", **template["container"]}],
    }
    same = ("volumes", "serviceAccountName", "nodeSelector", "tolerations", "affinity")
    more = ("securityContext", "imagePullSecrets")
    pod |= {field: spec[field] for field in (*same, *more) if field in spec}
    if argo.priority_class:
        pod["priorityClassName"] = argo.priority_class
    about = {"generateName": f"{NAME}-", **(spec.get("podMetadata") or {})}
    return {"metadata": about, "spec": merged(pod, json.loads(spec["podSpecPatch"]))}
