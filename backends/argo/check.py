"""The checks of `stoke doctor` for a cluster."""

from __future__ import annotations

import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from backends.argo import credential_plugins, rights
from backends.argo.admission import check_admission, check_gpus
from backends.argo.cluster import METADATA_ONE, WORKFLOWS, ApiError, Cluster, resource_path
from backends.argo.diagnosis import NOT_NOTICED
from backends.argo.mounts import cache_folder
from backends.argo.names import PHASE, claim_name, labels_of
from backends.argo.pod_security import enforced_level, needed_settings
from backends.argo.resources import KubernetesResources
from backends.argo.rights import EXECUTOR, Right
from backends.argo.state import unnoticed_at
from backends.argo.status import epoch
from backends.argo.templates import template_name
from backends.common.names import PUBLIC_IMAGE
from stoke.backend.api import CheckResult
from stoke.config.model import Config
from stoke.delivery.network import environment_proxies
from stoke.errors import EngineError
from stoke.remote.common.network import is_loopback
from stoke.text.units import human_seconds

REVIEWS = "/apis/authorization.k8s.io/v1"
SETUP = "stoke setup argo --apply; or ask an administrator to run it"
_TRY = "run a job: stoke run -b argo -c pass"
# How long a workflow that a controller has labelled proves that a controller is running.
RECENT_SECONDS = 600
MOST_WORKFLOWS = 2000
_EXPORT = "export STOKE_INDEX__PROXY="
# Concurrent access reviews; a check makes about twenty.
AT_ONCE = 8


def check_cluster(cluster: Cluster, config: Config) -> list[CheckResult]:
    """Check the connection first; if it fails, return only that result."""
    try:
        if cluster.plugin is not None:
            credential_plugins.refuse_unknown(cluster.plugin)
        version = cluster.request("GET", "/version", timeout=5)
        where = f"{cluster.server} (context {cluster.context_name})"
        kubernetes = f"Kubernetes {version.get('gitVersion', '?')}"
        found = [CheckResult("cluster", True, f"{kubernetes} at {where}")]
        found.append(_argo(cluster))
        found.append(_namespace(cluster))
        found.append(_controller(cluster))
        found += _rights(cluster, config)
        found.append(_executor(cluster, config))
        found.append(_caches(cluster, config))
        found.append(check_admission(cluster, config))
        found.append(check_gpus(cluster, config))
        if config.argo.by_template:
            found.append(_template(cluster, config.scope))
    except EngineError as error:
        return [CheckResult("cluster", False, error.what, error.hint)]
    image = config.argo.image or PUBLIC_IMAGE
    # Not a failure: the nodes pull the image if they can reach its registry.
    found.append(CheckResult("image", True, f"{image}, for requests that name no image"))
    return [*found, *_proxy(config)]


def _proxy(config: Config) -> list[CheckResult]:
    """Offer this machine's proxy for downloads in pods, which use only `index.proxy`."""
    named = config.index.proxy
    if named and is_loopback(named):
        detail = f"index.proxy names {named}, a loopback address, which pods cannot reach"
        hint = "name one that they reach: export STOKE_INDEX__PROXY=http://HOST:PORT"
        return [CheckResult("proxy", False, detail, hint)]
    if named:
        return [CheckResult("proxy", True, f"{named}, which pods use for downloads")]
    found = {name: at for name, at in environment_proxies().items() if name != "no_proxy"}
    if not found:
        return []
    detail = f"pods do not use this machine's proxies ({', '.join(map(str.upper, found))})"
    # A login is a secret, and index.proxy is stored with each job.
    offered = [at for at in found.values() if not is_loopback(at) and "@" not in at]
    address = shlex.quote(offered[0]) if offered else "http://HOST:PORT"
    return [CheckResult("proxy", True, f"{detail}; if they need one: {_EXPORT}{address}")]


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
        return CheckResult("argo", False, f"missing resources: {', '.join(sorted(missing))}", hint)
    return CheckResult("argo", True, WORKFLOWS)


def _namespace(cluster: Cluster) -> CheckResult:
    name = cluster.namespace
    try:
        cluster.request("GET", f"/api/v1/namespaces/{name}")
    except ApiError as error:
        if error.status == 403:
            return CheckResult("namespace", None, f"{name} (you may not read it)")
        if error.status != 404:
            raise
        hint = f"choose another: --namespace NAMESPACE; or {SETUP}"
        return CheckResult("namespace", False, f"the cluster has no namespace {name}", hint)
    return CheckResult("namespace", True, name)


def _controller(cluster: Cluster) -> CheckResult:
    """Check whether an Argo controller watches this namespace.

    Most users may not see the controller itself, so its labels on workflows are the evidence.
    """
    try:
        workflows = [*islice(KubernetesResources(cluster).list_workflows(""), MOST_WORKFLOWS)]
    except ApiError as error:
        if error.status != 403:
            raise
        return CheckResult("controller", None, "unknown: you may not list workflows")
    newest: tuple[float, str, bool] | None = None
    unprocessed = 0
    for workflow in workflows:
        created = epoch(workflow["metadata"].get("creationTimestamp")) or 0.0
        processed = PHASE in labels_of(workflow)
        at = unnoticed_at(workflow)
        if processed or (at is not None and time.time() >= at):
            newest = max(
                newest or (0.0, "", False), (created, workflow["metadata"]["name"], processed)
            )
        unprocessed += not processed and at is not None and time.time() >= at
    if newest is None:
        detail = "unknown: this namespace has no workflow yet"
        return CheckResult("controller", None, detail, _TRY)
    created, name, processed = newest
    age = human_seconds(max(0.0, time.time() - created))
    if not processed:
        detail = f"no Argo controller has processed {name}, which is {age} old"
        detail += f" (nor {unprocessed - 1} more)" if unprocessed > 1 else ""
        return CheckResult("controller", False, detail, NOT_NOTICED.hint)
    detail = f"processed the newest workflow of this namespace, {name}, {age} ago"
    if time.time() - created < RECENT_SECONDS:
        return CheckResult("controller", True, detail)
    return CheckResult("controller", None, f"{detail}; unknown whether it still runs", _TRY)


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
    return bool(answer.get("status", {}).get("allowed", False))


def _executor(cluster: Cluster, config: Config) -> CheckResult:
    """Check whether the pods' service account has the rights that Argo's containers need."""
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
                detail = f"{account}; you may not check its rights"
                return CheckResult("service account", None, detail)
            raise
        if not answer.get("status", {}).get("allowed", False):
            missing.append(verb)
    if missing:
        detail = (
            f"{account} may not {', '.join(missing)} {_resource(EXECUTOR)}, so workflows would hang"
        )
        return CheckResult("service account", False, detail, SETUP)
    return CheckResult("service account", True, account)


def _caches(cluster: Cluster, config: Config) -> CheckResult:
    argo, namespace = config.argo, cluster.namespace
    level = enforced_level(cluster)
    needed = needed_settings(level, argo)
    if "restricted" in needed:
        return CheckResult(
            "pod security", False, f"{namespace} enforces restricted, but jobs ask for root",
            'set argo.restricted = true, and argo.cache = "claim" or "none"',
        )  # fmt: skip
    if "cache" in needed:
        return CheckResult(
            "caches", False, f"{namespace} enforces {level}, which forbids hostPath volumes",
            'set argo.cache = "claim", or argo.cache = "none" to keep no caches',
        )  # fmt: skip
    if argo.cache == "hostpath":
        if argo.cache_shared:
            who = "shared with every namespace that sets argo.cache_shared"
        else:
            who = f"in a folder of {namespace}'s own"
        folder = cache_folder(argo, namespace, config.scope, "").rstrip("/")
        who += "; users who may mount hostPath volumes can change it"
        return CheckResult("caches", True, f"{folder} on every node, {who}")
    if argo.cache == "none":
        return CheckResult("caches", True, "none: every job builds its environment")
    kinds = "python" if argo.restricted else "python, system"
    name = claim_name(config.scope, "python")
    return CheckResult(
        "caches", True, f"claims for {kinds}, such as {name}; the first job creates them"
    )


def _template(cluster: Cluster, scope: str) -> CheckResult:
    name = template_name(scope)
    try:
        path = resource_path(WORKFLOWS, cluster.namespace, "workflowtemplates", name)
        cluster.request("GET", path, accept=METADATA_ONE)
    except ApiError as error:
        if error.status == 403:
            return CheckResult("template", None, f"{name} (you may not read it)")
        if error.status != 404:
            raise
        hint = f"stoke setup argo --scope {scope} --apply; or ask an administrator to run it"
        return CheckResult("template", False, f"the namespace has no WorkflowTemplate {name}", hint)
    return CheckResult("template", True, f"{name}, which jobs of the scope {scope} refer to")


def _resource(right: Right) -> str:
    return f"{right.resource}.{right.group}" if right.group else right.resource
