"""What `stoke doctor` says of a cluster."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from backends.argo import credential_plugins, rights
from backends.argo.cluster import METADATA_ONE, WORKFLOWS, ApiError, Cluster, resource_path
from backends.argo.names import PHASE, claim_name, labels_of
from backends.argo.resources import Records
from backends.argo.rights import EXECUTOR, Right
from backends.argo.state import OVERLOOKED, epoch, overlooked_at
from backends.argo.templates import template_name
from backends.argo.workflow import PUBLIC_IMAGE, cache_folder
from stoke.backend.api import CheckResult
from stoke.config.model import Config
from stoke.errors import EngineError
from stoke.text.units import human_seconds

REVIEWS = "/apis/authorization.k8s.io/v1"
ENFORCED = "pod-security.kubernetes.io/enforce"
SETUP = "stoke setup argo --apply; or have it done by somebody who may"
_TRY = "run a job: stoke run -b argo -c pass"
# For how long a workflow that a controller has seen says that one runs.
RECENT_SECONDS = 600
MOST_WORKFLOWS = 2000
# Questions at once; there are some twenty.
AT_ONCE = 8


def look(cluster: Cluster, config: Config) -> list[CheckResult]:
    """Cluster first; where that does not answer there is nothing else to say."""
    try:
        if cluster.plugin is not None:
            credential_plugins.refuse_unknown(cluster.plugin)
        version = cluster.request("GET", "/version", timeout=5)
        where = f"{cluster.server} (context {cluster.context_name})"
        found = [CheckResult("cluster", True, f"Kubernetes {version['gitVersion']} at {where}")]
        found.append(_argo(cluster))
        found.append(_namespace(cluster))
        found.append(_controller(cluster))
        found += _rights(cluster, config)
        found.append(_executor(cluster, config))
        found.append(_caches(cluster, config))
        if config.argo.by_template:
            found.append(_template(cluster, config.scope))
    except EngineError as error:
        return [CheckResult("cluster", False, error.what, error.hint)]
    image = config.argo.image or PUBLIC_IMAGE
    # No failure: the nodes pull it, where there is a registry to pull it from.
    found.append(CheckResult("image", True, f"{image}, where a request names none"))
    return found


def _argo(cluster: Cluster) -> CheckResult:
    hint = "install Argo Workflows, or choose another cluster: --context CONTEXT"
    try:
        served = cluster.request("GET", f"/apis/{WORKFLOWS}")
    except ApiError as error:
        if error.status != 404:
            raise
        return CheckResult("argo", False, "this cluster has no Argo Workflows", hint)
    names = {one["name"] for one in served.get("resources") or ()}
    missing = {"workflows", "workflowtaskresults"} - names
    if missing:
        return CheckResult("argo", False, f"its {', '.join(sorted(missing))} are missing", hint)
    return CheckResult("argo", True, WORKFLOWS)


def _namespace(cluster: Cluster) -> CheckResult:
    name = cluster.namespace
    try:
        cluster.request("GET", f"/api/v1/namespaces/{name}")
    except ApiError as error:
        if error.status == 403:
            return CheckResult("namespace", None, f"{name} (you may not look at it)")
        if error.status != 404:
            raise
        hint = f"choose another: --namespace NAMESPACE; or {SETUP}"
        return CheckResult("namespace", False, f"there is none called {name}", hint)
    return CheckResult("namespace", True, name)


def _controller(cluster: Cluster) -> CheckResult:
    """Whether an Argo controller looks at this namespace. It runs elsewhere, where most users may not
    look; what they can see is whether it has given workflows here a phase."""
    try:
        workflows = [*islice(Records(cluster).listed(""), MOST_WORKFLOWS)]
    except ApiError as error:
        if error.status != 403:
            raise
        return CheckResult("controller", None, "cannot be seen: you may not list workflows")
    newest: tuple[float, str, bool] | None = None
    overlooked = 0
    for workflow in workflows:
        created = epoch(workflow["metadata"].get("creationTimestamp")) or 0.0
        noticed = PHASE in labels_of(workflow)
        at = overlooked_at(workflow)
        if noticed or (at is not None and time.time() >= at):
            newest = max(
                newest or (0.0, "", False), (created, workflow["metadata"]["name"], noticed)
            )
        overlooked += not noticed and at is not None and time.time() >= at
    if newest is None:
        detail = "cannot be seen: there is no workflow in this namespace yet"
        return CheckResult("controller", None, detail, _TRY)
    created, name, noticed = newest
    age = human_seconds(max(0.0, time.time() - created))
    if not noticed:
        detail = f"no Argo controller has taken notice of {name}, which is {age} old"
        detail += f" (and of {overlooked - 1} more)" if overlooked > 1 else ""
        return CheckResult("controller", False, detail, OVERLOOKED.hint)
    detail = f"took notice of the newest workflow here, {name}, {age} ago"
    if time.time() - created < RECENT_SECONDS:
        return CheckResult("controller", True, detail)
    return CheckResult("controller", None, f"{detail}; whether it still runs cannot be seen", _TRY)


def _rights(cluster: Cluster, config: Config) -> list[CheckResult]:
    asked = [(right, verb) for right in rights.of_user(config.argo) for verb in right.verbs]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda one: _may(cluster, *one), asked))
    missing: dict[str | None, list[str]] = {}
    for (right, verb), allowed in zip(asked, answers, strict=True):
        if not allowed:
            missing.setdefault(right.without, []).append(f"{verb} {_resource(right)}")
    needed = missing.pop(None, [])
    found = [
        CheckResult("rights", not needed, f"you may not: {', '.join(needed)}", SETUP)
        if needed
        else CheckResult("rights", True, "to submit, watch, read logs, stop and remove")
    ]
    for without, some in missing.items():
        found.append(
            CheckResult("rights", False, f"you may not {', '.join(some)}: {without}", SETUP)
        )
    return found


def _may(cluster: Cluster, right: Right, verb: str) -> bool:
    resource, _, sub = right.resource.partition("/")
    attributes = {
        "namespace": cluster.namespace,
        "verb": verb,
        "group": right.group,
        "resource": resource,
        "subresource": sub,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = cluster.request("POST", f"{REVIEWS}/selfsubjectaccessreviews", body=body)
    return bool(answer["status"]["allowed"])


def _executor(cluster: Cluster, config: Config) -> CheckResult:
    """Whether the pods' service account has what Argo's part of a pod needs."""
    account, namespace = config.argo.service_account or "default", cluster.namespace
    missing = []
    for verb in EXECUTOR.verbs:
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "LocalSubjectAccessReview",
            "metadata": {"namespace": namespace},
            "spec": {
                "user": f"system:serviceaccount:{namespace}:{account}",
                "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"],
                "resourceAttributes": {
                    "namespace": namespace,
                    "verb": verb,
                    "group": EXECUTOR.group,
                    "resource": EXECUTOR.resource,
                },
            },
        }
        path = f"{REVIEWS}/namespaces/{namespace}/localsubjectaccessreviews"
        try:
            answer = cluster.request("POST", path, body=body)
        except ApiError as error:
            if error.status in (403, 404):
                detail = f"{account}; you may not ask what it is allowed"
                return CheckResult("service account", None, detail)
            raise
        if not answer["status"]["allowed"]:
            missing.append(verb)
    if missing:
        detail = (
            f"{account} may not {', '.join(missing)} {_resource(EXECUTOR)}: workflows would hang"
        )
        return CheckResult("service account", False, detail, SETUP)
    return CheckResult("service account", True, account)


def _caches(cluster: Cluster, config: Config) -> CheckResult:
    argo, namespace = config.argo, cluster.namespace
    level = _pod_security(cluster)
    if level == "restricted" and not argo.restricted:
        return CheckResult(
            "pod security", False, f"{namespace} enforces restricted, and jobs ask for root",
            'set argo.restricted = true, and argo.cache = "claim" or "none"',
        )  # fmt: skip
    if argo.cache == "hostpath":
        if level in ("baseline", "restricted"):
            return CheckResult(
                "caches", False, f"{namespace} enforces {level}, which forbids folders of nodes",
                'keep them in claims, argo.cache = "claim"; or nowhere, argo.cache = "none"',
            )  # fmt: skip
        if argo.cache_shared:
            who = "shared with every namespace that sets argo.cache_shared"
        else:
            who = f"of {namespace} alone, by its path"
        folder = cache_folder(argo, namespace, config.scope, "").rstrip("/")
        who += "; users who may mount folders of nodes (hostPath) can change it"
        return CheckResult("caches", True, f"{folder} on every node, {who}")
    if argo.cache == "none":
        return CheckResult("caches", True, "none: every job builds its environment")
    kinds = "python" if argo.restricted else "python, system"
    name = claim_name(config.scope, "python")
    return CheckResult("caches", True, f"claims for {kinds}, as {name}; the first job makes them")


def _template(cluster: Cluster, scope: str) -> CheckResult:
    name = template_name(scope)
    try:
        path = resource_path(WORKFLOWS, cluster.namespace, "workflowtemplates", name)
        cluster.request("GET", path, accept=METADATA_ONE)
    except ApiError as error:
        if error.status == 403:
            return CheckResult("template", None, f"{name} (you may not look at it)")
        if error.status != 404:
            raise
        hint = f"stoke setup argo --scope {scope} --apply; or have it done by somebody who may"
        return CheckResult("template", False, f"there is no WorkflowTemplate {name}", hint)
    return CheckResult("template", True, f"{name}, which jobs of the scope {scope} refer to")


def _pod_security(cluster: Cluster) -> str | None:
    """The level that the namespace enforces; None where nobody says."""
    try:
        namespace: dict[str, Any] = cluster.request(
            "GET", f"/api/v1/namespaces/{cluster.namespace}"
        )
    except ApiError:
        return None
    level: str | None = (namespace["metadata"].get("labels") or {}).get(ENFORCED)
    return level


def _resource(right: Right) -> str:
    return f"{right.resource}.{right.group}" if right.group else right.resource
