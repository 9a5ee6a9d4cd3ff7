"""How the tasks of a sweep are called in its Workflow.

Argo derives the names of expanded steps and of their pods from those of workflow, step and item
(workflow/util/pod_name.go and `generateNodeName` in workflow/controller/operator.go of version 4.1), so
a task's pod is found by its name, also by a process that has seen nothing of the sweep.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

STEPS = "sweep"
"""The template that starts the tasks."""
STEP = "task"
PARAMETER = "task"
"""The input of the template of a task: its number."""
ITEM = "{{item}}"
NUMBER = f"{{{{inputs.parameters.{PARAMETER}}}}}"
NUMBER_VARIABLE = "STOKE_SWEEP_TASK"
"""The variable of a pod with the number of its task."""
TEMPLATE = "main"
"""The template of a task."""

# A job's id ends with six characters (`new_job_id`), and the id of a task is that of its sweep with the
# number of the task.
_TASK = re.compile(r"(.+-[a-z2-7]{6})-([1-9][0-9]{0,4})")
_NODE = re.compile(rf"\[0\]\.{STEP}\([0-9]+:([1-9][0-9]*)\)")


def workflow_of(job_id: str) -> str:
    """Return the name of a job's workflow. That of a task is its sweep's."""
    found = _TASK.fullmatch(job_id)
    return found[1] if found else job_id


def number_of(job_id: str) -> int | None:
    """Return the number of a task, given its job's id; None for any other job."""
    found = _TASK.fullmatch(job_id)
    return int(found[2]) if found else None


def node_name(sweep_id: str, number: int) -> str:
    return f"{sweep_id}[0].{STEP}({number - 1}:{number})"


def number_in(node: str, sweep_id: str) -> int | None:
    """Return the number of the task whose node this is, or None."""
    found = _NODE.fullmatch(node.removeprefix(sweep_id))
    return int(found[1]) if found else None


def node_id(sweep_id: str, number: int) -> str:
    return f"{sweep_id}-{_fnv(node_name(sweep_id, number))}"


def pod_of(job_id: str) -> str:
    """Return the name of a job's pod: that of its workflow, except for a task."""
    number = number_of(job_id)
    if number is None:
        return job_id
    sweep_id = workflow_of(job_id)
    return f"{sweep_id}-{TEMPLATE}-{_fnv(node_name(sweep_id, number))}"


def are_distinct(sweep_id: str, numbers: Iterable[int]) -> bool:
    """Whether no two tasks have the same node: Argo would take one for the other."""
    hashes = [_fnv(node_name(sweep_id, number)) for number in numbers]
    return len(set(hashes)) == len(hashes)


def _fnv(text: str) -> int:
    """Return the 32-bit FNV-1a hash."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value
