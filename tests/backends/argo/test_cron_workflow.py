"""The CronWorkflow of a schedule: what Argo checks, and what it makes of the times."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.argo.cron_workflow import cron_manifest, problem_of, run_manifest
from backends.argo.mounts import mounted_objects
from backends.argo.names import AWAITS_BUNDLE
from backends.argo.run_names import LONGEST, labelled_id, run_id, schedule_of
from backends.argo.task_names import number_of, pod_of, workflow_of
from backends.argo.workflow import JobManifests, make_job
from stoke.backend.capabilities import SchedulePlan
from stoke.config.model import ArgoConfig, Config
from stoke.history.job import new_job_id
from stoke.history.sweeps import task_id
from stoke.schedules.cron import parse_cron
from stoke.schedules.store import LONGEST_NAME
from tests.backends.argo.deliveries import delivery
from tests.cluster.argo_cron import next_time

CONFIG = Config(argo=ArgoConfig(cache="hostpath"))
PLAN = SchedulePlan("0 3 * * *", "Europe/Berlin")
# Argo's CustomResourceDefinition (pkg/apis/workflow/v1alpha1/cron_workflow_types.go).
SCHEDULE = re.compile(r"([A-Za-z0-9*,/?-]+\s+){4}[A-Za-z0-9*,/?-]+")


def manifests_of(code: str = "print(1)", **fields: Any) -> JobManifests:
    return make_job(delivery(code, name="train", scope="team", **fields), CONFIG, recurs=True)


def cron_of(code: str = "print(1)", **fields: Any) -> dict[str, Any]:
    manifests = manifests_of(code, **fields)
    cron = cron_manifest(manifests.workflow, PLAN, 3600, manifests.bundle_object is not None)
    return {**cron, "metadata": {**cron["metadata"], "uid": "u-1"}}


def test_results_are_in_a_folder_of_each_run() -> None:
    (template,) = cron_of()["spec"]["workflowSpec"]["templates"]
    (results,) = [one for one in template["container"]["volumeMounts"] if "subPath" in one]
    assert results["subPath"] == "results/{{workflow.name}}"


def test_a_long_bundle_is_one_object_of_all_runs() -> None:
    numbers = random.Random(1)
    words = " ".join(str(numbers.random()) for _ in range(40_000))
    manifests = manifests_of(f"{words!r}")
    assert manifests.bundle_object is not None
    name = manifests.bundle_object["metadata"]["name"]
    cron = cron_manifest(manifests.workflow, PLAN, 3600, True)
    assert cron["spec"]["suspend"] and AWAITS_BUNDLE in cron["metadata"]["labels"]
    assert AWAITS_BUNDLE not in cron["spec"]["workflowMetadata"]["labels"]
    assert "stoke.carries" not in cron["spec"]["workflowMetadata"]["labels"]
    assert list(mounted_objects(cron["spec"]["workflowSpec"])) == [("configmaps", name)]


def test_labels_and_annotations_of_the_user_are_on_the_runs() -> None:
    cron = cron_of(labels={"team": "red"}, annotations={"why": "nightly"})
    for about in (cron["metadata"], cron["spec"]["workflowMetadata"]):
        assert about["labels"]["team"] == "red" and about["annotations"] == {"why": "nightly"}
    run = run_manifest(cron, 1_790_000_000)["metadata"]
    assert run["annotations"] == {
        "why": "nightly",
        "workflows.argoproj.io/scheduled-time": "2026-09-21T14:13:20Z",
    }


def test_the_controller_of_an_instance_id_sees_the_cron_workflow_and_its_runs() -> None:
    config = Config(argo=ArgoConfig(cache="none", instance_id="blue"))
    manifests = make_job(delivery("print(1)", scope="team"), config, recurs=True)
    cron = cron_manifest(manifests.workflow, PLAN, 60, False)
    cron["metadata"]["uid"] = "u-1"
    label = "workflows.argoproj.io/controller-instanceid"
    assert cron["metadata"]["labels"][label] == "blue"
    assert run_manifest(cron, 1)["metadata"]["labels"][label] == "blue"


def test_a_problem_is_a_condition_that_holds() -> None:
    said = {"type": "SpecError", "message": "a\nb"}
    assert problem_of({"status": {"conditions": [{**said, "status": "True"}]}}) == "a b"
    assert problem_of({"status": {"conditions": [{**said, "status": "False"}]}}) is None
    assert problem_of({"status": {"conditions": [{"type": "Completed", "status": "True"}]}}) is None
    assert problem_of({}) is None


@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,38}[a-z0-9]", fullmatch=True))
def test_the_id_of_a_run_is_told_from_all_others(name: str) -> None:
    schedule_id = new_job_id(name)
    assert len(schedule_id) <= LONGEST and len(name) <= LONGEST_NAME
    for at in (1_000_000_000, 1_790_000_000, 9_999_999_999):
        job_id = run_id(schedule_id, at)
        assert len(job_id) <= 63, "the name is a label, and the pod's host name"
        assert schedule_of(job_id) == labelled_id(job_id) == schedule_id
        assert workflow_of(job_id) == pod_of(job_id) == job_id and number_of(job_id) is None
    for number in (1, 7, 5000, 99_999):
        assert schedule_of(task_id(schedule_id, number)) is None
    assert schedule_of(schedule_id) is None and labelled_id(schedule_id) == schedule_id


# ---------------------------------------------------------------------------- times


@st.composite
def fields_of_days(draw: st.DrawFn, first: int, last: int) -> str:
    number = st.integers(first, last)
    low, high = sorted((draw(number), draw(number)))
    step = draw(st.integers(1, 9))
    return draw(
        st.sampled_from(
            ["*", f"*/{step}", str(low), f"{low}-{high}", f"{low}-{high}/{step}", f"{low},{high}"]
        )
    )


@given(
    fields_of_days(1, 28),
    fields_of_days(0, 7),
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),
)
def test_argo_reads_the_times_as_cron_does(days: str, weekdays: str, now: datetime) -> None:
    times = parse_cron(f"*/20 7,19 {days} * {weekdays}")
    line = times.unambiguous_line()
    if line is None:
        assert days.startswith("*/") or weekdays.startswith("*/")
        return
    assert SCHEDULE.fullmatch(line)
    expected = times.next_after(now)
    assert expected is not None
    assert next_time(line, now.replace(tzinfo=UTC)) == expected.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("@weekly", "0 0 * * 0"),
        ("5 4 * * sun,7", "5 4 * * 0"),
        ("*/10 9-17 1-31 jan mon", "*/10 9-17 "
         + ",".join(map(str, range(1, 32))) + " 1 1"),
        ("0 3 */2 * *", "0 3 " + ",".join(map(str, range(1, 32, 2))) + " * *"),
        ("0 3 * * 0-7", "0 3 * * *"),
        ("0 3 */2 * mon", None),
    ],
)  # fmt: skip
def test_lines_for_argo(text: str, line: str | None) -> None:
    assert parse_cron(text).unambiguous_line() == line
