"""Jobs by reference: WorkflowTemplates, for clusters that reject workflows with their own template.

A controller with `templateReferencing: Strict` or `Secure` lets a workflow only choose a template
and pass arguments. So `stoke setup argo` creates one WorkflowTemplate a scope, with a template for
each combination of caches and of ways to carry a long bundle; jobs pass the rest as parameters.
These are base64, numbers and one piece of JSON: Argo replaces each tag once and does not look again
at what it inserted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from backends.argo import bundle
from backends.argo.names import cache_labels

KIND = "WorkflowTemplate"
# The first word of a template's name: the caches that a job uses, and whether it has system
# packages, for which it needs a /nix of its own if that is no cache.
USES: dict[str, tuple[tuple[str, ...], bool]] = {
    "uncached": ((), False),
    "uncached-system": ((), True),
    "python": (("python",), False),
    "system": (("python", "system"), True),
}
CARRIERS: dict[str, str | None] = {"inline": None, "configmap": "ConfigMap", "secret": "Secret"}
# A parameter cannot remove the deadline; this one is beyond the longest timeout.
NO_DEADLINE = 400 * 86400
# Parsed and printed again, so that the parameter can only be JSON.
LIMITS = "{{=toJson(fromJSON(workflow.parameters.limits))}}"
REQUESTS = "{{=toJson(fromJSON(workflow.parameters.requests))}}"
# Fields of a workflow that differ between templates, and fields that every job brings.
OWN = ("volumes", "nodeSelector", "affinity", "synchronization")
BROUGHT = ("ttlStrategy", "podGC")
PARAMETERS = {
    "bundle": "",
    "spec": "",
    "limits": "{}",
    "requests": "{}",
    "deadline": str(NO_DEADLINE),
    "node": "",
}


def template_name(scope: str) -> str:
    return f"stoke-{scope}"


def entrypoint(
    caches: tuple[str, ...], system: bool, carrier: str | None, secrets: bool = False
) -> str:
    """Return the template for a job with these caches and this bundle object, and for named secrets."""
    name = next(name for name, *one in combinations() if one == [caches, system, carrier])
    return with_secrets(name) if secrets else name


def with_secrets(template: str) -> str:
    """Return the name of the variant of a template that provides the secrets which jobs may name."""
    return f"{template}-secrets"


def secret_variable(reference: str) -> str:
    """Return the variable for a secret in such a template: NAME/KEY in characters that variables
    allow."""
    return f"{bundle.SECRET_PREFIX}{reference.encode().hex()}"


def housekeeping_template(kind: str) -> str:
    return f"housekeeping-{kind}"


def combinations() -> Iterator[tuple[str, tuple[str, ...], bool, str | None]]:
    """Give every job template: name, caches, whether it has system packages, and the bundle object's
    kind."""
    for use, (caches, system) in USES.items():
        for how, carrier in CARRIERS.items():
            yield f"{use}-{how}", caches, system, carrier


def tag(parameter: str) -> str:
    return f"{{{{workflow.parameters.{parameter}}}}}"


def as_template(workflow: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the single template of a workflow whose values are tags, including the workflow's own
    fields."""
    spec = workflow["spec"]
    (template,) = spec["templates"]
    own = {field: spec[field] for field in OWN if field in spec}
    resources = {"limits": "LIMITS", "requests": "REQUESTS"}
    patch = json.dumps({"containers": [{"name": "main", "resources": resources}]})
    return {
        **template,
        **own,
        "name": name,
        "activeDeadlineSeconds": tag("deadline"),
        "podSpecPatch": patch.replace('"LIMITS"', LIMITS).replace('"REQUESTS"', REQUESTS),
    }


def as_workflow_template(
    scope: str, workflow: Mapping[str, Any], templates: list[dict[str, Any]], image: str
) -> dict[str, Any]:
    """Return the WorkflowTemplate. `workflow` gives the fields that all templates share."""
    apart = ("templates", "entrypoint", "arguments", *OWN, *BROUGHT)
    shared = {name: value for name, value in workflow["spec"].items() if name not in apart}
    parameters = {"image": image, **PARAMETERS}
    return {
        "apiVersion": workflow["apiVersion"],
        "kind": KIND,
        "metadata": {"name": template_name(scope), "labels": cache_labels(scope, "template")},
        "spec": {
            **shared,
            "entrypoint": templates[0]["name"],
            "arguments": {
                "parameters": [{"name": name, "value": one} for name, one in parameters.items()]
            },
            "templates": templates,
        },
    }


def by_reference(
    scope: str, workflow: Mapping[str, Any], template: str, node: str | None = None
) -> dict[str, Any]:
    """Return the workflow as a reference to a template of its scope, with arguments.

    `node` is where housekeeping must run, and where a job prefers to run.
    """
    (own,) = workflow["spec"]["templates"]
    container = own["container"]
    variables = {one["name"]: one.get("value", "") for one in container.get("env", ())}
    resources = container.get("resources") or {}
    given = {
        "image": container["image"],
        "bundle": variables.get(bundle.VARIABLE, ""),
        "spec": variables.get(bundle.SPEC_VARIABLE, ""),
        "limits": json.dumps(resources.get("limits") or {}),
        "requests": json.dumps(resources.get("requests") or {}),
        "deadline": str(own.get("activeDeadlineSeconds") or NO_DEADLINE),
        "node": node or "",
    }
    return {
        "apiVersion": workflow["apiVersion"],
        "kind": workflow["kind"],
        "metadata": workflow["metadata"],
        "spec": {
            "workflowTemplateRef": {"name": template_name(scope)},
            **{field: workflow["spec"][field] for field in BROUGHT},
            "entrypoint": template,
            "arguments": {
                "parameters": [
                    {"name": name, "value": value}
                    for name, value in given.items()
                    if value != PARAMETERS.get(name)
                ]
            },
        },
    }


def spec_of(workflow: Mapping[str, Any]) -> str:
    """Return the packed public spec of either kind of workflow. Raises `LookupError` if it has none."""
    spec = workflow["spec"]
    if "workflowTemplateRef" in spec:
        values = {one["name"]: one["value"] for one in spec["arguments"]["parameters"]}
        return str(values["spec"])
    variables = {one["name"]: one.get("value") for one in spec["templates"][0]["container"]["env"]}
    return str(variables[bundle.SPEC_VARIABLE])
