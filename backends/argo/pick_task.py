"""Give a job of a sweep what its task needs, then run its command.

This file travels into each pod of a sweep and runs there before the runner: Python 3.9, standard
library only.

    python3 pick_task.py PAYLOAD TASKS COMMAND...

TASKS is a file of one line of JSON a task: what differs from the sweep's payload. The number of the
pod's task is in a variable, because it is the only thing of a task that the Workflow holds.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from typing import Any

NUMBER = "STOKE_SWEEP_TASK"


def with_task(payload: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Return the payload of a task. Its variables are added to those of the sweep."""
    changed = {**payload, **task}
    changed["env"] = {**payload["env"], **task["env"]}
    return changed


def main(payload_file: str, tasks_file: str, command: list[str]) -> None:
    number = int(os.environ.pop(NUMBER))
    task = b""
    with open(tasks_file, "rb") as file:
        for _ in range(number):
            task = file.readline()
    os.unlink(tasks_file)
    with gzip.open(payload_file) as file:
        payload = json.loads(file.read())
    packed = gzip.compress(json.dumps(with_task(payload, json.loads(task))).encode(), 1)
    with open(payload_file, "wb") as file:
        file.write(packed)
    os.execv(sys.executable, [sys.executable, "-I", "-S", *command])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
