"""Policies of a namespace, judged by a real API server: a job is refused with words that help, and
passes with the right settings.

The rules are what Gatekeeper's and Kyverno's libraries demand most, written as
ValidatingAdmissionPolicies (https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from backends.argo.cluster import ApiError, Cluster, resource_path
from tests.cli.conftest import Stoke, only_job
from tests.cluster.manifests import GROUP, _rights
from tests.conftest import TestCluster
from tests.lab import until

pytestmark = pytest.mark.cluster

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
BOTH = {"requests": {"cpu": "10m"}, "limits": {"memory": "32Mi"}}
SMALL = {"cpu": "10m", "memory": "32Mi"}
EACH = "(has(object.spec.initContainers) ? object.spec.initContainers : [])"
ALL_CONTAINERS = f"(object.spec.containers + {EACH})"


@dataclass(frozen=True)
class Namespace:
    api: Cluster
    name: str
    env: dict[str, str]

    def demand(self, expression: str, message: str) -> None:
        """Refuse pods of this namespace that do not match a CEL expression, from now on."""
        name = self.name
        policy = {
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "operations": ["CREATE"],
                            "resources": ["pods"],
                        }
                    ]
                },
                "validations": [{"expression": expression, "message": message}],
            },
        }
        selector = {"matchLabels": {"kubernetes.io/metadata.name": name}}
        binding = {
            "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": selector},
            },
        }
        self.api.request("POST", f"{ADMISSION}/validatingadmissionpolicies", body=policy)
        self.api.request("POST", f"{ADMISSION}/validatingadmissionpolicybindings", body=binding)
        # It counts once the API server has compiled it.
        until(self._refuses_a_bare_pod, "the policy")

    def _refuses_a_bare_pod(self) -> bool:
        container = {"name": "main", "image": "registry.example/none"}
        volumes = [{"name": "root", "hostPath": {"path": "/"}}]
        body = {
            "metadata": {"name": "bare"},
            "spec": {"containers": [container], "volumes": volumes},
        }
        path = resource_path("v1", self.name, "pods")
        try:
            self.api.request("POST", path, body=body, query={"dryRun": "All"})
        except ApiError as error:
            return "ValidatingAdmissionPolicy" in error.message
        return False


@pytest.fixture
def namespace(real_cluster: TestCluster, scope: str) -> Iterator[Namespace]:
    """A new one, in which jobs can run."""
    api = real_cluster.connect()
    name = f"stoke-test-{secrets.token_hex(4)}"
    api.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    account = {"kind": "ServiceAccount", "name": "default", "namespace": name}
    rules = [(GROUP, ["workflowtaskresults"], ["create", "patch"])]
    for path, one in _rights(name, "executor", account, rules):
        api.request("POST", path, body=one)
    yield Namespace(api, name, {"STOKE_ARGO__NAMESPACE": name, "STOKE_ARGO__CACHE": "none"})
    for kind in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
        try:
            api.request("DELETE", f"{ADMISSION}/{kind}/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
    api.request("DELETE", f"/api/v1/namespaces/{name}")
    api.close()


def settings(argo: dict[str, Any]) -> dict[str, str]:
    return {
        f"STOKE_ARGO__{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in argo.items()
    }


RULES: dict[str, tuple[str, str, dict[str, Any], list[str]]] = {
    "labels": (
        "has(object.metadata.labels) && 'team' in object.metadata.labels",
        "every pod needs the label team",
        {"labels": {"team": "vision"}},
        [],
    ),
    "resources": (
        f"{ALL_CONTAINERS}.all(c, has(c.resources) && has(c.resources.requests) && "
        "'cpu' in c.resources.requests && has(c.resources.limits) && 'memory' in c.resources.limits)",
        "every container needs requests and limits",
        {"executor_resources": {"requests": SMALL, "limits": SMALL}},
        ["--cpu-request", "0.1", "--memory", "256m"],
    ),
    "read-only root": (
        f"{ALL_CONTAINERS}.all(c, has(c.securityContext) && "
        "has(c.securityContext.readOnlyRootFilesystem) && c.securityContext.readOnlyRootFilesystem)",
        "root file systems have to be read-only",
        {"read_only_root": True},
        [],
    ),
    "non-root": (
        "has(object.spec.securityContext) && has(object.spec.securityContext.runAsNonRoot) && "
        "object.spec.securityContext.runAsNonRoot",
        "nothing runs as root",
        {"restricted": True},
        [],
    ),
    "priority": (
        "has(object.spec.priorityClassName) && object.spec.priorityClassName == "
        "'system-cluster-critical' || has(object.spec.runtimeClassName)",
        "a pod needs a priority class",
        {"pod_patch": {"enableServiceLinks": False, "priorityClassName": "system-cluster-critical"}},
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_a_job_is_refused_in_the_policys_words_and_passes_with_the_right_settings(
    stoke: Stoke, namespace: Namespace, rule: str
) -> None:
    expression, message, argo, options = RULES[rule]
    namespace.demand(expression, message)
    code = "import tempfile; tempfile.TemporaryFile(); print('ran')"
    refused = stoke("run", "-q", "-c", code, env=namespace.env)
    assert refused.returncode == 125, refused.stderr
    assert message.encode() in refused.stderr
    assert b"set what this policy of the cluster asks for" in refused.stderr
    env = {**namespace.env, **settings(argo)}
    done = stoke("run", "-q", *options, "-c", code, env=env)
    assert (done.returncode, done.stdout) == (0, b"ran\n"), done.stderr


@pytest.mark.parametrize("rule", RULES)
def test_doctor_asks_the_policies_for_each_profile(
    stoke: Stoke, namespace: Namespace, rule: str
) -> None:
    expression, message, argo, options = RULES[rule]
    if options:
        argo = {**argo, "pod_patch": {"containers": [{"name": "main", "resources": BOTH}]}}
    namespace.demand(expression, message)
    base = {name: value for name, value in argo.items() if name == "restricted"}
    profile = {name: value for name, value in argo.items() if name not in base}
    env = {**namespace.env, **settings({"profiles": {"right": profile}})}

    def policies(*words: str, **more: str) -> dict[str, Any]:
        document = json.loads(stoke("doctor", "--json", *words, env={**env, **more}).stdout)
        found = document["backends"]["argo"]
        return next(one for one in found if one["what"] == "policies")

    assert policies()["works"] is False
    assert message in policies()["detail"]
    assert policies("--profile", "right", **settings(base))["works"] is True


def test_no_host_path_is_demanded_and_a_claim_passes(stoke: Stoke, namespace: Namespace) -> None:
    volumes = "(has(object.spec.volumes) ? object.spec.volumes : [])"
    namespace.demand(f"{volumes}.all(v, !has(v.hostPath))", "no hostPath here")
    env = {**namespace.env, "STOKE_ARGO__CACHE": "hostpath"}
    refused = stoke("run", "-q", "-c", "1", env=env)
    assert refused.returncode == 125 and b"no hostPath here" in refused.stderr
    done = stoke("run", "-q", "-c", "print('ran')", env=namespace.env)
    assert (done.returncode, done.stdout) == (0, b"ran\n"), done.stderr


def test_a_quota_that_demands_limits_passes_with_limits_on_all_containers(
    stoke: Stoke, namespace: Namespace
) -> None:
    hard = {"limits.cpu": "2", "limits.memory": "1Gi"}
    body = {"metadata": {"name": "team"}, "spec": {"hard": hard}}
    path = resource_path("v1", namespace.name, "resourcequotas")
    namespace.api.request("POST", path, body=body)
    job = ("run", "-q", "--cpu", "0.5", "--memory", "256m", "-c", "print('ran')")
    until(lambda: "status" in namespace.api.request("GET", f"{path}/team"), "the quota")
    refused = stoke(*job, env=namespace.env)
    assert refused.returncode == 125
    assert b"argo.executor_resources" in refused.stderr
    env = {**namespace.env, **settings({"executor_resources": {"limits": SMALL}})}
    done = stoke(*job, env=env)
    assert (done.returncode, done.stdout) == (0, b"ran\n"), done.stderr
    # One that can never fit does not wait for others to end.
    never = stoke("run", "-q", "--cpu", "1", "--memory", "4g", "-c", "1", env=env)
    assert never.returncode == 125
    assert b"allows limits.memory of 1Gi, and the job needs" in never.stderr


def test_an_unknown_priority_class_is_named_with_what_to_do(
    stoke: Stoke, namespace: Namespace
) -> None:
    env = {**namespace.env, "STOKE_ARGO__PRIORITY_CLASS": "no-such-class"}
    refused = stoke("run", "-q", "-c", "1", env=env)
    assert refused.returncode == 125
    assert b"no-such-class" in refused.stderr and b"argo.priority_class" in refused.stderr


def test_the_code_can_read_no_token_unless_it_is_wanted(stoke: Stoke, namespace: Namespace) -> None:
    code = "import os; print(os.listdir('/var/run/secrets/kubernetes.io/serviceaccount'))"
    assert stoke("run", "-q", "-c", code, env=namespace.env).stdout == b"[]\n"
    env = {**namespace.env, "STOKE_ARGO__MOUNT_TOKEN": "true"}
    assert b"token" in stoke("run", "-q", "-c", code, env=env).stdout


def test_labels_of_a_request_and_a_profile_reach_the_pod(
    stoke: Stoke, namespace: Namespace, tmp_path: Any
) -> None:
    profiles = {"wide": {"labels": {"pool": "wide"}, "annotations": {"why": "a test"}}}
    env = {**namespace.env, **settings({"profiles": profiles})}
    done = stoke("run", "-q", "--label", "team=a", "--profile", "wide", "-c", "1", env=env)
    assert done.returncode == 0, done.stderr
    path = resource_path("v1", namespace.name, "pods", only_job().id)
    about = namespace.api.request("GET", path)["metadata"]
    assert (about["labels"]["team"], about["labels"]["pool"]) == ("a", "wide")
    assert about["annotations"]["why"] == "a test"
    missing = stoke("run", "-q", "--profile", "wild", "-c", "1", env=env)
    assert missing.returncode == 2 and b"--profile wide" in missing.stderr
