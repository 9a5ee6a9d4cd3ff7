"""What `[argo]`, its profiles and a request say of a pod is in the pod."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from backends.argo.setup import _in
from backends.argo.workflow import make_housekeeping, make_job, make_templates
from stoke.backend.api import Volume
from stoke.config.loader import load_config
from stoke.config.model import ArgoConfig, Config
from tests.backends.argo.deliveries import delivery
from tests.cluster.argo_pod import entry_template, make_pod
from tests.hints import filled, refused

VOLUME = Volume("argo", "team", "python", "/var/lib/stoke/namespaces/jobs/team/python", "node-a")


def pod_for(argo: dict[str, Any], nodes: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    """Return the pod that Argo makes for a job; `_workflow` in it is the Workflow."""
    config = Config(argo=ArgoConfig.model_validate(argo))
    workflow = make_job(delivery("print(1)", **fields), config, nodes).workflow
    about = {"namespace": "jobs", "uid": "1", "creationTimestamp": "now"}
    there = {**workflow, "metadata": {**workflow["metadata"], **about}}
    pod = make_pod(there, workflow["spec"], entry_template(there, workflow["spec"]))
    return {**pod, "_workflow": workflow}


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    spec = pod["spec"]
    found: dict[str, Any] = next(
        one for one in (*spec["containers"], *spec["initContainers"]) if one["name"] == name
    )
    return found


def test_labels_and_annotations_are_on_the_workflow_and_its_pod() -> None:
    argo = {"labels": {"team": "vision", "cost": "1"}, "annotations": {"a.io/inject": "false"}}
    pod = pod_for(argo, labels={"cost": "2"}, annotations={"why": "a b"})
    for one in (pod, pod["_workflow"]):
        assert one["metadata"]["labels"]["team"] == "vision"
        assert one["metadata"]["labels"]["cost"] == "2"
        assert one["metadata"]["annotations"]["a.io/inject"] == "false"
        assert one["metadata"]["annotations"]["why"] == "a b"
    assert pod["_workflow"]["metadata"]["labels"]["stoke.managed"] == "true"


def test_housekeeping_and_setup_have_the_configured_labels_too() -> None:
    argo = ArgoConfig(labels={"team": "vision"}, annotations={"why": "x"})
    workflow = make_housekeeping("keep", VOLUME, {"do": "usage"}, Config(argo=argo), "python:3.13")
    assert workflow["metadata"]["labels"]["team"] == "vision"
    assert workflow["spec"]["podMetadata"]["labels"] == {"team": "vision"}
    made = _in("jobs", {"kind": "Role", "metadata": {"name": "r"}}, argo)
    assert made["metadata"]["labels"] == {"team": "vision", "stoke.managed": "true"}
    assert made["metadata"]["annotations"] == {"why": "x"}


def test_requests_are_apart_from_limits() -> None:
    pod = pod_for({}, cpu=4, cpu_request=1, memory="4g", memory_request="1g")
    assert container(pod, "main")["resources"] == {
        "limits": {"cpu": "4000m", "memory": str(4 << 30)},
        "requests": {"cpu": "1000m", "memory": str(1 << 30)},
    }
    assert container(pod_for({}, cpu_request=1), "main")["resources"] == {
        "requests": {"cpu": "1000m"}
    }


def test_argos_own_containers_have_the_configured_resources() -> None:
    resources = {"requests": {"cpu": "50m"}, "limits": {"cpu": "0.5", "memory": "128Mi"}}
    pod = pod_for({"executor_resources": resources, "restricted": True})
    for name in ("init", "wait"):
        assert container(pod, name)["resources"] == resources
        assert container(pod, name)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "resources" not in container(pod, "main")


def test_a_gpu_is_a_limit_with_the_toleration_of_its_nodes() -> None:
    pod = pod_for({}, gpu=2)
    assert container(pod, "main")["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert pod["spec"]["tolerations"] == [taint]
    own = {"key": "amd.com/gpu", "operator": "Equal", "value": "a"}
    pod = pod_for({"gpu_resource": "amd.com/gpu", "tolerations": [own]}, gpu=1)
    assert container(pod, "main")["resources"]["limits"] == {"amd.com/gpu": "1"}
    assert pod["spec"]["tolerations"] == [own]


def test_queues_and_priorities() -> None:
    pod = pod_for(
        {
            "queue": "team-queue",
            "priority_class": "low",
            "priority": 7,
            "mutexes": ["one-at-a-time"],
            "semaphores": ["limits/gpu"],
            "instance_id": "team",
            "cache": "shared-claim",
        }
    )
    spec = pod["_workflow"]["spec"]
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-queue"
    assert (spec["podPriorityClassName"], spec["priority"]) == ("low", 7)
    assert spec["synchronization"] == {
        "mutexes": [{"name": "one-at-a-time"}, {"name": "stoke-default"}],
        "semaphores": [{"configMapKeyRef": {"name": "limits", "key": "gpu"}}],
    }
    labels = pod["_workflow"]["metadata"]["labels"]
    assert labels["workflows.argoproj.io/controller-instanceid"] == "team"


def test_settings_of_the_pod() -> None:
    aliases = [{"ip": "10.0.0.1", "hostnames": ["index.example"]}]
    spread = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]
    required: dict[str, Any] = {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}
    }
    settings = {
        "runtime_class": "gvisor",
        "host_aliases": aliases,
        "topology_spread": spread,
        "dns_policy": "None",
        "dns_config": {"nameservers": ["10.0.0.2"]},
        "affinity": {"nodeAffinity": required},
        "image_pull_policy": "Always",
    }
    pod = pod_for(settings, nodes=("node-a",), dependencies=["six"])
    spec = pod["spec"]
    assert spec["runtimeClassName"] == "gvisor"
    assert (spec["hostAliases"], spec["topologySpreadConstraints"]) == (aliases, spread)
    assert (spec["dnsPolicy"], spec["dnsConfig"]) == ("None", {"nameservers": ["10.0.0.2"]})
    assert container(pod, "main")["imagePullPolicy"] == "Always"
    # The preference for a warm node is beside what is required.
    affinity = spec["affinity"]["nodeAffinity"]
    assert affinity["requiredDuringSchedulingIgnoredDuringExecution"] == {"nodeSelectorTerms": []}
    (preferred,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["preference"]["matchExpressions"][0]["values"] == ["node-a"]


def test_the_code_finds_no_token_unless_it_is_wanted() -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    mounts = container(pod_for({}), "main")["volumeMounts"]
    assert {"name": "no-token", "mountPath": folder} in mounts
    mounts = container(pod_for({"mount_token": True}), "main")["volumeMounts"]
    assert folder not in [one["mountPath"] for one in mounts]


def test_a_patch_changes_what_has_no_setting() -> None:
    patch = {
        "schedulerName": "batch",
        "containers": [
            {"name": "main", "resources": {"limits": {"example.com/fpga": "1"}}},
            {"name": "wait", "securityContext": {"runAsUser": 7}},
        ],
    }
    pod = pod_for({"pod_patch": patch, "restricted": True}, memory="1g")
    assert pod["spec"]["schedulerName"] == "batch"
    limits = container(pod, "main")["resources"]["limits"]
    assert limits == {"memory": str(1 << 30), "example.com/fpga": "1"}
    security = container(pod, "wait")["securityContext"]
    assert security["runAsUser"] == 7 and security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    "patch",
    [
        {"volumes": []},
        {"restartPolicy": "Always"},
        {"terminationGracePeriodSeconds": 0},
        {"containers": [{"name": "main", "command": ["sh"]}]},
        {"containers": [{"name": "main", "volumeMounts": []}]},
        {"containers": [{"name": "main", "env": []}]},
        {"containers": [{"name": "sidecar"}]},
        {"containers": [{}]},
        {"containers": "main"},
        {"initContainers": [{"name": "main"}]},
    ],
)
def test_a_patch_that_would_break_a_job_is_refused(patch: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"pod_patch"):
        ArgoConfig.model_validate({"pod_patch": patch})


PROFILES: dict[str, Any] = {
    "labels": {"team": "vision"},
    "node_selector": {"pool": "batch"},
    "image": "team/python:1",
    "profiles": {
        "gpu": {"node_selector": {"accelerator": "a100"}, "image": "team/cuda:1", "queue": "gpus"}
    },
}


def test_a_profile_is_added_to_the_settings_of_all_jobs() -> None:
    pod = pod_for(PROFILES, profile="gpu")
    assert pod["spec"]["nodeSelector"] == {"pool": "batch", "accelerator": "a100"}
    assert container(pod, "main")["image"] == "team/cuda:1"
    labels = {"team": "vision", "kueue.x-k8s.io/queue-name": "gpus"}
    assert labels.items() <= pod["metadata"]["labels"].items()
    assert container(pod_for(PROFILES), "main")["image"] == "team/python:1"
    assert container(pod_for(PROFILES, profile="gpu", image="own"), "main")["image"] == "own"


def test_an_unknown_profile_is_refused_with_those_that_there_are(own_home: Path) -> None:
    said = refused(lambda: pod_for(PROFILES, profile="gpx"), "did you mean --profile {}?")
    (name,) = filled(said, "did you mean --profile {}?")
    assert pod_for(PROFILES, profile=name)
    (name,) = filled(
        refused(lambda: pod_for(PROFILES, profile="z"), "choose one of: {}"), "choose one of: {}"
    )
    assert pod_for(PROFILES, profile=name)
    template = "write the table [argo.profiles.{}] into {}"
    name, file = filled(refused(lambda: pod_for({}, profile="z"), template), template)
    Path(file).write_text(f"[argo.profiles.{name}]\n")
    assert load_config().argo.with_profile("z")


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({"profile": "gpu"}, {"queue": "gpus"}),
        ({"labels": {"a": "b"}}, {"labels": {"a": "b"}}),
        ({"annotations": {"a": "b"}}, {"annotations": {"a": "b"}}),
    ],
)
def test_a_job_by_reference_has_the_settings_of_its_template(
    fields: dict[str, Any], settings: dict[str, Any]
) -> None:
    template = (
        "leave it out, or have the template changed: set it for all jobs in [argo], then "
        "stoke setup argo --apply"
    )
    argo = {**PROFILES, "by_template": True}
    refused(lambda: pod_for(argo, **fields), template)
    for_all = Config(argo=ArgoConfig.model_validate({"by_template": True, **settings}))
    metadata = make_templates("team", for_all)["spec"]["podMetadata"]
    for name in ("labels", "annotations"):
        assert settings.get(name, {}).items() <= metadata.get(name, {}).items()


def test_only_what_is_set_is_in_the_manifest() -> None:
    workflow = pod_for({})["_workflow"]
    assert json.loads(workflow["spec"]["podSpecPatch"]) == {"terminationGracePeriodSeconds": 10}
    absent = {"podMetadata", "priority", "podPriorityClassName", "synchronization", "affinity"}
    assert not absent & workflow["spec"].keys()
    assert "annotations" not in workflow["metadata"]
