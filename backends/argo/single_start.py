"""Runs a job's command unless it was started before: `argo.at_most_once`.

Travels into the pod and runs there before the runner, so: Python 3.9, standard library only.

    python3 single_start.py FOLDER COMMAND...

Argo makes a pod again that was deleted before its controller has seen it run. The second pod has the
same name and knows nothing of the first. What both can reach is the API server, with the right that
Argo's own part of every pod needs anyway: to create and patch task results. So the first start
creates one, named after the job, and the server refuses to create it twice. It has no label that Argo
looks for, and belongs to the workflow, with which it is deleted.

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
LAST_WORDS = "/dev/termination-log"
POD = "stoke.pod"
WORKFLOW = "STOKE_WORKFLOW"
"""The variable that holds the workflow's name, a slash and its uid."""
POD_UID = "STOKE_POD"
EXIT = 125
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)

Answer = Tuple[int, Dict[str, Any]]
"""Status (0: none came) and body."""
Ask = Callable[[str, str, Dict[str, Any]], Answer]
"""Called with method, name (empty: the collection) and body."""


def why_not(ask: Ask, result: Dict[str, Any], pause: Callable[[float], None]) -> Optional[str]:
    """None once `result` is there and this pod's; else why the job must not start."""
    name, pod = result["metadata"]["name"], result["metadata"]["labels"][POD]
    said = ""
    for seconds in PAUSES:
        status, body = ask("POST", "", result)
        if status == 201:
            return None
        if status == 409:
            # This pod's own, if an answer was lost; a patch that changes nothing reads it.
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
    with open(LAST_WORDS, "w") as file:
        file.write(why[:1000])
    sys.exit(EXIT)


def main(folder: str, command: "list[str]") -> None:
    job, _, workflow_uid = os.environ.pop(WORKFLOW, "").partition("/")
    pod = os.environ.pop(POD_UID, "")
    if not (workflow_uid and pod):
        end(NOT_SURE + "its WorkflowTemplate was made without argo.at_most_once")

    def read(name: str) -> str:
        with open(os.path.join(folder, name)) as file:
            return file.read().strip()

    result = {
        "apiVersion": GROUP,
        "kind": "WorkflowTaskResult",
        "metadata": {
            "name": job + "-started",
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
    # Python 3.13 asks more of an authority than Kubernetes does.
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

    why = why_not(ask, result, time.sleep)
    if why is not None:
        end(why)
    os.execv(sys.executable, [sys.executable, "-I", "-S", *command])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
