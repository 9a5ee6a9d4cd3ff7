"""The stand-in's reading of `{{...}}`: what Argo replaces in a template, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# A tag that begins so must be known, or the workflow is refused. Any other passes unchanged.
OWN_TAGS = ("item.", "steps.", "inputs.", "outputs.", "pod.", "workflow.", "tasks.")
# The one expression that is evaluated: JSON parsed and written again.
_PARSED = re.compile(r"=toJson\(fromJSON\((workflow\.parameters\.\w+)\)\)")
_TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


class TemplateError(Exception):
    """Says why in Argo's words, where it has any."""


def known(workflow: Mapping[str, Any], spec: Mapping[str, Any], pod: str) -> dict[str, str]:
    """The values of the tags of a workflow."""
    metadata = workflow["metadata"]
    tags = {
        "workflow.name": metadata["name"],
        "workflow.namespace": metadata["namespace"],
        "workflow.uid": metadata["uid"],
        "workflow.serviceAccountName": spec.get("serviceAccountName", ""),
        "workflow.mainEntrypoint": spec.get("entrypoint", ""),
        "workflow.creationTimestamp": metadata["creationTimestamp"],
        "pod.name": pod,
        "node.name": metadata["name"],
    }
    parameters = spec.get("arguments", {}).get("parameters", [])
    for parameter in parameters:
        tags[f"workflow.parameters.{parameter['name']}"] = str(parameter.get("value", ""))
    tags["workflow.parameters"] = json.dumps(parameters)
    for kind in ("labels", "annotations"):
        for name, value in (metadata.get(kind) or {}).items():
            tags[f"workflow.{kind}.{name}"] = value
    return tags


def substituted(name: str, template: Any, tags: Mapping[str, str]) -> Any:
    """`template` with its tags replaced, in all of its strings. `TemplateError` where
    one that Argo takes for its own is not known."""
    # In this form, and with the container last, what is not closed in its own string finds the end of
    # the object as its own, as it does in Argo.
    ordered = template
    if isinstance(template, dict):
        ordered = dict(sorted(template.items(), key=lambda one: one[0] in ("container", "script")))
    text = json.dumps(ordered, separators=(",", ":"))

    def replace(found: re.Match[str]) -> str:
        # The tag is read from JSON text, and its value is put back into it.
        try:
            tag = json.loads(f'"{found.group(1)}"').strip()
        except ValueError:
            tag = found.group(1).strip()
        if found_json := _PARSED.fullmatch(tag):
            tag = found_json[1]
            if tag not in tags:
                raise TemplateError(f"templates.{name}: failed to evaluate expression: {tag}")
            try:
                value = json.dumps(json.loads(tags[tag]))
            except ValueError as error:
                raise TemplateError(f"failed to evaluate expression: {error}") from error
            return json.dumps(value)[1:-1]
        if tag.startswith("="):
            raise TemplateError(f"templates.{name}: the stand-in evaluates no expressions: {tag}")
        if tag in tags:
            return json.dumps(tags[tag])[1:-1]
        if tag.startswith(OWN_TAGS):
            raise TemplateError(f"templates.{name}: failed to resolve {{{{{tag}}}}}")
        return found.group(0)

    return json.loads(_TAG.sub(replace, text))
