"""Jobs by reference to a WorkflowTemplate: what the job brings, and what the template has for it."""

from __future__ import annotations

import json
import random
import re
from itertools import product
from typing import Any

import pytest

from backends.argo import templates
from backends.argo.bundle import MAX_INLINE, unpack_spec
from backends.argo.templates import secret_variable
from backends.argo.workflow import make_housekeeping, make_job, make_templates
from stoke.backend.api import Volume
from stoke.config.model import ArgoConfig, Config
from stoke.errors import RequestError
from tests.backends.argo.deliveries import delivery
from tests.cluster.argo_pod import entry_template, make_pod
from tests.cluster.workflow_fields import REFERENCING

CONFIG = Config(argo=ArgoConfig(by_template=True))
TAG = re.compile(r"\{\{.*?\}\}")


def given(workflow: dict[str, Any]) -> dict[str, str]:
    parameters = workflow["spec"]["arguments"]["parameters"]
    return {one["name"]: one["value"] for one in parameters}


def pod_of(workflow: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """As the stand-in makes it from both."""
    about = {"namespace": "jobs", "uid": "1", "creationTimestamp": "now"}
    there = {**workflow, "metadata": {**workflow["metadata"], **about}}
    parameters = {one["name"]: one for one in template["spec"]["arguments"]["parameters"]}
    parameters |= {one["name"]: one for one in workflow["spec"]["arguments"]["parameters"]}
    spec = {**template["spec"], **workflow["spec"]}
    spec["arguments"] = {"parameters": list(parameters.values())}
    return make_pod(there, spec, entry_template(there, spec))


@pytest.mark.parametrize(
    ("system", "use_cache", "long", "secret", "cache"),
    list(product(*([(False, True)] * 4), ("hostpath", "shared-claim"))),
)
def test_a_job_by_reference_has_the_pod_that_it_has_without(
    system: bool, use_cache: bool, long: bool, secret: bool, cache: Any
) -> None:
    code = "print('{{workflow.name}} $(HOME)')"
    code += f"\n# {random.Random(7).randbytes(100_000).hex()}" if long else ""
    job = delivery(
        code,
        system=["jq"] if system else [],
        use_cache=use_cache,
        memory="1g",
        cpu=0.5,
        cpu_request=0.25,
        timeout=60,
        secrets={"TOKEN": "secret:api/token.1"} if secret else {},
    )
    settings = ArgoConfig(
        cache=cache, node_selector={"pool": "batch"}, template_secrets=("api/token.1",)
    )
    alone = Config(argo=settings)
    nodes = ("node-a",) if use_cache and cache == "hostpath" else ()
    referring = alone.model_copy(
        update={"argo": alone.argo.model_copy(update={"by_template": True})}
    )
    whole, short = make_job(job, alone, nodes), make_job(job, referring, nodes)
    assert ("bundle" in given(short.workflow)) == (short.bundle_object is None) == (not long)
    template = make_templates(job.spec.scope, referring)
    about = {"namespace": "jobs", "uid": "1", "creationTimestamp": "now"}
    there = {**whole.workflow, "metadata": {**whole.workflow["metadata"], **about}}
    expected = make_pod(
        there, whole.workflow["spec"], entry_template(there, whole.workflow["spec"])
    )
    made = pod_of(short.workflow, template)
    for pod in (expected, made):
        main = pod["spec"]["containers"][1]
        # The order of the list and empty variables do not matter. The bundle itself names the variable
        # that holds a secret.
        comes_in = ("STOKE_BUNDLE", "STOKE_SECRET_TOKEN", secret_variable("api/token.1"))
        main["env"] = [
            {**one, "name": "*", "value": ""} if one["name"] in comes_in else one
            for one in sorted(main["env"], key=lambda one: str(one["name"]))
            if one.get("value") or one.get("valueFrom")
        ]
        pod["spec"]["volumes"].sort(key=lambda one: one["name"])
        for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"][:1]):
            container.pop("env")  # Argo tells its own containers of the template.
    assert made == expected


def test_a_job_by_reference_has_only_allowed_fields() -> None:
    job = delivery("print(1)", memory="1g", dependencies=["numpy"])
    made = make_job(job, CONFIG, nodes=("node-a",))
    assert made.workflow["spec"].keys() <= REFERENCING
    values = given(made.workflow)
    assert json.loads(values["limits"]) == {"memory": str(1024**3)}
    assert "{{" not in json.dumps(made.workflow)
    assert len(values["bundle"]) <= MAX_INLINE
    assert unpack_spec(templates.spec_of(made.workflow)) == job.public_spec


def test_housekeeping_refers_to_a_template_too() -> None:
    volume = Volume(
        "argo", "team", "python", "/var/lib/stoke/namespaces/jobs/team/python", "node-a"
    )
    workflow = make_housekeeping("keep", volume, {"do": "usage"}, CONFIG, "python:3.13")
    assert workflow["spec"].keys() <= REFERENCING
    pod = pod_of(workflow, make_templates("team", CONFIG))
    assert pod["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "node-a"}
    assert pod["spec"]["activeDeadlineSeconds"] == 3600


def test_by_reference_only_such_secrets_can_be_named_as_the_template_gives() -> None:
    job = delivery("print(1)", secrets={"TOKEN": "secret:api/token"})
    for allowed in ((), ("api/other", "other/token")):
        argo = ArgoConfig(by_template=True, template_secrets=allowed)
        with pytest.raises(RequestError, match=r"api/token is not among argo\.template_secrets"):
            make_job(job, Config(argo=argo))
    argo = ArgoConfig(by_template=True, template_secrets=("api/token",))
    made = make_job(job, Config(argo=argo)).workflow
    assert made["spec"].keys() <= REFERENCING
    assert "token" not in json.dumps(made["spec"])


def test_a_job_that_names_no_secret_is_given_none() -> None:
    argo = ArgoConfig(by_template=True, template_secrets=("api/token",))
    for template in make_templates("team", Config(argo=argo))["spec"]["templates"]:
        given = [one["name"] for one in template["container"]["env"] if "valueFrom" in one]
        expected = [secret_variable("api/token")] if template["name"].endswith("-secrets") else []
        assert given == expected


def test_tags_of_a_template_are_only_in_safe_places() -> None:
    """A parameter inside a patch of the pod could otherwise close it and begin another."""
    for template in make_templates("team", CONFIG)["spec"]["templates"]:
        assert TAG.findall(template["podSpecPatch"]) == [templates.LIMITS, templates.REQUESTS]


def test_templates_of_restricted_namespaces_have_no_system_packages() -> None:
    config = Config(argo=ArgoConfig(by_template=True, restricted=True, cache="claim"))
    made = make_templates("team", config)
    assert [one["name"] for one in made["spec"]["templates"] if "system-" in one["name"]] == []
    assert made["spec"]["securityContext"]["runAsNonRoot"] is True
