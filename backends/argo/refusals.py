"""Why a workflow is refused or has no pod: messages of the cluster, with the hint that fixes each."""

from __future__ import annotations

import re

from backends.argo.cluster import ApiError, Cluster
from backends.argo.diagnosis import ARGO_CONTAINERS, NO_DIAGNOSIS, RUN_AGAIN, Diagnosis
from backends.argo.status import MAIN, Object, one_line
from stoke.backend.api import Cause
from stoke.errors import EngineError

_LIMIT_RANGE = re.compile(
    r"(?P<end>maximum|minimum) (?P<what>\S+) usage per \w+ is (?P<most>[\w.]+)"
    r"(?:, but \w+ is|\. +No)"
)
GRANT = "have an administrator grant the right: stoke setup argo --apply"
_OPTIONS = {"cpu": "--cpu", "memory": "--memory"}
_ARGO_RESOURCES_HINT = (
    "give Argo's own containers resources: [argo.executor_resources] with requests and limits for cpu "
    "and memory in config.toml"
)


def _hint_limit_range(text: str) -> str | None:
    """Return a hint for a LimitRange that forbids what a container asks for."""
    found = _LIMIT_RANGE.search(text)
    if found is None or found["what"] not in _OPTIONS:
        return None
    option, most = _OPTIONS[found["what"]], found["most"]
    if ". " in found[0]:
        return f"set {option}; if that is set already, {_ARGO_RESOURCES_HINT}"
    if found["end"] == "maximum":
        return f"ask for at most {most}: {option}"
    return f"ask for at least {most}: {option}"


def _hint_unspecified(text: str) -> str | None:
    """Return a hint for a quota that requires resources, and names the containers that set none."""
    if not re.search(r"must specify (limits|requests)", text):
        return None
    lists = re.findall(r"(?:limits|requests)\.\w+(?: for: ([\w,.-]+))?", text)
    names = {name for one in lists for name in one.strip(",.").split(",") if name}
    job = "set the job's resources: --cpu 1 --memory 1g"
    if names.isdisjoint(ARGO_CONTAINERS):
        return job
    return f"{job}; and {_ARGO_RESOURCES_HINT}" if MAIN in names else _ARGO_RESOURCES_HINT


_QUOTA = re.compile(
    r"exceeded quota: (?P<quota>\S+), requested: (?P<requested>\S+), used: \S+, "
    r"limited: (?P<limited>\S+)"
)


def why_never(workflow: Object) -> Diagnosis | None:
    """Diagnose a job that can never fit into its quota, even if nothing else uses it."""
    found = _QUOTA.search(why_no_pod(workflow).text or "")
    if found is None:
        return None
    requested, limited = _amounts(found["requested"]), _amounts(found["limited"])
    for what, amount in requested.items():
        most = limited.get(what)
        # A limit of 0 is set to hold jobs back for a while.
        if most is not None and _number(amount) > _number(most) > 0:
            text = f"the quota {found['quota']} allows {what} of {most}, and the job needs {amount}"
            return Diagnosis(text, "ask for less: --cpu, --memory")
    return None


def _amounts(text: str) -> dict[str, str]:
    return dict(one.split("=", 1) for one in text.split(",") if "=" in one)


def _number(quantity: str) -> float:
    """Return a quantity of Kubernetes as a number; not a number if its form is not known, which
    compares as no more than anything, so that no job is given up for it."""
    found = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", quantity)
    if found is None or found[2] not in _SUFFIXES:
        return float("nan")
    return float(found[1]) * _SUFFIXES[found[2]]


_SUFFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0} | {
    f"{letter}{binary}": float((1024 if binary else 1000) ** power)
    for power, letter in enumerate("kMGTPE", 1)
    for binary in ("", "i")
} | {"Ki": 1024.0}  # fmt: skip


_BY_MESSAGE = (
    (r"exceeded quota", "wait for other jobs to end, or ask for less: --cpu, --memory"),
    (
        r"violates PodSecurity.*hostPath",
        "hostPath volumes are forbidden: set argo.cache to claim or none",
    ),
    (r"violates PodSecurity", "this namespace forbids root: set argo.restricted = true"),
    (
        r"serviceaccount .* not found",
        "create it: stoke setup argo --apply; or name another: argo.service_account",
    ),
    (r"persistentvolumeclaim .* not found", "create it: stoke setup argo --apply"),
    (
        r"workflowtaskresults",
        "grant the service account the right that Argo's containers need: "
        "stoke setup argo --apply",
    ),
    (r"pod deleted", f"its pod was deleted; {RUN_AGAIN}"),
    (
        r"must use workflowTemplateRef",
        "this cluster runs only workflows that refer to a template: set argo.by_template = true, then "
        "create the templates: stoke setup argo --apply",
    ),
    (
        r"workflowtemplates.* not found|no template named|template .* (not found|undefined)",
        "create the templates of this scope: stoke setup argo --scope SCOPE --apply",
    ),
    (
        r"admission webhook|ValidatingAdmissionPolicy",
        "set what this policy of the cluster asks for in [argo]: labels, annotations, "
        "executor_resources, read_only_root, restricted, image or pod_patch",
    ),
    (
        r"no PriorityClass with name",
        "choose one that the cluster has: kubectl get priorityclass; then set argo.priority_class",
    ),
)  # fmt: skip


def why_no_pod(workflow: Object) -> Diagnosis:
    """Diagnose why a workflow has no pod, from Argo's messages, which contain the cluster's
    refusals."""
    status = workflow.get("status") or {}
    said = [status.get("message"), *(
        node.get("message") for node in (status.get("nodes") or {}).values()
    )]  # fmt: skip
    text = next((one_line(one) for one in said if one), "")
    return diagnose(text) if text else NO_DIAGNOSIS


def diagnose(text: str) -> Diagnosis:
    """Return a message of the cluster with the hint that fixes it, if one is known."""
    own = _hint_limit_range(text) or _hint_unspecified(text)
    if own is not None:
        return Diagnosis(text, own)
    for pattern, hint in _BY_MESSAGE:
        if re.search(pattern, text, re.IGNORECASE):
            # Argo's own message for a pod that vanished.
            return Diagnosis(text, hint, Cause.POD_DELETED if pattern == "pod deleted" else None)
    return Diagnosis(text)


def refused_submission(error: ApiError, cluster: Cluster, job_id: str) -> EngineError:
    """Return the error for the user of a workflow that the API server did not create."""
    namespace = cluster.namespace
    if error.status == 409:
        return EngineError(
            f"another workflow is already called {job_id}",
            f"inspect it: {cluster.kubectl} get workflow {job_id} -n {namespace}",
        )
    if error.status == 404 and "namespace" in error.message:
        return EngineError(
            f"the cluster has no namespace {namespace}",
            "choose another: --namespace NAMESPACE; or create it: stoke setup argo --apply",
        )
    if error.status == 404:
        return EngineError(
            f"the cluster of the context {cluster.context_name} has no Argo Workflows",
            "choose another: --context CONTEXT; check the setup: stoke doctor",
        )
    if error.hint is None and error.message:
        return EngineError(error.what, diagnose(error.message).hint)
    return error


def refused_object(error: ApiError, kind: str, what: str, beside: str) -> EngineError:
    """Return the error for a user who may not write a ConfigMap or Secret that a job needs."""
    hint = GRANT
    if kind == "Secret":
        hint = f"refer to a secret of the cluster, --secret NAME=secret:NAME/KEY; or {GRANT}"
    text = f"{what} needs a {kind} beside its {beside}, which you may not write: {error.message}"
    return EngineError(text, hint)
