"""The Workflow of a sweep holds numbers of tasks, and none of their values."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import re
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from backends.argo import ArgoBackend, bundle
from backends.argo.pick_task import NUMBER as VARIABLE
from backends.argo.sweeps import MOST_TASKS
from backends.argo.task_names import (
    NUMBER_VARIABLE,
    are_distinct,
    node_id,
    node_name,
    number_in,
    number_of,
    pod_of,
    workflow_of,
)
from backends.argo.workflow import JobManifests, make_job
from stoke.backend.capabilities import SweepPlan
from stoke.config.model import ArgoConfig, Config
from stoke.delivery.task_delivery import SweepDelivery
from stoke.errors import RequestError
from tests.backends.argo.deliveries import delivery
from tests.hints import refused

CONFIG = Config(argo=ArgoConfig(cache="hostpath"))
VALUES = (
    "{{workflow.name}}",
    "{{item}} {{inputs.parameters.task}}",
    'it\'s "quoted" \\ and $(HOME) $$',
    "two\nlines\twith a tab",
    "{{=sprig.env('HOME')}}",
    "-1",
    "ünïcödé",
)


def plan_of(*values: str, **limits: Any) -> tuple[SweepDelivery, SweepPlan]:
    whole = delivery("print(1)", args=("<{q}>",), env={"OWN": "kept"}, scope="team")
    tasks = SweepDelivery(whole, ("q",))
    lines = [
        json.dumps(tasks.differences(f"{number:016x}", "name", (value,), number)).encode()
        for number, value in enumerate(values, 1)
    ]
    return tasks, SweepPlan(tuple(lines), **limits)


def manifests_of(plan: SweepPlan, **fields: Any) -> JobManifests:
    whole = delivery("print(1)", args=("<{q}>",), env={"OWN": "kept"}, scope="team", **fields)
    return make_job(whole, CONFIG, sweep=plan)


def test_values_are_only_in_the_bundle() -> None:
    _, plan = plan_of(*VALUES)
    made = manifests_of(plan)
    text = json.dumps(made.workflow, ensure_ascii=False)
    tags = set(re.findall(r"\{\{.*?\}\}", text))
    assert tags == {"{{item}}", "{{inputs.parameters.task}}", "{{workflow.namespace}}"}
    for value in VALUES:
        assert json.dumps(value, ensure_ascii=False)[1:-1] not in text.replace("{{item}}", "")
    assert made.bundle_object is not None and made.bundle_object["kind"] == "ConfigMap"
    assert "{" not in json.dumps(made.bundle_object["binaryData"][bundle.KEY])
    container = next(one for one in made.workflow["spec"]["templates"] if "container" in one)
    names = {one["name"] for one in container["container"]["env"]}
    assert bundle.VARIABLE not in names and bundle.SPEC_VARIABLE not in names


def test_the_steps_start_a_task_for_each_number() -> None:
    _, plan = plan_of("a", "b", "c", max_parallel=2, fail_fast=True)
    spec = manifests_of(plan).workflow["spec"]
    steps = next(one for one in spec["templates"] if one["name"] == spec["entrypoint"])
    assert steps["parallelism"] == 2 and steps["failFast"] is True
    (step,) = steps["steps"][0]
    assert step["withSequence"] == {"start": "1", "end": "3"}
    assert step["arguments"]["parameters"] == [{"name": "task", "value": "{{item}}"}]
    _, plan = plan_of("a")
    steps = manifests_of(plan).workflow["spec"]["templates"][1]
    assert "parallelism" not in steps and "failFast" not in steps


def test_each_task_has_a_folder_of_its_own_for_results() -> None:
    _, plan = plan_of("a", "b")
    workflow = manifests_of(plan).workflow
    task = next(one for one in workflow["spec"]["templates"] if one["name"] == "main")
    folders = [one["subPath"] for one in task["container"]["volumeMounts"] if "subPath" in one]
    name = workflow["metadata"]["name"]
    assert f"results/{name}-{{{{inputs.parameters.task}}}}" in folders
    assert task["metadata"]["labels"] == {"stoke.task": "{{inputs.parameters.task}}"}


def test_an_annotation_with_a_tag_is_refused_as_for_a_job() -> None:
    _, plan = plan_of("a")
    with pytest.raises(RequestError, match=r"\{\{"):
        manifests_of(plan, annotations={"note.value": "{{item}}"})


@pytest.mark.parametrize("number", [1, 4, len(VALUES)])
def test_a_pod_gets_the_payload_of_its_task(tmp_path: Path, number: int) -> None:
    tasks, plan = plan_of(*VALUES)
    made = manifests_of(plan)
    assert made.bundle_object is not None
    packed = base64.b64decode(made.bundle_object["binaryData"][bundle.KEY])
    head, _, rest = zlib.decompress(packed).partition(b"\n")
    for name, size in json.loads(head)["files"]:
        (tmp_path / name).write_bytes(rest[:size])
        rest = rest[size:]
    argv = [word.replace(bundle.FOLDER, str(tmp_path)) for word in json.loads(head)["argv"][:3]]
    show = tmp_path / "show.py"
    show.write_text("import gzip, sys; sys.stdout.write(gzip.open(sys.argv[1]).read().decode())")
    payload = str(tmp_path / "payload")
    environment = {**os.environ, NUMBER_VARIABLE: str(number)}
    ran = subprocess.run(
        [sys.executable, *argv, str(show), payload],
        env=environment,
        capture_output=True,
        check=True,
    )
    wanted = tasks.of_task("t", f"{number:016x}", "name", (VALUES[number - 1],), number)
    assert json.loads(ran.stdout) == json.loads(gzip.decompress(wanted.payload))
    assert not (tmp_path / "tasks").exists()  # The other tasks' values are none of its code's.
    assert VARIABLE == NUMBER_VARIABLE


def check(rows: Sequence[tuple[str, ...]], max_fails: int | None = None, **argo: Any) -> None:
    backend = ArgoBackend(Config(argo=ArgoConfig(**argo)))
    backend.check_sweep(delivery("1").spec, rows, max_fails)


def test_what_a_cluster_cannot_hold_is_refused_before_anything_is_sent() -> None:
    def hint(rows: Sequence[tuple[str, ...]], template: str, max_fails: int | None = None) -> None:
        refused(lambda: check(rows, max_fails), template)

    check([("x",)] * MOST_TASKS)
    hint([("x",)] * 5001, "split it into several sweeps, or run it here: -b docker")
    with pytest.raises(RequestError, match=r"would have 5,001 tasks.* at most 5,000"):
        check([("x",)] * (MOST_TASKS + 1))
    noise = random.Random(7)
    rows = [(noise.randbytes(1000).hex(),) for _ in range(1500)]
    with pytest.raises(RequestError, match=r"have 1,\d\d\d KiB compressed.* at most 1,024 KiB"):
        check(rows)
    hint(
        rows,
        "pass the names of files that the tasks fetch, split it into several sweeps, or run it here: "
        "-b docker",
    )
    check(rows[:500])
    hint([("x",)], "use --fail-fast, or leave it out", 3)
    with pytest.raises(RequestError, match="counts no failures") as caught:
        check([("x",)], 3)
    assert caught.value.field == "max_fails"
    check([("x",)], 0)
    with pytest.raises(RequestError, match="by_template"):
        check([("x",)], by_template=True)


def test_a_task_is_told_from_other_jobs_by_its_id() -> None:
    assert (workflow_of("fit-7k2pqa-17"), number_of("fit-7k2pqa-17")) == ("fit-7k2pqa", 17)
    for other in ("fit-7k2pqa", "fit-17-7k2pqa", "fit-7k2pqa-017", "fit-7k2pqa-234567"):
        assert (workflow_of(other), number_of(other)) == (other, None)
        assert pod_of(other) == other
    assert node_name("fit-7k2pqa", 17) == "fit-7k2pqa[0].task(16:17)"
    assert number_in(node_name("fit-7k2pqa", 17), "fit-7k2pqa") == 17
    # As Go's hash/fnv has it.
    assert node_id("fit-7k2pqa", 17) == "fit-7k2pqa-4243345058"
    assert pod_of("fit-7k2pqa-17") == "fit-7k2pqa-main-4243345058"


def test_tasks_whose_names_clash_are_found() -> None:
    assert are_distinct("fit-7k2pqa", range(1, MOST_TASKS + 1))
    assert not are_distinct("fit-7k2pqa", (1, 2, 1))
