"""The stand-in's notion of steps: one group of one step, expanded by withItems or withSequence.

Names of nodes and pods, the order of starts, parallelism and failFast are those of Argo Workflows 4.1
(workflow/controller/steps.go, `checkParallelism` in operator.go, workflow/util/pod_name.go).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.cluster.api import Api, ApiError, Object
from tests.cluster.argo_pod import UNKNOWN_SPEC, checked_template, make_pod, named_template
from tests.cluster.argo_reading import end_of, pending_reason
from tests.cluster.argo_tags import TemplateError, substituted
from tests.cluster.work_queue import WorkQueue
from tests.cluster.workflow_fields import (
    OVER,
    Key,
    epoch_seconds,
    object_key,
    object_uid,
    timestamp,
)

RECENT_SECONDS = 10
"""How long a workflow waits for a pod that it may only not have seen yet."""


@dataclass(frozen=True)
class Steps:
    """A steps template whose one step is expanded."""

    name: str
    step: Mapping[str, Any]
    items: tuple[str, ...]
    parallelism: int | None
    fail_fast: bool

    def node_names(self, workflow: str) -> Iterator[tuple[str, str]]:
        """Give the name of each task's node, and its item."""
        for number, item in enumerate(self.items):
            shown = item.replace("(", "").replace(")", "")
            yield f"{workflow}[0].{self.step['name']}({number}:{shown})", item


def steps_of(spec: Object) -> Steps | None:
    """Return the steps that a workflow begins with; None if it begins with anything else."""
    template = named_template(spec, spec.get("entrypoint") or "")
    if "steps" not in template:
        return None
    for field in UNKNOWN_SPEC:
        if spec.get(field):
            raise TemplateError(f"the stand-in knows no spec.{field}")
    name = template["name"]
    groups = template["steps"]
    if len(groups) != 1 or len(groups[0]) != 1 or template.keys() - _FIELDS:
        raise TemplateError(f"templates.{name}: the stand-in knows one group of one step only")
    step = groups[0][0]
    if step.keys() - _STEP_FIELDS:
        raise TemplateError(f"templates.{name}: the stand-in knows no such step: {sorted(step)}")
    if sequence := step.get("withSequence"):
        if sequence.keys() - {"start", "end"}:
            raise TemplateError(f"templates.{name}: the stand-in knows a sequence's start and end")
        first, last = int(sequence.get("start", 0)), int(sequence["end"])
        items = [str(number) for number in range(first, last + 1)]
    else:
        items = [str(item) for item in step.get("withItems") or ()]
    if not items:
        raise TemplateError(f"templates.{name}: the stand-in expands each step")
    return Steps(
        name, step, tuple(items), template.get("parallelism"), bool(template.get("failFast"))
    )


_FIELDS = {"name", "steps", "parallelism", "failFast", "inputs", "outputs", "metadata"}
_STEP_FIELDS = {"name", "template", "arguments", "withSequence", "withItems"}


class RunsSteps:
    """The part of the stand-in that runs such workflows; its attributes are those of the stand-in."""

    _api: Api
    _pods: dict[Key, Object]
    _queue: WorkQueue

    def _run_steps(self, workflow: Object, spec: Object, steps: Steps) -> None:
        namespace, name = object_key(workflow)
        status = workflow.get("status") or {}
        nodes: dict[str, Object] = {
            one: dict(node) for one, node in (status.get("nodes") or {}).items()
        }
        started = status.get("startedAt") or timestamp()
        if not nodes and spec.get("shutdown"):
            self._finish(workflow, "Failed", f"Stopped with strategy '{spec['shutdown']}'")
            return
        group = _node_id(name, f"{name}[0]")
        for one, shown, kind in ((name, name, "Steps"), (group, "[0]", "StepGroup")):
            nodes.setdefault(one, {
                "id": one, "name": name if kind == "Steps" else f"{name}[0]", "displayName": shown,
                "type": kind, "templateScope": f"local/{name}", "phase": "Running",
                "startedAt": timestamp(), "finishedAt": None, "children": [],
            })  # fmt: skip
        nodes[name]["templateName"], nodes[name]["children"] = steps.name, [group]
        tasks = list(steps.node_names(name))
        running = failed = 0
        for task, _ in tasks:
            node = nodes.get(_node_id(name, task))
            if node is None:
                break
            if node["phase"] not in OVER:
                self._assess_task(workflow, spec, steps, node)
            running += node["phase"] not in OVER
            failed += node["phase"] in ("Failed", "Error")
        stops = spec.get("shutdown") or (steps.fail_fast and failed)
        try:
            for number, (task, item) in enumerate(tasks):
                one = _node_id(name, task)
                if one in nodes:
                    continue
                if spec.get("shutdown") and not (steps.fail_fast and failed):
                    # Argo makes a node for each task that is left, and no pod.
                    message = f"workflow shutdown with strategy: {spec['shutdown']}"
                    node = self._task_node(name, steps, task, self._inputs(steps, item))
                    nodes[one] = node | {
                        "phase": "Failed", "message": message, "finishedAt": timestamp()
                    }  # fmt: skip
                    nodes[group]["children"].append(one)
                    continue
                if stops or (steps.parallelism is not None and running >= steps.parallelism):
                    break
                nodes[one] = self._start_task(workflow, spec, steps, task, item, number)
                nodes[group]["children"].append(one)
                running += 1
        except TemplateError as error:
            self._finish(workflow, "Failed", f"invalid spec: {error}")
            return
        done = sum(node["phase"] == "Succeeded" for node in nodes.values() if node["type"] == "Pod")
        begun = len(nodes) - 2
        progress = {"progress": f"{done}/{begun}", "startedAt": started, "nodes": nodes}
        is_over = not running and (begun == len(tasks) or bool(stops))
        waits = is_over and any(
            self._results_under_way(namespace, one, node)
            for one, node in nodes.items()
            if node["type"] == "Pod"
        )
        if not is_over or waits:
            self._write(workflow, {**progress, "phase": "Running"})
            if waits:
                self._queue.add((namespace, name), RECENT_SECONDS)
            return
        phase, message = "Succeeded", ""
        if failed or stops:
            child = next(
                (one for one, node in nodes.items() if node["phase"] in ("Failed", "Error")), ""
            )
            phase, message = "Failed", f"child '{child}' failed"
        for one in (name, group):
            nodes[one].update(phase=phase, message=message, finishedAt=timestamp())
        if spec.get("shutdown"):
            message = f"Stopped with strategy '{spec['shutdown']}'"
        self._finish(workflow, phase, message, **progress)

    def _start_task(
        self, workflow: Object, spec: Object, steps: Steps, task: str, item: str, number: int
    ) -> Object:
        """Create the pod of a task; return its node."""
        namespace, name = object_key(workflow)
        inputs = self._inputs(steps, item)
        node = self._task_node(name, steps, task, inputs)
        template = checked_template(workflow, spec, steps.step["template"], inputs)
        pod = make_pod(
            workflow,
            spec,
            template,
            _pod_name(name, steps.step["template"], task),
            task,
            node["id"],
        )
        try:
            self._api.create(f"/api/v1/namespaces/{namespace}/pods", pod)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                node.update(phase="Error", message=error.message, finishedAt=timestamp())
        return node

    def _task_node(self, name: str, steps: Steps, task: str, inputs: Mapping[str, str]) -> Object:
        return {
            "id": _node_id(name, task),
            "name": task,
            "displayName": task.partition("].")[2],
            "type": "Pod",
            "templateName": steps.step["template"],
            "templateScope": f"local/{name}",
            "boundaryID": name,
            "phase": "Pending",
            "startedAt": timestamp(),
            "finishedAt": None,
            "progress": "0/1",
            "inputs": {"parameters": [{"name": key, "value": inputs[key]} for key in inputs]},
        }

    def _inputs(self, steps: Steps, item: str) -> dict[str, str]:
        given = (steps.step.get("arguments") or {}).get("parameters") or []
        filled: list[dict[str, str]] = substituted(steps.name, given, {"item": item})
        return {one["name"]: str(one["value"]) for one in filled}

    def _assess_task(self, workflow: Object, spec: Object, steps: Steps, node: Object) -> None:
        """Bring a node up to date with its pod."""
        namespace, name = object_key(workflow)
        pod_name = _pod_name(name, steps.step["template"], node["name"])
        pod = self._pods.get((namespace, pod_name))
        shutdown = spec.get("shutdown")
        if pod is None:
            self._assess_missing(workflow, spec, steps, node)
            return
        phase = pod["status"].get("phase")
        node["hostNodeName"] = pod["spec"].get("nodeName", "")
        if phase in ("Succeeded", "Failed"):
            node |= end_of(pod)
            return
        node["phase"] = phase
        node["message"] = pending_reason(pod) if phase == "Pending" else ""
        if shutdown:
            self._terminate(pod)
            message = f"workflow shutdown with strategy:  {shutdown}"
            node.update(phase="Failed", message=message, finishedAt=timestamp())

    def _assess_missing(self, workflow: Object, spec: Object, steps: Steps, node: Object) -> None:
        """The pod of a node is deleted, or not yet seen."""
        if shutdown := spec.get("shutdown"):
            message = f"workflow shutdown with strategy: {shutdown}"
            node.update(phase="Failed", message=message, finishedAt=timestamp())
        elif node["phase"] == "Pending":
            item = node["name"].rpartition(":")[2].rstrip(")")
            number = int(node["name"].rpartition("(")[2].partition(":")[0])
            known = node["startedAt"]
            node.update(self._start_task(workflow, spec, steps, node["name"], item, number))
            node["startedAt"] = known
        elif time.time() - epoch_seconds(node["startedAt"]) < RECENT_SECONDS:
            self._queue.add(object_key(workflow), RECENT_SECONDS)
        else:
            node.update(phase="Error", message="pod deleted", finishedAt=timestamp())

    # What the stand-in has.

    def _write(
        self, workflow: Object, status: Object, labels: Mapping[str, str] | None = None
    ) -> bool:
        raise NotImplementedError

    def _finish(self, workflow: Object, phase: str, message: str, **status: Any) -> None:
        raise NotImplementedError

    def _terminate(self, pod: Object) -> None:
        raise NotImplementedError

    def _results_under_way(self, namespace: str, name: str, node: Object) -> bool:
        raise NotImplementedError


def pods_of(workflow: Object, pods: Mapping[Key, Object]) -> list[Object]:
    """Return the pods that a workflow owns."""
    uid = object_uid(workflow)
    return [
        pod
        for pod in list(pods.values())
        if any(one.get("uid") == uid for one in pod["metadata"].get("ownerReferences") or ())
    ]


def _node_id(workflow: str, node: str) -> str:
    return workflow if node == workflow else f"{workflow}-{_fnv(node)}"


def _pod_name(workflow: str, template: str, node: str) -> str:
    return f"{workflow}-{template}-{_fnv(node)}"


def _fnv(text: str) -> int:
    """The hash FNV-1a with 32 bits, as Go's hash/fnv has it."""
    value = 2166136261
    for byte in text.encode():
        value = ((value ^ byte) * 16777619) % 2**32
    return value
