"""The manifests of a job hold everything that Argo needs, and no user text."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.argo import ArgoBackend, bundle
from backends.argo.bundle import BOOTSTRAP, pack, unpack_spec
from backends.argo.mounts import OWN_NAMESPACE
from backends.argo.names import AWAITS_BUNDLE, READS_CACHE_ONLY
from backends.argo.workflow import JobManifests, make_housekeeping, make_job, standalone_objects
from stoke.backend.api import Volume
from stoke.config.model import ArgoConfig, Config
from stoke.errors import RequestError
from tests.backends.argo.deliveries import NONCE, delivery

CONFIG = Config(
    argo=ArgoConfig(
        service_account="jobs",
        node_selector={"pool": "batch"},
        tolerations=({"key": "batch", "operator": "Exists", "effect": "NoSchedule"},),
        image_pull_secrets=("registry",),
        keep=3600,
    )
)
GOLDEN: dict[str, Any] = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Workflow",
    "spec": {
        "entrypoint": "main",
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"pool": "batch"},
        "podGC": {"strategy": "OnWorkflowCompletion", "deleteDelayDuration": "3600s"},
        "podSpecPatch": '{"terminationGracePeriodSeconds": 10}',
        "serviceAccountName": "jobs",
        "tolerations": [{"key": "batch", "operator": "Exists", "effect": "NoSchedule"}],
        "ttlStrategy": {"secondsAfterCompletion": 3600},
        "templates": [
            {
                "name": "main",
                "activeDeadlineSeconds": 1800,
                "container": {
                    "image": "python:3.13",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python3", "-I", "-S", "-c", BOOTSTRAP],
                    "resources": {"limits": {"cpu": "1500m", "memory": "536870912"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "runAsUser": 0,
                    },
                    "volumeMounts": [
                        {"name": "stoke", "mountPath": "/stoke"},
                        {"name": "python", "mountPath": "/cache"},
                        {"name": "system", "mountPath": "/nix"},
                        {"name": "shm", "mountPath": "/dev/shm"},
                        {
                            "name": "no-token",
                            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                        },
                        {
                            "name": "python",
                            "mountPath": "/mnt/results",
                            "subPath": "results/JOB",
                        },
                    ],
                },
            }
        ],
        "volumes": [
            {"name": "stoke", "emptyDir": {}},
            {
                "name": "python",
                "hostPath": {
                    "path": "/var/lib/stoke/namespaces/{{workflow.namespace}}/team/python",
                    "type": "DirectoryOrCreate",
                },
            },
            {
                "name": "system",
                "hostPath": {
                    "path": "/var/lib/stoke/namespaces/{{workflow.namespace}}/team/system",
                    "type": "DirectoryOrCreate",
                },
            },
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
            {"name": "no-token", "emptyDir": {}},
        ],
    },
}
# Everything here would do something in a shell, a template, a label or an argument list.
HOSTILE = [
    "--privileged",
    "$(touch /tmp/pwned)",
    "`id`",
    "a; rm -rf /",
    "{{workflow.uid}}",
    "{{=sprig.uuidv4()}}",
    "$(HOME) $$",
    "\x1b]0;owned\x07",
]
NOISE = random.Random(7).randbytes(400_000).hex()


def made_of(code: str = "print(1)", config: Config = CONFIG, **fields: Any) -> JobManifests:
    return make_job(delivery(code, **fields), config)


def container(manifests: JobManifests) -> dict[str, Any]:
    found: dict[str, Any] = manifests.workflow["spec"]["templates"][0]["container"]
    return found


def variables(manifests: JobManifests) -> dict[str, Any]:
    return {
        one["name"]: one.get("value", one.get("valueFrom"))
        for one in container(manifests).get("env", [])
    }


def texts(thing: object) -> Iterator[str]:
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict):
        for name, value in thing.items():
            yield from texts(name)
            yield from texts(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from texts(value)


def test_the_whole_workflow() -> None:
    job = delivery(
        "print(1)", name="fit", scope="team", system=["gcc"], image="python:3.13", cpu=1.5,
        memory="512m", timeout="15m",
    )  # fmt: skip
    manifests = make_job(job, CONFIG)
    text = json.dumps(manifests.workflow).replace(f"results/{job.job_id}", "results/JOB")
    workflow = json.loads(text)
    env = workflow["spec"]["templates"][0]["container"].pop("env")
    labels = workflow["metadata"].pop("labels")
    assert workflow.pop("metadata") == {"name": job.job_id}
    assert workflow == GOLDEN
    assert {one["name"] for one in env} == {"STOKE_BUNDLE", "STOKE_SPEC"}
    assert len(labels.pop("stoke.request")) == 32
    assert labels == {
        "stoke.managed": "true",
        "stoke.kind": "job",
        "stoke.job": job.job_id,
        "stoke.scope": "team",
        "stoke.nonce": NONCE,
        "stoke.cache.volumes": "python.system",
    }
    assert manifests.bundle_object is None


@pytest.mark.parametrize("text", HOSTILE)
def test_the_manifest_holds_no_user_text(text: str) -> None:
    manifests = made_of(
        f"print({text!r})", args=[text], env={"PLAIN": text}, name=text, requirements=f"# {text}"
    )
    for written in texts(manifests.workflow):
        assert text not in written
        assert "{{" not in written.replace(OWN_NAMESPACE, "")
    # Kubernetes expands these in variables and commands.
    for written in [*container(manifests)["command"], *variables(manifests).values()]:
        assert "$(" not in written and "$$" not in written


def test_c17_c18_a_job_is_one_container_of_one_pod_that_runs_once() -> None:
    """So its log has one source, whose name no later container can take over."""
    (template,) = made_of().workflow["spec"]["templates"]
    assert "container" in template
    for more in ("retryStrategy", "containerSet", "sidecars", "initContainers", "steps", "dag"):
        assert more not in template and more not in made_of().workflow["spec"]


@pytest.mark.parametrize(
    ("argo", "field"),
    [
        ({"node_selector": {"pool": "{{workflow.name}}"}}, "pool"),
        ({"tolerations": ({"key": "{{x}}"},)}, "tolerations"),
        ({"image_pull_secrets": ("{{=1}}",)}, "imagePullSecrets"),
    ],
)
def test_text_that_argo_would_replace_is_refused(argo: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError) as refused:
        made_of(config=Config(argo=ArgoConfig(**argo)))
    assert field in refused.value.field


def test_code_up_to_some_size_travels_in_the_workflow_itself() -> None:
    manifests = made_of("x = '" + NOISE[:48_000] + "'")
    assert manifests.bundle_object is None
    assert len(variables(manifests)["STOKE_BUNDLE"]) <= 90_000
    assert len(json.dumps(manifests.workflow)) <= 120 * 1024
    assert AWAITS_BUNDLE not in manifests.workflow["metadata"]["labels"]


def test_longer_code_travels_beside_a_workflow_that_waits_for_it() -> None:
    manifests = made_of("x = '" + NOISE + "'")
    assert manifests.workflow["metadata"]["labels"][AWAITS_BUNDLE] == "true"
    assert "STOKE_BUNDLE" not in variables(manifests)
    assert len(json.dumps(manifests.workflow)) <= 120 * 1024
    assert manifests.bundle_object is not None and manifests.bundle_object["kind"] == "ConfigMap"
    name = manifests.workflow["metadata"]["name"]
    assert manifests.bundle_object["metadata"]["name"] == name
    assert {"name": "carried", "configMap": {"name": name}} in manifests.workflow["spec"]["volumes"]
    assert len(base64.b64decode(manifests.bundle_object["binaryData"]["bundle"])) < 1024**2


def test_code_that_no_cluster_takes_is_refused() -> None:
    code = "x = '" + random.Random(1).randbytes(1_500_000).hex() + "'"
    with pytest.raises(RequestError) as refused:
        made_of(code)
    assert (refused.value.field, "1024 KiB" in refused.value.why) == ("code", True)


def test_secrets_that_are_read_here_travel_in_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE_IT_STANDS", "hunter2")
    manifests = made_of(secrets={"TOKEN": "env:WHERE_IT_STANDS"})
    assert manifests.bundle_object is not None and manifests.bundle_object["kind"] == "Secret"
    assert "STOKE_BUNDLE" not in variables(manifests)
    (carried,) = [v for v in manifests.workflow["spec"]["volumes"] if v["name"] == "carried"]
    assert carried["secret"] == {"secretName": manifests.workflow["metadata"]["name"]}


def test_a_secret_of_the_cluster_is_referred_to() -> None:
    manifests = made_of(secrets={"TOKEN": "secret:team.api/token_1"})
    assert manifests.bundle_object is None
    assert variables(manifests)["STOKE_SECRET_TOKEN"] == {
        "secretKeyRef": {"name": "team.api", "key": "token_1"}
    }


def test_the_spec_is_stored_in_the_workflow() -> None:
    job = delivery("print('{{x}}')", dependencies=["numpy"])
    packed = variables(make_job(job, CONFIG))["STOKE_SPEC"]
    assert unpack_spec(packed) == job.public_spec
    assert unpack_spec("not ours") is None


def test_a_job_without_cache_mounts_none() -> None:
    manifests = made_of(use_cache=False, system=["gcc"])
    assert manifests.workflow["spec"]["volumes"] == [
        {"name": "stoke", "emptyDir": {}},
        {"name": "nix", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        {
            "name": "python",
            "hostPath": {
                "path": "/var/lib/stoke/namespaces/{{workflow.namespace}}/default/python",
                "type": "DirectoryOrCreate",
            },
        },
        {"name": "no-token", "emptyDir": {}},
    ]
    mounts = manifests.workflow["spec"]["templates"][0]["container"]["volumeMounts"]
    assert "/cache" not in [one["mountPath"] for one in mounts]
    assert mounts[-1]["mountPath"] == "/mnt/results"
    assert "stoke.cache.volumes" not in manifests.workflow["metadata"]["labels"]


@pytest.mark.parametrize(
    ("cache", "source"),
    [
        ("claim", {"persistentVolumeClaim": {"claimName": "stoke-team-python"}}),
        ("shared-claim", {"persistentVolumeClaim": {"claimName": "stoke-team-python"}}),
        ("none", {"emptyDir": {}}),
    ],
)
def test_where_the_cache_is(cache: Any, source: dict[str, Any]) -> None:
    manifests = made_of(config=Config(argo=ArgoConfig(cache=cache)), scope="team")
    assert {"name": "python", **source} in manifests.workflow["spec"]["volumes"]
    # File locks on a file system that several nodes mount are not reliable.
    mutexes = {"mutexes": [{"name": "stoke-team"}]}
    expected = mutexes if cache == "shared-claim" else None
    assert manifests.workflow["spec"].get("synchronization") == expected


def test_restricted_jobs_ask_for_nothing_that_is_forbidden() -> None:
    config = Config(argo=ArgoConfig(restricted=True, cache="none"))
    manifests = made_of(config=config)
    assert manifests.workflow["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container(manifests)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    patch = json.loads(manifests.workflow["spec"]["podSpecPatch"])
    assert [one["name"] for one in patch["initContainers"] + patch["containers"]] == [
        "init",
        "wait",
    ]
    with pytest.raises(RequestError, match="root"):
        made_of(config=config, system=["gcc"])


def test_warm_nodes_are_preferred_and_not_demanded() -> None:
    manifests = make_job(delivery("print(1)"), CONFIG, ("node-a", "node-b"))
    (term,) = manifests.workflow["spec"]["affinity"]["nodeAffinity"].values()
    (expression,) = term[0]["preference"]["matchExpressions"]
    assert expression["values"] == ["node-a", "node-b"]
    assert list(manifests.workflow["spec"]["affinity"]["nodeAffinity"]) == [
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]


def test_housekeeping_runs_on_the_node_that_has_the_cache() -> None:
    volume = Volume(
        "argo", "team", "system", "/var/lib/stoke/namespaces/jobs/team/system", "node-b"
    )
    workflow = make_housekeeping("stoke-housekeeping-1", volume, {"do": "usage"}, CONFIG, "image")
    assert workflow["spec"]["nodeSelector"] == {
        "pool": "batch",
        "kubernetes.io/hostname": "node-b",
    }
    assert workflow["metadata"]["labels"]["stoke.kind"] == "housekeeping"


def test_the_manifest_holds_the_whole_job(monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = made_of("x = '" + NOISE + "'")
    carried, workflow = standalone_objects(manifests)
    assert carried == manifests.bundle_object
    assert AWAITS_BUNDLE not in workflow["metadata"]["labels"]
    import yaml  # type: ignore[import-untyped]

    text = ArgoBackend(CONFIG).render(delivery("print('yes')", name="yes"))
    (read,) = yaml.safe_load_all(text)
    assert read["kind"] == "Workflow"
    assert read["metadata"]["labels"]["stoke.managed"] == "true"


def unpacked_in(folder: Path, environ: dict[str, str]) -> str:
    """Runs the bootstrap with its folder moved here; what it starts prints what it met."""
    code = BOOTSTRAP.replace(bundle.FOLDER, str(folder))
    code = code.replace(bundle.TERMINATION_LOG, str(folder / "last-words"))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], env={**os.environ, **environ},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


MEETS = b"""
import os, stat, sys
here = os.path.dirname(__file__)
print(sys.argv[1:], oct(stat.S_IMODE(os.stat(here + "/payload").st_mode)))
print(open(here + "/payload", "rb").read() == bytes(range(256)) * 9)
print(sorted(n for n in os.environ if n.startswith(("STOKE_", "ARGO_", "TOKEN"))))
"""


@pytest.mark.parametrize("carried", [False, True])
def test_the_bundle_is_unpacked_before_the_job_begins(tmp_path: Path, carried: bool) -> None:
    files = {"runner.py": MEETS, "payload": bytes(range(256)) * 9}
    secrets = {"TOKEN": "STOKE_SECRET_1"}
    packed = pack(files, [f"{tmp_path}/runner.py", "--x", "a b"], secrets)
    environ = {
        "STOKE_SPEC": "s", "ARGO_TEMPLATE": "{}", "STOKE_SECRET_1": "t", "STOKE_SECRET_2": "TOKEN",
        "STOKE_STATE_DIR": "x",
    }  # fmt: skip
    if carried:
        (tmp_path / "carried").mkdir()
        (tmp_path / "carried" / "bundle").write_bytes(packed)
    else:
        environ["STOKE_BUNDLE"] = bundle.as_text(packed)
    said = unpacked_in(tmp_path, environ)
    assert said.splitlines()[:2] == ["['--x', 'a b'] 0o600", "True"]
    met = eval(said.splitlines()[2])
    # Of the secrets what it asks for; nothing of what is only there to bring it.
    assert "TOKEN" in met
    brought = {"STOKE_BUNDLE", "STOKE_SPEC", "ARGO_TEMPLATE", "STOKE_SECRET_1", "STOKE_SECRET_2"}
    assert not brought & set(met)
    assert (tmp_path / "last-words").read_text() == bundle.BEGAN


def test_a_pod_without_the_secret_that_its_job_asks_for_says_so_and_ends(tmp_path: Path) -> None:
    secrets = {"TOKEN": "STOKE_SECRET_1", "KEY": "STOKE_SECRET_2"}
    packed = pack({"runner.py": MEETS, "payload": b""}, [f"{tmp_path}/runner.py"], secrets)
    environ = {"STOKE_BUNDLE": bundle.as_text(packed), "STOKE_SECRET_2": "x"}
    with pytest.raises(subprocess.CalledProcessError):
        unpacked_in(tmp_path, environ)
    assert (tmp_path / "last-words").read_text() == f"{bundle.MISSING_SECRETS}TOKEN"


def test_two_submits_of_one_job_are_the_same_workflow() -> None:
    job = delivery("print(1)")
    assert make_job(job, CONFIG) == make_job(replace(job), CONFIG)


def test_a_job_that_only_reads_a_shared_claim_needs_no_mutex() -> None:
    config = Config(argo=ArgoConfig(cache="shared-claim"))
    job = delivery("print(1)", scope="team", dependencies=["numpy"])
    for reads in (False, True):
        manifests = make_job(job, config, reads=reads).workflow
        mounts = manifests["spec"]["templates"][0]["container"]["volumeMounts"]
        read_only = [one["mountPath"] for one in mounts if one.get("readOnly")]
        assert read_only == (["/cache"] if reads else [])
        # Its results and its checkpoint are on the cache, and it writes them.
        assert ("/cache/checkpoints" in [one["mountPath"] for one in mounts]) is reads
        assert ("synchronization" in manifests["spec"]) == (not reads)
        assert (READS_CACHE_ONLY in manifests["metadata"]["labels"]) == reads


def test_shared_memory_is_bounded_where_the_request_says_so() -> None:
    manifests = made_of(shm_size="2g")
    volume = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(2 * 1024**3)}}
    assert volume in manifests.workflow["spec"]["volumes"]
    with pytest.raises(RequestError) as refused:
        made_of(shm_size="2g", config=Config(argo=ArgoConfig(by_template=True)))
    assert refused.value.field == "shm_size"


@pytest.mark.parametrize("long", [False, True])
def test_the_results_of_earlier_jobs_travel_beside_the_pack(tmp_path: Path, long: bool) -> None:
    """In the bundle while they are short, else as parts that the pod's first program joins."""
    inputs = tmp_path / "inputs"
    inputs.write_bytes(os.urandom(3 << 20) if long else b"short")
    job = replace(delivery("pass"), inputs=inputs)
    made = make_job(job, CONFIG)
    assert bool(made.chunks) is long
    folder = tmp_path / "pod"
    (folder / "parts").mkdir(parents=True)
    for number, chunk in enumerate(made.chunks):
        (folder / "parts" / bundle.part_name(number)).write_bytes(chunk.data)
    environ = {"STOKE_BUNDLE": variables(made)["STOKE_BUNDLE"]}
    head = json.loads(zlib.decompress(base64.b64decode(environ["STOKE_BUNDLE"])).split(b"\n")[0])
    assert head["argv"][head["argv"].index("--inputs") + 1] == "/stoke/inputs"
    with suppress(subprocess.CalledProcessError):  # The runner of this job finds no /stoke.
        unpacked_in(folder, environ)
    assert (folder / "inputs").read_bytes() == inputs.read_bytes()


def test_a_template_carries_short_inputs_only(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.write_bytes(bytes(300_000))
    config = Config(argo=ArgoConfig(by_template=True))
    with pytest.raises(RequestError, match=r"at most 256 KiB of the results of earlier jobs"):
        make_job(replace(delivery("pass"), inputs=inputs), config)
