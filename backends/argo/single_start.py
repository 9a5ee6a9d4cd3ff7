"""Run a job's command unless it was started before (`argo.at_most_once`).

This file travels into the pod and runs there before the runner: Python 3.9, standard library only.

    python3 single_start.py FOLDER COMMAND...

Argo creates a pod again that was deleted before its controller has seen it run. The second pod has
the same name and knows nothing of the first. Both can reach the API server, with the right to
create and patch task results that Argo's containers need in every pod. So the first start creates a
task result named after the job, and the server refuses to create it twice. The task result has no
label that Argo looks for, and the workflow owns it, so both are deleted together.

FOLDER holds the service account's token, the server's certificate authority and the namespace.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from typing import Any, Callable, Dict, Optional, Tuple

GROUP = "argoproj.io/v1alpha1"
STARTED_BEFORE = "stoke: started before: "
NOT_SURE = "stoke: not sure whether it was started before: "
TERMINATION_LOG = "/dev/termination-log"
POD = "stoke.pod"
WORKFLOW = "STOKE_WORKFLOW"
"""The variable that holds the workflow's name, a slash and its uid."""
TASK = "STOKE_SWEEP_TASK"
"""The variable that holds the number of a sweep's task."""
POD_UID = "STOKE_POD"
EXIT = 125
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)

Answer = Tuple[int, Dict[str, Any]]
"""The status (0 without a response) and the body."""
Ask = Callable[[str, str, Dict[str, Any]], Answer]
"""Called with a method, a name (empty for the collection) and a body."""


def why_not_started(
    ask: Ask, result: Dict[str, Any], pause: Callable[[float], None]
) -> Optional[str]:
    """Return None once `result` exists and is this pod's, else the reason why the job must not
    start."""
    name, pod = result["metadata"]["name"], result["metadata"]["labels"][POD]
    said = ""
    for seconds in PAUSES:
        status, body = ask("POST", "", result)
        if status == 201:
            return None
        if status == 409:
            # It may be this pod's own if a response was lost. An empty patch reads it.
            status, body = ask("PATCH", name, {})
            other = (body.get("metadata", {}).get("labels") or {}).get(POD)
            if status == 200:
                return None if other == pod else STARTED_BEFORE + str(other)
        said = "%s %s" % (status or "no answer", body.get("message", ""))
        if status in (401, 403, 404):
            break
        pause(seconds)
    return NOT_SURE + said.strip()


def end(why: str) -> None:
    with open(TERMINATION_LOG, "w") as file:
        file.write(why[:1000])
    sys.exit(EXIT)


def main(folder: str, command: "list[str]") -> None:
    job, _, workflow_uid = os.environ.pop(WORKFLOW, "").partition("/")
    task = os.environ.get(TASK)
    start = job + "-" + task if task else job
    pod = os.environ.pop(POD_UID, "")
    if not (workflow_uid and pod):
        end(NOT_SURE + "its WorkflowTemplate was created without argo.at_most_once")

    def read(name: str) -> str:
        with open(os.path.join(folder, name)) as file:
            return file.read().strip()

    result = {
        "apiVersion": GROUP,
        "kind": "WorkflowTaskResult",
        "metadata": {
            "name": start + "-started",
            "labels": {"stoke.managed": "true", "stoke.job": job, POD: pod},
            "ownerReferences": [
                {
                    "apiVersion": GROUP,
                    "kind": "Workflow",
                    "name": job,
                    "uid": workflow_uid,
                }
            ],
        },
    }
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    server = "[%s]" % host if ":" in host else host
    base = "https://%s:%s/apis/%s/namespaces/%s/workflowtaskresults" % (
        server,
        os.environ["KUBERNETES_SERVICE_PORT"],
        GROUP,
        read("namespace"),
    )
    context = ssl.create_default_context(cafile=os.path.join(folder, "ca.crt"))
    # Since Python 3.13 the defaults reject the CA of many clusters.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )

    def ask(method: str, name: str, body: Dict[str, Any]) -> Answer:
        kind = "application/json" if method == "POST" else "application/merge-patch+json"
        request = urllib.request.Request(
            base + ("/" + name if name else ""),
            json.dumps(body).encode(),
            {"Authorization": "Bearer " + read("token"), "Content-Type": kind},
            method=method,
        )
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            try:
                return error.code, json.loads(error.read())
            except ValueError:
                return error.code, {}
        except (OSError, ValueError) as error:
            return 0, {"message": str(error)}

    why = why_not_started(ask, result, time.sleep)
    if why is not None:
        end(why)
    os.execv(sys.executable, [sys.executable, "-I", "-S", *command])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
