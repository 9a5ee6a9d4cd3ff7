"""A job as Argo sees it: a Workflow of one pod, and beside it an object for a long bundle.

Pure functions. The manifests hold no user text: code, arguments and environment are inside the
bundle. hera builds the objects (`pod_workflow.py`) and sends nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from backends.argo import bundle
from backends.argo.mounts import (
    OWN_NAMESPACE,
    PARTS_VOLUME,
    cache_volumes,
    claim_volumes,
    job_volumes,
    mutex_of,
    results_mount,
    shared_memory,
    used_caches,
)
from backends.argo.names import (
    AT_MOST_ONCE,
    AWAITS_BUNDLE,
    BUNDLE_KIND,
    READS_CACHE_ONLY,
    SWEEP_KIND,
    TASK,
    housekeeping_labels,
    job_labels,
    request_label,
)
from backends.argo.pack_chunks import (
    LEAVE_OUT,
    MOST_CHUNKS,
    Chunk,
    chunks_of,
    chunks_of_inputs,
    volume_of,
)
from backends.argo.pod_workflow import (
    OWN_WORKFLOW,
    PodShape,
    SweepShape,
    pod_workflow,
    resources_of,
)
from backends.argo.task_names import ITEM, NUMBER, NUMBER_VARIABLE
from backends.argo.templates import (
    as_template,
    as_workflow_template,
    by_reference,
    combinations,
    entrypoint,
    housekeeping_template,
    secret_variable,
    tag,
    template_name,
    with_secrets,
)
from backends.argo.workspace_volumes import check_workspace, workspace_volumes
from backends.common.names import CACHE, KIND, MOUNT_POINTS, PUBLIC_IMAGE, WORKSPACE_NAME
from stoke.backend.api import Delivery, Volume
from stoke.backend.capabilities import SweepPlan
from stoke.config.model import ArgoConfig, Config
from stoke.errors import RequestError
from stoke.remote.bundle import housekeeping_source
from stoke.remote.command import runner_arguments
from stoke.remote.protocol import RESULTS_MOUNT, JobFolder, RunnerOption
from stoke.request.mounts import MOUNT_ROOT
from stoke.request.spec import JobSpec
from stoke.request.workspace_name import WORKSPACE
from stoke.text.units import human_bytes

WORKFLOW_NAME = "{{workflow.name}}"
# Argo's deadline counts from the start of the pod, the runner's timeout from its own start. Pulling
# the image and a graceful stop lie between them.
DEADLINE_SLACK = 900
HOUSEKEEPING_SECONDS = 3600
HOUSEKEEPING_KEPT = 60
TASKS = "tasks"
"""The file with what differs between the tasks of a sweep."""
MAX_INLINE_INPUTS = 256 * 1024
"""Bytes of results of earlier jobs in the bundle, where a pack may be too; longer ones are chunks."""


@dataclass(frozen=True)
class JobManifests:
    """A workflow to create, the ConfigMap or Secret that holds its bundle if that is too long, and the
    chunks of a long pack and of long inputs.

    The pod cannot start before these objects exist, and the workflow owns them. (Suspending the
    workflow instead would cost ten seconds until Argo looks again.)
    """

    workflow: dict[str, Any]
    bundle_object: dict[str, Any] | None = None
    chunks: tuple[Chunk, ...] = ()


def make_job(
    delivery: Delivery,
    config: Config,
    nodes: tuple[str, ...] = (),
    reads: bool = False,
    node: str | None = None,
    ca_bundle: tuple[Chunk, ...] = (),
    sweep: SweepPlan | None = None,
    recurs: bool = False,
) -> JobManifests:
    """Return the manifests of a job, or of a sweep. It runs on `node`, if one is named, because its
    workspace is there. With `recurs`, they are those of all runs of a schedule.

    `nodes` have the environment already and are preferred, not required. With `reads` the job
    mounts its cache read-only, and need not wait for jobs that write to it. `ca_bundle` are the chunks
    of its CA bundle, if the delivery does not have that.

    Raises `RequestError` if the job is too large, or if Argo would change one of its fields.
    """
    spec, argo = delivery.spec, config.argo.with_profile(delivery.spec.profile)
    if argo.by_template:
        _refuse_what_templates_fix(spec)
    if spec.system and argo.restricted:
        raise RequestError(
            "system",
            "system packages need root, which this cluster forbids (argo.restricted)",
            "leave them out, or use an image that has them",
        )
    named = _named_secrets(spec.secrets, argo)
    caches = used_caches(spec.use_cache, bool(spec.system))
    pack = delivery.project.pack if delivery.project else None
    is_long = pack is not None and pack.stat().st_size > bundle.MAX_CARRIED
    long_pack = tuple(chunks_of(pack)) if pack is not None and is_long else ()
    if long_pack and argo.by_template:
        raise RequestError(
            "project",
            "jobs refer to a template here, which carries at most 1 MiB of new files with a job",
            LEAVE_OUT,
        )
    parts = {bundle.CA_BUNDLE: ca_bundle, bundle.PACK: long_pack}
    if delivery.inputs and delivery.inputs.stat().st_size > MAX_INLINE_INPUTS:
        if argo.by_template:
            raise RequestError(
                "after",
                "jobs refer to a template here, which carries at most "
                f"{human_bytes(MAX_INLINE_INPUTS)} of the results of earlier jobs",
                "write them to a claim that both jobs mount: --mount claim:NAME:/path:rw",
            )
        long_inputs = chunks_of_inputs(delivery.inputs, MOST_CHUNKS - len(long_pack))
        parts[bundle.INPUTS] = tuple(long_inputs)
    parts = {name: chunks for name, chunks in parts.items() if chunks}
    chunks = tuple(chunk for one in parts.values() for chunk in one)
    flags = (RunnerOption.OWN_FILES, RunnerOption.CONTAINER, RunnerOption.TAGGED)
    argv = [
        f"{bundle.FOLDER}/runner.py",
        *runner_arguments(
            f"{bundle.FOLDER}/payload",
            work=f"{bundle.FOLDER}/{JobFolder.WORK}",
            cache=CACHE if spec.use_cache else None,
            pack=f"{bundle.FOLDER}/{bundle.PACK}" if pack is not None else None,
            workspace=WORKSPACE if spec.workspace is not None else None,
            results=RESULTS_MOUNT,
            inputs=f"{bundle.FOLDER}/{bundle.INPUTS}" if delivery.inputs else None,
            ca_bundle=f"{bundle.FOLDER}/{bundle.CA_BUNDLE}" if ca_bundle else None,
            flags=(*flags, RunnerOption.NIX) if spec.system else flags,
        ),
    ]
    files = {"runner.py": delivery.runner, "payload": delivery.payload}
    if pack is not None and not is_long:
        files[bundle.PACK] = pack.read_bytes()
    if delivery.inputs and bundle.INPUTS not in parts:
        files[bundle.INPUTS] = delivery.inputs.read_bytes()
    if sweep is not None:
        # Only numbers are in the workflow: the values of the tasks are in the bundle.
        files["pick_task.py"] = _program("pick_task.py")
        files[TASKS] = b"".join(task + b"\n" for task in sweep.tasks)
        argv = [*(f"{bundle.FOLDER}/{file}" for file in ("pick_task.py", "payload", TASKS)), *argv]
    if argo.at_most_once:
        files["single_start.py"] = _program("single_start.py")
        argv = [f"{bundle.FOLDER}/single_start.py", bundle.ONCE, *argv]
    secrets = {name: where for name, (where, _) in named.items()}
    names = {name: [chunk.name for chunk in chunks] for name, chunks in parts.items()}
    packed = bundle.pack(files, argv, secrets, names)
    kind = _carrier(delivery, packed)
    if sweep is not None and kind is None:
        kind = "ConfigMap"  # In a variable it would be in every pod, twice.
    request = request_label(delivery.request_hash)
    labels = job_labels(delivery.job_id, spec.scope, delivery.nonce, caches, request)
    labels |= {KIND: SWEEP_KIND} if sweep else {}
    labels |= {READS_CACHE_ONLY: "true"} if reads else {}
    labels |= {AT_MOST_ONCE: "true"} if argo.at_most_once else {}
    # Runs of a schedule share the bundle, which is not deleted with one of them.
    labels |= {BUNDLE_KIND: kind.lower()} if kind and not recurs else {}
    variables: dict[str, str] = {} if kind else {bundle.VARIABLE: bundle.as_text(packed)}
    if sweep is not None:
        variables[NUMBER_VARIABLE] = NUMBER
    elif (public := bundle.pack_spec(delivery.public_spec)) is not None:
        variables[bundle.SPEC_VARIABLE] = public
    if spec.shm_size is not None and argo.by_template:
        raise RequestError(
            "shm_size",
            "jobs refer to a template here, whose /dev/shm has the size of the memory limit",
            "leave it out, or give the job more memory: --memory",
        )
    volumes = job_volumes(spec.scope, caches, bool(spec.system), kind, delivery.job_id, argo)
    volumes.append(shared_memory(spec.shm_size))
    own_folder = WORKFLOW_NAME if recurs else delivery.job_id
    if sweep is not None:
        own_folder += f"-{NUMBER}"
    added, folders = results_mount(spec.scope, caches, own_folder, argo, reads=reads)
    volumes += added
    volumes += claim_volumes(spec, argo)
    check_workspace(spec, argo)
    if spec.workspace is not None:
        volumes += workspace_volumes(spec.workspace, argo)
        labels |= {WORKSPACE_NAME: spec.workspace}
    if spec.mounts:
        variables[MOUNT_ROOT] = "/"
    if chunks:
        volumes.append((PARTS_VOLUME, bundle.PARTS, volume_of(chunks)))
    shape = PodShape(
        deadline=None
        if spec.timeout is None
        else math.ceil(spec.timeout + (spec.hold or 0)) + DEADLINE_SLACK,
        grace=math.ceil(config.stop_grace),
        keep=math.ceil(argo.keep),
        resources=resources_of(spec, argo),
        secrets=dict(named.values()),
        mutex=None if reads else mutex_of(spec.scope, caches, argo),
        nodes=nodes,
        node=node,
        reads=reads,
        once=argo.at_most_once,
        workspace=spec.workspace,
        sweep=None
        if sweep is None
        else SweepShape(len(sweep.tasks), sweep.max_parallel, sweep.fail_fast),
    )
    workflow = pod_workflow(
        delivery.job_id,
        labels,
        argo,
        shape,
        image=spec.image or argo.image or PUBLIC_IMAGE,
        variables=variables,
        volumes=volumes,
        waits=(kind is not None or bool(chunks)) and not recurs,
        own_labels=spec.labels,
        own_annotations=spec.annotations,
        folders=folders,
    )
    if argo.by_template:
        template = entrypoint(caches, bool(spec.system), kind, bool(named))
        # A template prefers a single node.
        workflow = by_reference(spec.scope, workflow, template, nodes[0] if nodes else None)
    _refuse_templates(workflow)
    if kind is None:
        return JobManifests(workflow, chunks=chunks)
    field = "binaryData" if kind == "ConfigMap" else "data"
    bundle_object = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": delivery.job_id, "labels": labels},
        field: {bundle.KEY: bundle.as_text(packed)},
        "immutable": True,
    }
    return JobManifests(workflow, bundle_object, chunks)


def make_housekeeping(
    name: str, volume: Volume, operation: Mapping[str, object], config: Config, image: str
) -> dict[str, Any]:
    """Return a workflow that measures, prunes or clears one cache, on the node that has it."""
    argo = config.argo
    target = MOUNT_POINTS[volume.kind]
    about_results = operation["do"] in ("send-results", "drop-results")
    workflow = make_helper(
        name,
        volume.scope,
        {"housekeeping.py": housekeeping_source("results" if about_results else volume.kind)},
        [f"{bundle.FOLDER}/housekeeping.py", target, json.dumps(operation)],
        cache_volumes(volume.scope, (volume.kind,), argo),
        config,
        image,
        volume.node,
    )
    if argo.by_template:
        template = housekeeping_template(volume.kind)
        workflow = by_reference(volume.scope, workflow, template, volume.node)
    _refuse_templates(workflow)
    return workflow


def make_helper(
    name: str,
    scope: str,
    files: Mapping[str, bytes],
    argv: list[str],
    volumes: list[tuple[str, str, dict[str, Any]]],
    config: Config,
    image: str,
    node: str | None,
    deadline: int = HOUSEKEEPING_SECONDS,
    workspace: str | None = None,
) -> dict[str, Any]:
    """Return a workflow that runs a program of stoke's own, on a node if one is named."""
    packed = bundle.pack(files, argv)
    shape = PodShape(deadline, grace=5, keep=HOUSEKEEPING_KEPT, node=node, workspace=workspace)
    workflow = pod_workflow(
        name,
        housekeeping_labels(scope),
        config.argo,
        shape,
        image=image,
        variables={bundle.VARIABLE: bundle.as_text(packed)},
        volumes=volumes,
    )
    _refuse_templates(workflow)
    return workflow


def make_templates(scope: str, config: Config) -> dict[str, Any]:
    """Return the WorkflowTemplate that jobs and housekeeping of a scope refer to (see templates.py)."""
    argo = config.argo
    manifests: dict[str, dict[str, Any]] = {}

    def workflow(
        volumes: list[tuple[str, str, dict[str, Any]]],
        variables: Mapping[str, str],
        mutex: str | None = None,
        nodes: tuple[str, ...] = (),
        node: str | None = None,
        secrets: Mapping[str, str] | None = None,
        once: bool = argo.at_most_once,
        folders: Sequence[tuple[str, str, str]] = (),
    ) -> dict[str, Any]:
        shape = PodShape(
            None,
            grace=math.ceil(config.stop_grace),
            keep=math.ceil(argo.keep),
            secrets=secrets or {},
            mutex=mutex,
            nodes=nodes,
            node=node,
            once=once,
        )
        return pod_workflow(
            template_name(scope),
            {},
            argo,
            shape,
            image=tag("image"),
            variables=variables,
            volumes=volumes,
            folders=folders,
        )

    packed = {bundle.VARIABLE: tag("bundle")}
    secrets = {secret_variable(one): one for one in argo.template_secrets}
    for name, caches, system, carrier in combinations():
        if system and argo.restricted:
            continue
        volumes = job_volumes(scope, caches, system, carrier, WORKFLOW_NAME, argo)
        volumes.append(shared_memory(None))
        added, folders = results_mount(scope, caches, WORKFLOW_NAME, argo)
        volumes += added
        variables = packed | {bundle.SPEC_VARIABLE: tag("spec")}
        mutex = mutex_of(scope, caches, argo)
        # Only a node's folder can be warm. Without an argument, no node is preferred.
        nodes = (tag("node"),) if caches and argo.cache == "hostpath" else ()
        manifests[name] = workflow(volumes, variables, mutex, nodes, folders=folders)
        if secrets:
            manifests[with_secrets(name)] = workflow(
                volumes, variables, mutex, nodes, secrets=secrets, folders=folders
            )
    for kind in MOUNT_POINTS:
        node = tag("node") if argo.cache == "hostpath" else None
        volumes = cache_volumes(scope, (kind,), argo)
        manifests[housekeeping_template(kind)] = workflow(volumes, packed, node=node, once=False)
    templates = [as_template(one, name) for name, one in manifests.items()]
    image = argo.image or PUBLIC_IMAGE
    return as_workflow_template(scope, next(iter(manifests.values())), templates, image)


def standalone_objects(manifests: JobManifests) -> list[dict[str, Any]]:
    """Return objects that can be created one after the other, with no further steps."""
    if manifests.bundle_object is None:
        return [manifests.workflow]
    about = manifests.workflow["metadata"]
    labels = {name: value for name, value in about["labels"].items() if name != AWAITS_BUNDLE}
    return [
        manifests.bundle_object,
        {**manifests.workflow, "metadata": {**about, "labels": labels}},
    ]


# ---------------------------------------------------------------------------- parts


def _refuse_what_templates_fix(spec: JobSpec) -> None:
    for field in ("profile", "labels", "annotations"):
        if getattr(spec, field):
            raise RequestError(
                field,
                "jobs refer to a template here, which is the same for all jobs of a scope",
                "leave it out, or have the template changed: set it for all jobs in [argo], then "
                "stoke setup argo --apply",
            )


def _named_secrets(secrets: Mapping[str, str], argo: ArgoConfig) -> dict[str, tuple[str, str]]:
    """Map each secret that is in the cluster to (the pod's variable, NAME/KEY).

    By reference, the owner of the template decides which secrets exist: a job that could name any
    secret would read what its user may not.
    """
    named = {}
    for name, reference in secrets.items():
        kind, _, what = reference.partition(":")
        if kind != "secret":
            continue
        if argo.by_template and what not in argo.template_secrets:
            raise RequestError(
                "secrets",
                f"jobs refer to a template here, and {what} is not among argo.template_secrets",
                "add it there and update the template: stoke setup argo; or read the secret on this "
                f"machine: --secret {name}=env:VARIABLE or {name}=file:PATH",
            )
        variable = secret_variable(what) if argo.by_template else f"{bundle.SECRET_PREFIX}{name}"
        named[name] = (variable, what)
    return named


def _carrier(delivery: Delivery, packed: bytes) -> str | None:
    """Return the kind of object that holds the bundle, or None if the workflow itself holds it.

    Many users who may not read secrets can read workflows.
    """
    spec = delivery.spec
    read_here = any(not reference.startswith("secret:") for reference in spec.secrets.values())
    if len(packed) > bundle.MAX_CARRIED:
        raise RequestError(
            "code",
            f"with its requirements it has {len(packed) // 1024} KiB compressed, and a cluster accepts "
            f"at most {bundle.MAX_CARRIED // 1024} KiB with a job",
            "fetch data in the code when it runs, or use another backend: -b docker",
        )
    if read_here or spec.index.credentials:
        return "Secret"
    return "ConfigMap" if len(bundle.as_text(packed)) > bundle.MAX_INLINE else None


def _program(name: str) -> bytes:
    """Return a file of this package that runs in pods."""
    return (resources.files("backends.argo") / name).read_bytes()


# The fields with the number of a task. All that is in them is ours.
_NUMBERED = re.compile(
    r"\.(env|parameters)\[\d+\]\.value$|\.volumeMounts\[\d+\]\.subPath$"
    rf"|\.templates\[\d+\]\.metadata\.labels\.{re.escape(TASK)}$"
)


def _refuse_templates(workflow: Any, field: str = "workflow") -> None:
    """Raise `RequestError` if a field holds `{{`, which Argo would replace or reject; it has no
    escape."""
    if isinstance(workflow, str):
        # Paths of caches are ours: validated names and this one tag.
        rest = workflow.replace(OWN_NAMESPACE, "") if field.endswith(".hostPath.path") else workflow
        if field.endswith(".subPath"):
            rest = rest.replace(WORKFLOW_NAME, "")
        if _NUMBERED.search(field):
            rest = rest.replace(NUMBER, "").replace(ITEM, "")
        if "{{" in rest and rest != OWN_WORKFLOW:
            raise RequestError(
                field, "contains '{{', which Argo treats as a template tag", "write it without"
            )
    elif isinstance(workflow, Mapping):
        for name, value in workflow.items():
            _refuse_templates(name, field)
            _refuse_templates(value, f"{field}.{name}")
    elif isinstance(workflow, list):
        for number, value in enumerate(workflow):
            _refuse_templates(value, f"{field}[{number}]")
