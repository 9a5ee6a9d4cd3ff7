"""`stoke schedule` on a cluster, of which a stand-in stores the objects; the test is its controller."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.argo.mounts import mounted_objects
from stoke.history.database import History
from tests.backends.argo.objects_standin import Object, ObjectsStandin, objects_standin
from tests.cli.conftest import Stoke
from tests.cli.test_schedules import error, listed
from tests.hints import command, is_hint
from tests.lab import until

PLANNED = 1_790_000_000
RUN = "workflows.argoproj.io"
Add = Callable[..., Object]


@pytest.fixture
def standin(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectsStandin]:
    with objects_standin() as standin:
        monkeypatch.setenv("STOKE_ARGO__KUBECONFIG", standin.kubeconfig(own_home))
        monkeypatch.setenv("STOKE_BACKEND", "argo")
        monkeypatch.setenv("TZ", "Europe/Berlin")
        yield standin


@pytest.fixture
def script(own_home: Path) -> Path:
    path = own_home / "train.py"
    path.write_text("print('recorded')\n")
    return path


@pytest.fixture
def add(stoke: Stoke, standin: ObjectsStandin) -> Add:
    def run(*words: str, cron: str = "0 3 * * *") -> Object:
        """Add a schedule and return its CronWorkflow."""
        done = stoke("schedule", "add", "--cron", cron, *words)
        assert done.returncode == 0, done.stderr
        return the_cron(standin)

    return run


def the_cron(standin: ObjectsStandin) -> Object:
    (cron,) = standin.named("cronworkflows").values()
    return cron


def begin_run(standin: ObjectsStandin, at: int = PLANNED) -> str:
    """Begin a run as Argo does, and return its name."""
    cron = the_cron(standin)
    name = cron["metadata"]["name"]
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "CronWorkflow", "name": name}
    about = cron["spec"]["workflowMetadata"]
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "name": f"{name}-{at}",
            "labels": {f"{RUN}/cron-workflow": name, f"{RUN}/phase": "Running", **about["labels"]},
            "ownerReferences": [{**owner, "uid": cron["metadata"]["uid"], "controller": True}],
        },
        "spec": cron["spec"]["workflowSpec"],
    }
    path = "/apis/argoproj.io/v1alpha1/namespaces/team-a/workflows"
    standin.answer("POST", path, "", json.dumps(workflow).encode())
    return f"{name}-{at}"


def end_run(standin: ObjectsStandin, job_id: str, phase: str = "Succeeded") -> None:
    labels = {f"{RUN}/phase": phase, f"{RUN}/completed": "true"}
    status = {"phase": phase, "finishedAt": "2026-12-01T03:05:00Z"}
    standin.change("workflows", job_id, {"metadata": {"labels": labels}, "status": status})


def jobs(stoke: Stoke) -> list[dict[str, Any]]:
    """The jobs, as a listing has them for which all backends had the time to answer."""
    found: list[dict[str, Any]] = []

    def all_answered() -> bool:
        done = stoke("jobs", "--json")
        assert b"in time" in done.stderr or not done.stderr
        found[:] = json.loads(done.stdout)
        return not done.stderr and not any(job["stale"] for job in found)

    until(all_answered, "a listing of all jobs")
    return found


# ---------------------------------------------------------------------------- the CronWorkflow


def test_a_schedule_is_a_cron_workflow(add: Add, stoke: Stoke, script: Path) -> None:
    cron = add(str(script), "--epochs", "3")
    spec = cron["spec"]
    name = cron["metadata"]["name"]
    assert name.startswith("train-") and len(name) == len("train-") + 6
    assert spec["schedules"] == ["0 3 * * *"] and spec["timezone"] == "Europe/Berlin"
    assert spec["concurrencyPolicy"] == "Forbid" and not spec.get("suspend")
    assert spec["startingDeadlineSeconds"] == 120
    # More than a day has minutes: the time to live of its workflows decides (argo.keep).
    assert spec["successfulJobsHistoryLimit"] == spec["failedJobsHistoryLimit"] == 1441
    assert spec["workflowSpec"]["ttlStrategy"] == {"secondsAfterCompletion": 86400}
    assert spec["workflowMetadata"]["labels"]["stoke.kind"] == "job"
    (document,) = listed(stoke)
    assert document["state"] == "active" and document["next_run"] is not None
    assert document["started_by"] == "argo" and document["timezone"] == "Europe/Berlin"
    assert document["last_run"] is None and document["problem"] is None


def test_a_timezone_is_passed_on(add: Add, script: Path) -> None:
    cron = add("--timezone", "America/New_York", str(script), cron="30 6 * jan-mar sun,wed")
    assert cron["spec"]["timezone"] == "America/New_York"
    assert cron["spec"]["schedules"] == ["30 6 * 1-3 0,3"]


def test_a_machine_that_does_not_name_its_timezone(
    standin: ObjectsStandin, stoke: Stoke, script: Path
) -> None:
    words = ["schedule", "add", "--cron", "@daily"]
    done = stoke(*words, str(script), env={"TZ": "CET-1CEST"})
    assert done.returncode == 2
    named = is_hint(error(done)[1], "name it: --timezone Europe/Berlin").split()[-2:]
    assert stoke(*words, *named, str(script), env={"TZ": "CET-1CEST"}).returncode == 0
    assert the_cron(standin)["spec"]["timezone"] == "Europe/Berlin"


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (("--fresh",), "--fresh: the cluster begins the runs, and it does not see the files",
         "leave it out: each run takes the files as they are now"),
        (("--retries", "2"), "--retries: the cluster begins the runs, and no program of stoke runs",
         "leave it out"),
    ],
)  # fmt: skip
def test_what_needs_this_machine_is_refused(
    standin: ObjectsStandin,
    stoke: Stoke,
    script: Path,
    words: tuple[str, ...],
    what: str,
    hint: str,
) -> None:
    done = stoke("schedule", "add", "--cron", "@daily", *words, str(script))
    assert done.returncode == 2 and error(done)[0].startswith(what)
    is_hint(error(done)[1], hint)
    assert listed(stoke) == [] and not standin.objects
    assert stoke("schedule", "add", "--cron", "@daily", str(script)).returncode == 0


def test_days_that_argo_would_understand_otherwise_are_refused(
    standin: ObjectsStandin, stoke: Stoke, script: Path
) -> None:
    done = stoke("schedule", "add", "--cron", "0 3 */2 * mon", str(script))
    assert error(done)[0].startswith("--cron: day of month and day of week both have to match here")
    is_hint(
        error(done)[1],
        "write one of the two fields as *, or give days of the month in numbers",
    )
    for line in ("0 3 */2 * *", "0 3 1,15 * mon"):
        assert stoke("schedule", "add", "--cron", line, str(script)).returncode == 0
        stoke("schedule", "remove", "train")


def test_by_template_there_are_no_schedules(
    standin: ObjectsStandin, stoke: Stoke, script: Path
) -> None:
    words = ["schedule", "add", "--cron", "@daily", str(script)]
    done = stoke(*words, env={"STOKE_ARGO__BY_TEMPLATE": "true"})
    assert error(done)[0].startswith("backend: jobs refer to a template here")
    is_hint(
        error(done)[1], "run the schedule on this machine or in containers: -b local, -b docker"
    )
    assert not standin.objects


# ---------------------------------------------------------------------------- its runs


def test_runs_that_argo_begins_become_jobs(
    add: Add, stoke: Stoke, standin: ObjectsStandin, script: Path
) -> None:
    cron = add(str(script), "--epochs", "3")
    job_id = begin_run(standin)
    assert job_id == f"{cron['metadata']['name']}-{PLANNED}"
    (job,) = jobs(stoke)
    assert job["id"] == job_id and job["name"] == job["schedule"] == "train"
    assert job["state"] == "starting"
    with History() as history:
        assert json.loads(history.spec(job_id) or "")["args"] == ["--epochs", "3"]
    (document,) = listed(stoke)
    assert document["last_run"]["job"] == job_id and document["last_run"]["result"] == "begun"
    assert document["last_run"]["job_state"] == "starting"
    end_run(standin, job_id)
    assert jobs(stoke)[0]["state"] == "succeeded"
    assert listed(stoke)[0]["last_run"]["job_state"] == "succeeded"


@pytest.mark.parametrize("verb", ["show", "logs", "results"])
def test_a_command_that_names_a_run_finds_it(
    add: Add, stoke: Stoke, standin: ObjectsStandin, script: Path, verb: str
) -> None:
    add(str(script))
    job_id = begin_run(standin)
    end_run(standin, job_id)
    done = stoke(verb, job_id)
    assert b"no job is called" not in done.stderr
    with History() as history:
        job = history.get(job_id)
        assert job is not None and job.schedule == "train"
        # Of a job that was submitted here, and not one that was found.
        assert job.request_hash is not None
    assert b"no job is called" in stoke("show", f"{job_id}9").stderr


def test_a_finished_run_is_released_and_its_workflow_stays(
    add: Add, stoke: Stoke, standin: ObjectsStandin, own_home: Path
) -> None:
    (own_home / "login").write_text("hidden")
    add("--name", "train", "--secret", f"LOGIN=file:{own_home / 'login'}", "-c", "print(1)")
    job_id = begin_run(standin)
    end_run(standin, job_id)
    assert jobs(stoke)[0]["state"] == "succeeded"
    until(
        lambda: "stoke.released" in standin.named("workflows")[job_id]["metadata"]["labels"],
        "its release",
    )
    assert list(standin.named("secrets")) == [the_cron(standin)["metadata"]["name"]]
    assert stoke("rm", job_id).returncode == 0
    assert not standin.named("workflows") and jobs(stoke) == []


def test_a_run_of_another_machine_is_adopted(
    add: Add, stoke: Stoke, standin: ObjectsStandin, script: Path, own_home: Path
) -> None:
    add(str(script))
    job_id = begin_run(standin)
    other = {"STOKE_STATE_DIR": str(own_home / "other")}
    (job,) = json.loads(stoke("jobs", "--all", "--json", env=other).stdout)
    assert job["id"] == job_id and job["schedule"] is None


def test_a_run_begins_now_as_argo_begins_it(
    add: Add, stoke: Stoke, standin: ObjectsStandin, script: Path
) -> None:
    cron = add(str(script))
    done = stoke("schedule", "run", "train")
    job_id = done.stdout.decode().strip()
    run = standin.named("workflows")[job_id]
    assert run["spec"] == cron["spec"]["workflowSpec"]
    (owner,) = run["metadata"]["ownerReferences"]
    assert owner["uid"] == cron["metadata"]["uid"] and owner["controller"]
    assert run["metadata"]["labels"][f"{RUN}/cron-workflow"] == cron["metadata"]["name"]
    assert [job["id"] for job in jobs(stoke)] == [job_id]
    done = stoke("schedule", "run", "train")
    assert f"skipped: {job_id} of an earlier run has not ended".encode() in done.stderr
    assert list(standin.named("workflows")) == [job_id]


# ---------------------------------------------------------------------------- pause, resume, remove


def test_pause_and_resume(add: Add, stoke: Stoke, standin: ObjectsStandin, script: Path) -> None:
    add(str(script))
    assert stoke("schedule", "pause", "train").returncode == 0
    assert the_cron(standin)["spec"]["suspend"] is True
    assert listed(stoke)[0]["state"] == "paused" and listed(stoke)[0]["next_run"] is None
    assert stoke("schedule", "resume", "train").returncode == 0
    assert the_cron(standin)["spec"]["suspend"] is False
    assert listed(stoke)[0]["state"] == "active"


def test_the_cluster_has_the_last_word(
    add: Add, stoke: Stoke, standin: ObjectsStandin, script: Path
) -> None:
    name = add(str(script))["metadata"]["name"]
    standin.change("cronworkflows", name, {"spec": {"suspend": True}})
    assert listed(stoke)[0]["state"] == "paused"
    why = {"type": "SubmissionError", "status": "True", "message": "Failed to submit\nWorkflow: x"}
    standin.change("cronworkflows", name, {"status": {"conditions": [why]}})
    assert listed(stoke)[0]["problem"] == "Failed to submit Workflow: x"
    assert b"no run can begin: Failed to submit Workflow: x" in stoke("schedule", "list").stdout
    standin.denied.add(("get", "cronworkflows"))
    assert listed(stoke)[0]["state"] == "unknown"


def test_a_cron_workflow_that_is_gone_is_shown_and_made_again(
    add: Add, stoke: Stoke, standin: ObjectsStandin, own_home: Path
) -> None:
    (own_home / "login").write_text("hidden")
    words = ["--name", "train", "--secret", f"LOGIN=file:{own_home / 'login'}"]
    cron = add(*words, "-c", "print('code')")
    name = cron["metadata"]["name"]
    standin.delete("cronworkflows", name)
    assert not standin.objects, "Kubernetes deletes what the CronWorkflow owns"
    assert listed(stoke)[0]["state"] == "missing" and listed(stoke)[0]["next_run"] is None
    done = stoke("schedule", "run", "train")
    hint = is_hint(error(done)[1], "make it again: stoke schedule resume {}")
    assert stoke(*command(hint)).returncode == 0
    again = the_cron(standin)
    assert again["metadata"]["name"] == name and not again["spec"]["suspend"]
    assert again["spec"]["workflowMetadata"] == cron["spec"]["workflowMetadata"]
    assert listed(stoke)[0]["state"] == "active"


def test_a_removed_schedule_leaves_its_jobs(
    add: Add, stoke: Stoke, standin: ObjectsStandin, own_home: Path
) -> None:
    (own_home / "login").write_text("hidden")
    add("--name", "train", "--secret", f"LOGIN=file:{own_home / 'login'}", "-c", "print(1)")
    ended, running = begin_run(standin), begin_run(standin, PLANNED + 86400)
    end_run(standin, ended)
    assert stoke("schedule", "remove", "train").returncode == 0
    assert listed(stoke) == [] and not standin.named("cronworkflows")
    assert {job["id"] for job in jobs(stoke)} == {ended, running}
    # The pod of the one that runs may not have started. The secret goes with its workflow.
    assert set(standin.named("workflows")) == {ended, running} and standin.named("secrets")
    standin.delete("workflows", running)
    assert not standin.named("secrets")


def test_a_removed_schedule_leaves_nothing_else(
    add: Add, stoke: Stoke, standin: ObjectsStandin, own_home: Path
) -> None:
    (own_home / "pkg").mkdir()
    (own_home / "pkg/data.bin").write_bytes(random.Random(1).randbytes(3 * 1024**2))
    cron = add("--name", "train", "--folder", str(own_home / "pkg"), "-c", "print(1)")
    parts = [name for name in standin.named("configmaps") if name.startswith("stoke-pack-")]
    assert len(parts) >= 3 and not cron["spec"]["suspend"]
    assert set(parts) <= {name for _, name in mounted_objects(cron["spec"]["workflowSpec"])}
    running = begin_run(standin)
    assert stoke("schedule", "remove", "train").returncode == 0
    assert set(parts) <= standin.named("configmaps").keys()
    standin.delete("workflows", running)
    assert jobs(stoke)[0]["state"] == "lost"
    assert stoke("rm", running).returncode == 0
    assert not standin.named("cronworkflows") and not standin.named("configmaps")
    assert not list((own_home / "state/jobs").iterdir())
    assert not list((own_home / "state/projects/manifests").iterdir())


# ---------------------------------------------------------------------------- what travels


def bundle_of(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def test_a_secret_of_this_machine_is_in_a_secret_and_nowhere_else(
    add: Add, standin: ObjectsStandin, own_home: Path
) -> None:
    (own_home / "login").write_text("hidden-word")
    cron = add("--name", "train", "--secret", f"LOGIN=file:{own_home / 'login'}", "-c", "print(1)")
    name = cron["metadata"]["name"]
    assert "STOKE_BUNDLE" not in json.dumps(
        cron["spec"]["workflowSpec"]["templates"][0]["container"]["env"]
    )
    secret = standin.named("secrets")[name]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == cron["metadata"]["uid"]
    assert secret["metadata"]["ownerReferences"][0]["kind"] == "CronWorkflow"
    assert not standin.named("configmaps") and "stoke.waits" not in cron["metadata"]["labels"]
    (own_home / "login").unlink()


def test_a_secret_of_the_cluster_is_only_named(add: Add, standin: ObjectsStandin) -> None:
    cron = add("--name", "train", "--secret", "LOGIN=secret:theirs/token", "-c", "print(1)")
    assert '"name": "theirs"' in json.dumps(cron) and not standin.named("secrets")


# ---------------------------------------------------------------------------- rights


@pytest.mark.parametrize("verb", ["create", "patch", "delete"])
def test_a_missing_right_is_named(
    stoke: Stoke, standin: ObjectsStandin, script: Path, verb: str
) -> None:
    add = ["schedule", "add", "--cron", "@daily", str(script)]
    if verb != "create":
        assert stoke(*add).returncode == 0
    standin.denied.add((verb, "cronworkflows"))
    words = {"create": add, "patch": ["schedule", "pause", "train"]}
    done = stoke(*words.get(verb, ["schedule", "remove", "train"]))
    assert done.returncode == 125
    assert f"you may not {verb} cronworkflows.argoproj.io" in error(done)[0]
    assert str(error(done)[1]).endswith("grant the right: stoke setup argo --apply")
    assert [one["name"] for one in listed(stoke)] == ([] if verb == "create" else ["train"])


def test_nothing_is_left_if_the_bundle_cannot_be_stored(
    stoke: Stoke, standin: ObjectsStandin, own_home: Path
) -> None:
    (own_home / "login").write_text("hidden")
    standin.denied.add(("create", "secrets"))
    words = ["schedule", "add", "--cron", "@daily", "--name", "train"]
    done = stoke(*words, "--secret", f"LOGIN=file:{own_home / 'login'}", "-c", "print(1)")
    assert "the schedule needs a Secret beside its CronWorkflow" in error(done)[0]
    assert str(error(done)[1]).startswith("refer to a secret of the cluster, --secret NAME=secret:")
    assert not standin.objects and listed(stoke) == []
    assert stoke(*words, "--secret", "LOGIN=secret:theirs/token", "-c", "print(1)").returncode == 0


def test_a_secret_that_a_running_job_needs_keeps_its_schedule(
    add: Add, stoke: Stoke, standin: ObjectsStandin, own_home: Path
) -> None:
    (own_home / "login").write_text("hidden")
    add("--name", "train", "--secret", f"LOGIN=file:{own_home / 'login'}", "-c", "print(1)")
    job_id = begin_run(standin)
    standin.denied.add(("patch", "secrets"))
    done = stoke("schedule", "remove", "train")
    hint = is_hint(error(done)[1], "try again once it has ended, or stop it: stoke stop {}")
    assert not the_cron(standin)["spec"]["suspend"]
    stoke(*command(hint))
    assert standin.named("workflows")[job_id]["spec"]["shutdown"] == "Terminate"
    end_run(standin, job_id, "Failed")
    assert stoke("schedule", "remove", "train").returncode == 0
    assert not standin.named("secrets") and not standin.named("cronworkflows")


def test_an_unreachable_cluster_is_told_and_leaves_all_as_it_was(
    add: Add, stoke: Stoke, standin: ObjectsStandin, script: Path
) -> None:
    add(str(script))
    assert standin.server is not None
    standin.server.shutdown()
    standin.server.server_close()
    done: subprocess.CompletedProcess[bytes] = stoke("schedule", "list", "--json")
    assert json.loads(done.stdout)[0]["state"] == "unknown"
    assert b"the state of train is unknown: cannot connect" in done.stderr
    assert b"the runs of schedules on argo are unknown: cannot connect" in stoke("jobs").stderr
    assert stoke("schedule", "remove", "train").returncode == 125
    assert len(listed(stoke)) == 1
