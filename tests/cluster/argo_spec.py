"""The spec that the stand-in runs: a workflow's own, over that of the template it refers to."""

from __future__ import annotations

import re

from tests.cluster.api import Api, ApiError, Object
from tests.cluster.argo_tags import TemplateError
from tests.cluster.manifests import GROUP, VERSION
from tests.cluster.workflow_fields import REFERENCING, object_key

WORKFLOWS = f"/apis/{GROUP}/{VERSION}"


def check_references(api: Api, workflow: Object) -> None:
    """Refuse what the controller's ConfigMap in the workflow's namespace forbids."""
    path = f"/api/v1/namespaces/{object_key(workflow)[0]}/configmaps/workflow-controller-configmap"
    try:
        config = api.get(path).get("data", {}).get("config", "")
    except ApiError as error:
        if error.status == 404:
            return
        raise
    if not re.search(r"templateReferencing: *(Strict|Secure)", config):
        return
    spec = {name: value for name, value in workflow["spec"].items() if value}
    if "workflowTemplateRef" not in spec:
        raise TemplateError(
            "workflows must use workflowTemplateRef to be executed when the controller is in "
            "reference mode"
        )
    if others := sorted(name[0].upper() + name[1:] for name in spec.keys() - REFERENCING):
        raise TemplateError(
            f"fields [{' '.join(others)}] are not permitted when using workflowTemplateRef with "
            "templateReferencing restriction"
        )


def merged_spec(api: Api, workflow: Object) -> Object:
    """Return the workflow's own spec over that of the template it names."""
    own = {name: value for name, value in workflow["spec"].items() if value is not None}
    if not (ref := own.get("workflowTemplateRef")):
        return own
    path = f"{WORKFLOWS}/namespaces/{object_key(workflow)[0]}/workflowtemplates/{ref['name']}"
    try:
        template = api.get(path)
    except ApiError as error:
        if error.status == 404:
            raise TemplateError(error.message) from error
        raise
    spec: Object = {**template["spec"], **own}
    given = {one["name"]: one for one in own.get("arguments", {}).get("parameters", [])}
    for one in template["spec"].get("arguments", {}).get("parameters", []):
        given.setdefault(one["name"], one)
    spec["arguments"] = {"parameters": list(given.values())}
    return spec
