"""Sweeps on bad days: values that are too long, programs that are missing, an upgrade meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

from stoke.history.job import JobState
from tests.cli import test_sweeps
from tests.cli.test_queue import waits_for
from tests.cli.test_sweeps import Lab, only_sweep
from tests.hints import filled
from tests.lab import until

two_slots, no_scheduler_left = test_sweeps.two_slots, test_sweeps.no_scheduler_left
lab = test_sweeps.lab


def test_a_sweep_shows_that_its_end_could_not_be_told(lab: Lab) -> None:
    env = {"STOKE_NOTIFY__COMMAND": json.dumps(["/no/such/program"])}
    done = lab.stoke("run", "-q", "--notify", "--each", "n=1,2", "-c", "pass", env=env)
    assert done.returncode == 0, done.stderr
    until(lambda: b"notes" in lab.stoke("show", only_sweep().id).stdout, "the note")
    assert b"notify.command failed" in lab.stoke("show", only_sweep().id).stdout


def test_tasks_with_long_values_have_checkpoints_of_their_own(lab: Lab, tmp_path: Path) -> None:
    """The values of a task may be longer than any text in the history."""
    file = tmp_path / "values.jsonl"
    rows = [{"a": "x" * 32_000, "b": "x" * 32_000, "c": "x" * 9_000 + end} for end in "yzz"]
    file.write_text("\n".join(map(json.dumps, rows)))
    code = (
        "import os; path = os.path.join(os.environ['STOKE_CHECKPOINT'], 'n')\n"
        "print('again' if os.path.exists(path) else 'first'); open(path, 'w')"
    )
    run = lab.stoke("run", "-q", "--each-file", str(file), "--max-parallel", "1", "-c", code)
    assert run.returncode == 0, run.stderr
    assert [row["last_line"] for row in lab.table(only_sweep().id)] == ["first", "first", "again"]
    assert b"damaged" not in lab.stoke("show", f"{only_sweep().id}-1").stdout


def test_a_failed_task_that_printed_nothing_shows_why(lab: Lab, tmp_path: Path) -> None:
    """An argument of more than 128 KiB, which Linux takes no longer."""
    file = tmp_path / "values.jsonl"
    file.write_text(json.dumps({"a": "x" * 32_000}) + "\n")
    run = lab.stoke("run", "--each-file", str(file), "-c", "pass", "--", "{a}{a}{a}{a}{a}")
    assert run.returncode == 1 and b"Argument list too long" in run.stdout


def test_a_job_that_follows_a_sweep_finds_the_results_of_its_tasks(lab: Lab) -> None:
    saves = (
        "import os; number = os.environ['STOKE_TASK_ID']\n"
        "if number != '2': open(os.environ['STOKE_RESULTS'] + '/r', 'w').write(number)"
    )
    sweep = lab.detach("--name", "part", "--each", "n=1..3", "-c", saves)
    reads = (
        "import os; top = os.environ['STOKE_INPUTS'] + '/part'\n"
        "print([(one, open(f'{top}/{one}/r').read()) for one in sorted(os.listdir(top))])"
    )
    then = lab.detach("--after", sweep, "-c", reads)
    assert lab.until_over(then).state is JobState.SUCCEEDED
    assert lab.stoke("logs", then).stdout == b"[('1', '1'), ('3', '3')]\n"


def test_exec_names_a_task_of_a_sweep(lab: Lab) -> None:
    sweep = lab.detach("--each", "n=1..3", "-c", waits_for(lab.gate))
    until(lambda: lab.running(sweep) == 2, "two tasks that run")
    refused = lab.stoke("exec", sweep, "true").stderr.decode()
    assert f"{sweep} is a sweep" in refused
    hint = refused.partition("hint: ")[2].strip()
    (task,) = filled(hint, "name one of its tasks: stoke exec {}")
    assert lab.stoke("exec", task, "true").returncode == 0
    lab.gate.touch()
    lab.until_over(sweep)
    hint = lab.stoke("exec", sweep, "true").stderr.decode().partition("hint: ")[2].strip()
    (same,) = filled(hint, "list its tasks: stoke show {}")
    assert lab.stoke("show", same).returncode == 0
