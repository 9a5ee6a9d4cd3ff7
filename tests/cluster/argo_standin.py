"""A stand-in for Argo's workflow controller: `python -m tests.cluster.argo_standin KUBECONFIG`.

Argo's controller is in none of the package registries, so an automated run cannot have it. The API
server, the kubelet and the pods of these tests are real; this is what acts between them.

It imitates, as measured with Argo Workflows 4.1:
- workflows of one container or script template, or of steps that expand one (argo_steps.py), on
  their own or by `workflowTemplateRef`, and `templateReferencing`; `{{...}}` replaced or refused as
  Argo does; `suspend`; workflow mutexes
- the pod: its name, labels, init, wait and main containers, and what Argo's executor writes into
  main's log (tests/cluster/executor)
- when it notices: at once when a workflow is new, after that REQUEUE seconds after the first change
  that it has not yet dealt with. So a job's pod is over long before its workflow is
- phase, message, labels and nodes of the workflow; task results that the pod's own service account
  reports, and a workflow that fails where it may not
- CronWorkflows (argo_cron.py)
- `spec.shutdown`, deadlines, podGC, ttlStrategy, pods that a user deleted

It is not Argo: what it has no notion of (argo_pod.UNKNOWN_*, expressions, archives,
offloading, retries) fails the workflow with a message that says "stand-in". The same tests run,
unchanged, against a cluster with Argo.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import urllib3

from tests.cluster.api import Api, ApiError, Object
from tests.cluster.argo_cron import CronWorkflows
from tests.cluster.argo_pod import PREFIX, entry_template, make_pod
from tests.cluster.argo_reading import end_of, pending_reason
from tests.cluster.argo_spec import WORKFLOWS, check_references, merged_spec
from tests.cluster.argo_steps import RunsSteps, pods_of, steps_of
from tests.cluster.argo_tags import TemplateError
from tests.cluster.work_queue import WorkQueue
from tests.cluster.workflow_fields import (
    OVER,
    Key,
    duration_seconds,
    epoch_seconds,
    held_mutexes,
    is_completed,
    is_older,
    object_key,
    object_uid,
    resource_version,
    synchronization_of,
    timestamp,
    waiting_mutexes,
    without_empty,
)

# Seconds; Argo's own default, by Argo's own name.
REQUEUE = float(os.environ.get("DEFAULT_REQUEUE_TIME", "10").removesuffix("s"))
# After a mutex is free, until the next in the queue is looked at.
NOTIFY_SECONDS = 1.0
# After a pod's own end and before Argo deletes it, where the workflow says nothing.
GC_SECONDS = 5.0
TERMINATION_SECONDS = 30
# How long a workflow waits for a pod that it may only not have seen yet, and for results.
RECENT_SECONDS = 10
RESULT_SECONDS = 600


class Standin(RunsSteps):
    def __init__(self, api: Api) -> None:
        self._api = api
        self._workflows: dict[Key, Object] = {}
        self._pods: dict[Key, Object] = {}
        self._crons = CronWorkflows(api)
        self._queue = WorkQueue()
        self._done: set[str] = set()
        """Uids of pods whose cleaning up is under way."""

    def run(self) -> None:
        selector = {"labelSelector": f"{PREFIX}workflow"}
        for path, query, take in (
            (f"{WORKFLOWS}/workflows", {}, self._take_workflow),
            (f"{WORKFLOWS}/cronworkflows", {}, self._crons.take),
            ("/api/v1/pods", selector, self._take_pod),
        ):
            threading.Thread(target=self._watch, args=(path, query, take), daemon=True).start()
        self._crons.start()
        while True:
            key = self._queue.next()
            try:
                self._reconcile(key)
            except (ApiError, urllib3.exceptions.HTTPError) as error:
                print(f"{key}: {error}", flush=True)
                self._queue.add(key, 1.0)
            except Exception:
                traceback.print_exc()  # one workflow must not end all
                self._queue.add(key, REQUEUE)

    # ---- workflows and pods, as the watches report them ----

    def _watch(
        self, path: str, query: Mapping[str, str], take: Callable[[str, Object], None]
    ) -> None:
        while True:
            try:
                listed = self._api.get(path, query)
                version = listed["metadata"]["resourceVersion"]
                take("LISTED", listed)
                while True:
                    for event in self._api.watch(path, version, query):
                        if event["type"] == "ERROR":
                            raise ApiError(410, "Expired", str(event["object"]))
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            take(event["type"], event["object"])
            except (ApiError, urllib3.exceptions.HTTPError, ValueError) as error:
                print(f"{path}: {error}", flush=True)
                time.sleep(0.5)
            except Exception:
                traceback.print_exc()  # what one event did must not end the watch
                time.sleep(0.5)

    def _take_workflow(self, what: str, found: Object) -> None:
        if what == "LISTED":
            self._workflows = {object_key(one): one for one in found["items"]}
            for key in self._workflows:
                self._queue.add(key, 0)
            return
        key = object_key(found)
        if what == "DELETED":
            self._workflows.pop(key, None)
            if held_mutexes(found) or waiting_mutexes(found):
                self._wake_waiting()
            return
        known = self._workflows.get(key)
        if known is not None and resource_version(known) > resource_version(found):
            return  # older than what we wrote
        self._workflows[key] = found
        if is_completed(found):
            if known is not None and known["spec"] != found["spec"]:
                self._queue.add(key, 0)  # its ttlStrategy may be another
        else:
            new = known is None or known["metadata"]["uid"] != found["metadata"]["uid"]
            self._queue.add(key, 0 if new else REQUEUE)

    def _take_pod(self, what: str, found: Object) -> None:
        if what == "LISTED":
            self._pods = {object_key(one): one for one in found["items"]}
            return
        key = object_key(found)
        if what == "DELETED":
            self._pods.pop(key, None)
        else:
            self._pods[key] = found
        self._queue.add((key[0], found["metadata"]["labels"][f"{PREFIX}workflow"]), REQUEUE)

    # ---- one workflow ----

    def _reconcile(self, key: Key) -> None:
        workflow = self._workflows.get(key)
        if workflow is None:
            return
        if is_completed(workflow):
            self._expire(workflow)
            return
        status = workflow.get("status") or {}
        try:
            if not status.get("phase"):
                check_references(self._api, workflow)
            spec = merged_spec(self._api, workflow)
        except TemplateError as error:
            self._finish(workflow, "Error", str(error))
            return
        try:
            steps = steps_of(spec)
            if steps is not None:
                if self._acquire(workflow, spec):
                    self._run_steps(workflow, spec, steps)
                return
            template = entry_template(workflow, spec)
        except TemplateError as error:
            self._finish(workflow, "Failed", f"invalid spec: {error}")
            return
        if not self._acquire(workflow, {**spec, **synchronization_of(template)}):
            return
        pod = self._pods.get(key)
        if pod is not None and pod["metadata"].get("ownerReferences", [{}])[0].get(
            "uid"
        ) != object_uid(workflow):
            pod = None  # of an earlier workflow of this name
        node = (status.get("nodes") or {}).get(key[1])
        if node is None:
            self._begin(workflow, spec, template)
        else:
            self._assess(workflow, spec, template, node, pod)

    def _begin(self, workflow: Object, spec: Object, template: Object) -> None:
        status: Object = {"phase": "Running", "startedAt": timestamp(), "progress": "0/1"}
        if spec.get("suspend"):
            self._write(workflow, status)  # and it stays so, even where it is shut down
            return
        if spec.get("shutdown"):
            self._finish(workflow, "Failed", f"Stopped with strategy '{spec['shutdown']}'")
            return
        namespace, name = object_key(workflow)
        # One that is made again, because its pod was deleted before it was seen running.
        known = ((workflow.get("status") or {}).get("nodes") or {}).get(name) or {}
        started = (workflow.get("status") or {}).get("startedAt") or status["startedAt"]
        node = {
            "id": name,
            "name": name,
            "displayName": name,
            "type": "Pod",
            "templateName": template["name"],
            "templateScope": f"local/{name}",
            "phase": "Pending",
            "startedAt": known.get("startedAt") or timestamp(),
            "finishedAt": None,
            "progress": "0/1",
        }
        try:
            self._api.create(
                f"/api/v1/namespaces/{namespace}/pods", make_pod(workflow, spec, template)
            )
        except TemplateError as error:
            self._finish(workflow, "Failed", f"invalid spec: {error}")
            return
        except ApiError as error:
            if error.reason != "AlreadyExists":
                # Denied by a quota, by Pod Security, by a webhook, or no such service account.
                node["message"] = error.message
                if error.status == 403 and "exceeded quota" in error.message:
                    self._write(workflow, {**status, "nodes": {name: node}})
                    self._queue.add((namespace, name), REQUEUE)
                    return
                node.update(phase="Error", finishedAt=timestamp())
                message = f"error in entry template execution: {error.message}"
                self._finish(workflow, "Error", message, startedAt=started, nodes={name: node})
                return
        self._write(workflow, {**status, "startedAt": started, "nodes": {name: node}})
        if seconds := spec.get("activeDeadlineSeconds"):
            self._queue.add((namespace, name), float(seconds))

    def _assess(
        self, workflow: Object, spec: Object, template: Object, node: Object, pod: Object | None
    ) -> None:
        namespace, name = object_key(workflow)
        node = dict(node)
        if pod is None:
            self._assess_without_pod(workflow, spec, template, node)
            return
        phase = pod["status"].get("phase")
        node["hostNodeName"] = pod["spec"].get("nodeName", "")
        if phase in ("Succeeded", "Failed"):
            # Also where it was said to have failed when it was told to stop.
            node |= end_of(pod)
        elif node["phase"] not in OVER:
            node["phase"] = phase
            node["message"] = pending_reason(pod) if phase == "Pending" else ""
            reason = self._reason_to_stop(workflow, spec)
            if reason:
                self._terminate(pod)
                node.update(phase="Failed", message=reason, finishedAt=timestamp())
        status: Object = {"nodes": {name: node}, "progress": node["progress"]}
        if node["phase"] not in OVER:
            self._write(workflow, {**status, "phase": "Running"})
        elif self._results_under_way(namespace, name, node):
            self._write(workflow, {**status, "phase": "Running"})
            self._queue.add((namespace, name), REQUEUE)
        elif spec.get("shutdown"):
            message = f"Stopped with strategy '{spec['shutdown']}'"
            self._finish(workflow, node["phase"], message, **status)
        else:
            self._finish(workflow, node["phase"], node["message"], **status)

    def _assess_without_pod(
        self, workflow: Object, spec: Object, template: Object, node: Object
    ) -> None:
        """It is deleted, or not yet seen."""
        key = object_key(workflow)
        if shutdown := spec.get("shutdown"):
            if node["phase"] not in OVER:
                message = f"workflow shutdown with strategy: {shutdown}"
                node.update(phase="Failed", message=message, finishedAt=timestamp())
            message = f"Stopped with strategy '{shutdown}'"
        elif node["phase"] in OVER:
            message = node.get("message", "")
        elif node["phase"] == "Pending":
            self._begin(workflow, spec, template)
            return
        elif time.time() - epoch_seconds(node["startedAt"]) < RECENT_SECONDS:
            self._queue.add(key, REQUEUE)
            return
        else:
            message = "pod deleted"
            node.update(phase="Error", message=message, finishedAt=timestamp())
        status: Object = {"nodes": {key[1]: node}}
        if self._results_under_way(*key, node):
            self._write(workflow, status)
            self._queue.add(key, REQUEUE)
        else:
            self._finish(workflow, node["phase"], message, **status)

    def _reason_to_stop(self, workflow: Object, spec: Object) -> str:
        if spec.get("shutdown"):
            return f"workflow shutdown with strategy:  {spec['shutdown']}"
        seconds = spec.get("activeDeadlineSeconds")
        if seconds is not None:
            left = epoch_seconds(workflow["status"]["startedAt"]) + float(seconds) - time.time()
            if left <= 0:
                return "Step exceeded its deadline"
            self._queue.add(object_key(workflow), left)
        return ""

    # ---- its mutexes ----

    def _acquire(self, workflow: Object, spec: Object) -> bool:
        """Whether it holds all the mutexes it wants; otherwise record what it waits for."""
        namespace = object_key(workflow)[0]
        wanted = [
            f"{one.get('namespace') or namespace}/Mutex/{one['name']}"
            for one in (spec.get("synchronization") or {}).get("mutexes", [])
        ]
        if not wanted or held_mutexes(workflow):
            return True
        # The list first, at once: another thread changes the dictionary.
        others = [
            one for one in list(self._workflows.values()) if object_uid(one) != object_uid(workflow)
        ]
        ahead = [one for one in others if waiting_mutexes(one) and is_older(one, workflow)]
        taken = {mutex for one in others if not is_completed(one) for mutex in held_mutexes(one)}
        taken |= {mutex for one in ahead if not is_completed(one) for mutex in waiting_mutexes(one)}
        for mutex in wanted:
            if mutex in taken:
                if workflow.get("spec", {}).get("shutdown"):
                    message = f"Stopped with strategy '{workflow['spec']['shutdown']}'"
                    self._finish(workflow, "Failed", message)
                    return False
                waiting = {"waiting": [{"mutex": one} for one in wanted]}
                message = f"Waiting for {mutex} lock. Lock status: 0/1"
                status = {"synchronization": {"mutex": waiting}, "message": message}
                self._write(workflow, {"phase": "Pending", **status})
                return False
        holder = "/".join(object_key(workflow))
        holding = {"holding": [{"mutex": one, "holder": holder} for one in wanted], "waiting": None}
        self._write(workflow, {"synchronization": {"mutex": holding}, "message": ""})
        return True

    def _wake_waiting(self) -> None:
        for key, one in list(self._workflows.items()):
            if waiting_mutexes(one):
                self._queue.add(key, NOTIFY_SECONDS)

    # ---- its end ----

    def _finish(self, workflow: Object, phase: str, message: str, **status: Any) -> None:
        known = workflow.get("status") or {}
        locked = bool(held_mutexes(workflow) or waiting_mutexes(workflow))
        finished = timestamp()
        labels = {f"{PREFIX}completed": "true"}
        conditions = [
            {"type": "PodRunning", "status": "False"},
            {"type": "Completed", "status": "True"},
        ]
        written = self._write(
            workflow,
            {
                "startedAt": known.get("startedAt") or finished,
                **status,
                "phase": phase,
                "message": message,
                "finishedAt": finished,
                "conditions": conditions,
                "synchronization": None,
            },
            labels,
        )
        if locked:
            self._wake_waiting()
        if not written:
            return
        namespace, name = object_key(workflow)
        results = f"{WORKFLOWS}/namespaces/{namespace}/workflowtaskresults"
        for node in {name, *((workflow.get("status") or {}).get("nodes") or {})}:
            self._gone(partial(self._api.delete, f"{results}/{node}"))
        self._expire(workflow)

    def _expire(self, workflow: Object) -> None:
        """podGC and ttlStrategy of a workflow that is over."""
        key = object_key(workflow)
        try:
            spec = merged_spec(self._api, workflow)
        except TemplateError:
            spec = workflow["spec"]
        for pod in pods_of(workflow, self._pods):
            if object_uid(pod) not in self._done:
                self._done.add(object_uid(pod))
                self._collect(pod, spec, workflow["status"]["phase"])
        ttl = spec.get("ttlStrategy") or {}
        which = "Success" if workflow["status"]["phase"] == "Succeeded" else "Failure"
        seconds = ttl.get(f"secondsAfter{which}", ttl.get("secondsAfterCompletion"))
        if seconds is None:
            return
        left = epoch_seconds(workflow["status"]["finishedAt"]) + float(seconds) - time.time()
        if left > 0:
            self._queue.add(key, left)
        else:
            path = f"{WORKFLOWS}/namespaces/{key[0]}/workflows/{key[1]}"
            options = {
                "propagationPolicy": "Background",
                "preconditions": {"uid": object_uid(workflow)},
            }
            self._gone(lambda: self._api.delete(path, options))

    def _collect(self, pod: Object, spec: Object, phase: str) -> None:
        gc = spec.get("podGC") or {}
        strategy = gc.get("strategy", "")
        succeeded = phase == "Succeeded"
        path = "/api/v1/namespaces/{}/pods/{}".format(*object_key(pod))
        if strategy in ("OnPodCompletion", "OnWorkflowCompletion") or (
            strategy in ("OnPodSuccess", "OnWorkflowSuccess") and succeeded
        ):
            options = {"preconditions": {"uid": object_uid(pod)}}
            delay = duration_seconds(gc.get("deleteDelayDuration"), GC_SECONDS)
            self._later(delay, lambda: self._gone(lambda: self._api.delete(path, options)))
        else:
            labels = {"metadata": {"labels": {f"{PREFIX}completed": "true"}}}
            self._gone(lambda: self._api.merge(path, labels))

    def _terminate(self, pod: Object) -> None:
        """A pod that has not begun is deleted. Of another, every container is sent SIGTERM, and after
        the pod's grace SIGKILL, by a command run inside it."""
        if pod["status"].get("phase") == "Pending":
            path = "/api/v1/namespaces/{}/pods/{}".format(*object_key(pod))
            self._later(0, lambda: self._gone(lambda: self._api.delete(path)))
            return
        grace = pod["spec"].get("terminationGracePeriodSeconds", TERMINATION_SECONDS)
        self._later(0, lambda: self._signal(pod, 15))
        self._later(grace, lambda: self._signal(pod, 9))

    def _signal(self, pod: Object, number: int) -> None:
        current = self._pods.get(object_key(pod))
        if current is None or object_uid(current) != object_uid(pod):
            return
        for container in current["status"].get("containerStatuses", []):
            if "running" in container["state"]:
                name = container["name"]
                program = "/executor" if name == "wait" else "/var/run/argo/argoexec"
                said = self._api.execute(
                    *object_key(pod), name, [program, "kill", str(number), "1"]
                )
                print(f"{object_key(pod)} {name}: {said.strip()}", flush=True)

    def _results_under_way(self, namespace: str, name: str, node: Object) -> bool:
        """Whether the wait container has begun to report and not yet said that it is done. Where it
        was killed it never will; Argo then waits long."""
        path = f"{WORKFLOWS}/namespaces/{namespace}/workflowtaskresults/{name}"
        try:
            labels = self._api.get(path)["metadata"].get("labels", {})
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        if labels.get(f"{PREFIX}report-outputs-completed") == "true":
            return False
        return time.time() - epoch_seconds(node["finishedAt"]) < RESULT_SECONDS

    def _write(
        self, workflow: Object, status: Object, labels: Mapping[str, str] | None = None
    ) -> bool:
        """`status` over what there is, and the labels that go with it. False: it is gone."""
        namespace, name = object_key(workflow)
        status = without_empty(status)
        current = workflow.get("status") or {}
        phase = status.get("phase") or current.get("phase")
        wanted: dict[str, str] = {}
        if phase:
            completed = (workflow["metadata"].get("labels") or {}).get(f"{PREFIX}completed")
            wanted = {f"{PREFIX}phase": phase, f"{PREFIX}completed": completed or "false"}
        if ref := workflow["spec"].get("workflowTemplateRef"):
            wanted[f"{PREFIX}workflow-template"] = ref["name"]
        wanted |= labels or {}
        known = workflow["metadata"].get("labels") or {}
        if all(current.get(one) == value for one, value in status.items()) and all(
            known.get(one) == value for one, value in wanted.items()
        ):
            return True
        path = f"{WORKFLOWS}/namespaces/{namespace}/workflows/{name}"
        # The uid: not to an object of the same name that came later.
        metadata = {
            "uid": object_uid(workflow),
            "labels": wanted,
            "annotations": {f"{PREFIX}pod-name-format": "v2"},
        }
        body = {"metadata": metadata, "status": status}
        try:
            written = self._api.merge(path, body)
        except ApiError as error:
            if error.status in (404, 409):
                return False  # or gone and made again
            raise
        # Never without its metadata: the watch reads it meanwhile.
        for gone in workflow.keys() - written.keys():
            del workflow[gone]
        workflow.update(written)
        self._workflows[(namespace, name)] = written
        return True

    def _later(self, seconds: float, do: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, do)
        timer.daemon = True
        timer.start()

    def _gone(self, do: Callable[[], object]) -> None:
        """Of something that may be gone, or another's by now."""
        try:
            do()
        except ApiError as error:
            if error.status not in (404, 409):
                raise


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.argo_standin")
    parser.add_argument("kubeconfig", type=Path)
    Standin(Api(parser.parse_args().kubeconfig)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
