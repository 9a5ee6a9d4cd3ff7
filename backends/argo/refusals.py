"""Why a workflow has no pod: messages of the cluster, with the hint that fixes each."""

from __future__ import annotations

import re

from backends.argo.diagnosis import ARGO_CONTAINERS, NO_DIAGNOSIS, RUN_AGAIN, Diagnosis
from backends.argo.status import MAIN, Object, one_line

_LIMIT_RANGE = re.compile(
    r"(?P<end>maximum|minimum) (?P<what>\S+) usage per \w+ is (?P<most>[\w.]+)"
    r"(?:, but \w+ is|\. +No)"
)
_OPTIONS = {"cpu": "--cpu", "memory": "--memory"}
_ARGO_RESOURCES_HINT = (
    "Argo's own containers need resources: ask Argo's administrator to set executor.resources in its "
    "configuration, or make a LimitRange with defaults in this namespace"
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
    (r"admission webhook", "a policy of the cluster forbids it; ask its administrator"),
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
            return Diagnosis(text, hint)
    return Diagnosis(text)
