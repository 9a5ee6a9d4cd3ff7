"""Jobs by reference: WorkflowTemplates, for clusters that run no workflow that brings its own.

A controller with `templateReferencing: Strict` or `Secure` lets a workflow choose among templates and
give arguments, and no more. So whoever prepares the namespace makes a WorkflowTemplate a scope, with a
template for each combination of caches and of ways to carry what is long; jobs bring the rest as
parameters. These are base64, numbers and one piece of JSON: Argo replaces each tag once, and what it
puts in is not looked at again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from backends.argo import bundle
from backends.argo.names import cache_labels

KIND = "WorkflowTemplate"
# What a job uses, as the first word of its template's name: the caches, and whether it has system
# packages, for which it needs a /nix of its own where that is no cache.
USES: dict[str, tuple[tuple[str, ...], bool]] = {
    "uncached": ((), False),
    "uncached-system": ((), True),
    "python": (("python",), False),
    "system": (("python", "system"), True),
}
CARRIERS: dict[str, str | None] = {"inline": None, "configmap": "ConfigMap", "secret": "Secret"}
# No deadline at all cannot be said by a parameter; this one is beyond the longest timeout.
NO_DEADLINE = 400 * 86400
# Parsed and written again, so that whatever stands in the parameter stays in its place.
LIMITS = "{{=toJson(fromJSON(workflow.parameters.limits))}}"
# Of a workflow's own fields, what differs from template to template, and what every job brings.
OWN = ("volumes", "nodeSelector", "affinity", "synchronization")
BROUGHT = ("ttlStrategy", "podGC")
PARAMETERS = {"bundle": "", "spec": "", "limits": "{}", "deadline": str(NO_DEADLINE), "node": ""}


def template_name(scope: str) -> str:
    return f"stoke-{scope}"


def entrypoint(
    caches: tuple[str, ...], system: bool, carrier: str | None, secrets: bool = False
) -> str:
    """The template for a job that uses these caches, is carried so, and may name secrets."""
    name = next(name for name, *one in combinations() if one == [caches, system, carrier])
    return with_secrets(name) if secrets else name


def with_secrets(template: str) -> str:
    """What the template is called that differs in giving the secrets which jobs may name."""
    return f"{template}-secrets"


def secret_variable(reference: str) -> str:
    """Where such a template puts a secret: NAME/KEY in letters that variables may have."""
    return f"{bundle.SECRET_PREFIX}{reference.encode().hex()}"


def housekeeping_template(kind: str) -> str:
    return f"housekeeping-{kind}"


def combinations() -> Iterator[tuple[str, tuple[str, ...], bool, str | None]]:
    """Every template of a job: its name, the caches, whether it has system packages, the carrier."""
    for use, (caches, system) in USES.items():
        for how, carrier in CARRIERS.items():
            yield f"{use}-{how}", caches, system, carrier


def tag(parameter: str) -> str:
    return f"{{{{workflow.parameters.{parameter}}}}}"


def as_template(workflow: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The one template of a workflow whose values are tags, with everything that is its own."""
    spec = workflow["spec"]
    (template,) = spec["templates"]
    own = {field: spec[field] for field in OWN if field in spec}
    limits = {"containers": [{"name": "main", "resources": {"limits": "LIMITS"}}]}
    return {
        **template,
        **own,
        "name": name,
        "activeDeadlineSeconds": tag("deadline"),
        "podSpecPatch": json.dumps(limits).replace('"LIMITS"', LIMITS),
    }


def as_workflow_template(
    scope: str, workflow: Mapping[str, Any], templates: list[dict[str, Any]], image: str
) -> dict[str, Any]:
    """`workflow` gives what is said once for all templates."""
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
    """The same workflow, as a choice among the templates of its scope and arguments for it. `node` is
    where housekeeping has to run, and a job had better."""
    (own,) = workflow["spec"]["templates"]
    container = own["container"]
    variables = {one["name"]: one.get("value", "") for one in container.get("env", ())}
    given = {
        "image": container["image"],
        "bundle": variables.get(bundle.VARIABLE, ""),
        "spec": variables.get(bundle.SPEC_VARIABLE, ""),
        "limits": json.dumps((container.get("resources") or {}).get("limits") or {}),
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
    """The packed public spec of a workflow of either kind; `LookupError` where there is none."""
    spec = workflow["spec"]
    if "workflowTemplateRef" in spec:
        values = {one["name"]: one["value"] for one in spec["arguments"]["parameters"]}
        return str(values["spec"])
    variables = {one["name"]: one.get("value") for one in spec["templates"][0]["container"]["env"]}
    return str(variables[bundle.SPEC_VARIABLE])
