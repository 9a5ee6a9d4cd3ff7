"""`stoke logs` of sweeps on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from stoke.history.database import History
from stoke.history.sweeps import Sweeps
from tests.cli import test_sweeps
from tests.cli.test_queue import waits_for
from tests.cli.test_sweeps import Lab, only_sweep
from tests.hints import filled
from tests.lab import until

two_slots, no_scheduler_left = test_sweeps.two_slots, test_sweeps.no_scheduler_left
lab = test_sweeps.lab


def test_logs_of_all_tasks_and_of_one(lab: Lab) -> None:
    lab.stoke("run", "-q", "--each", "n=1,2", "-c", "import sys; print('n', sys.argv[2])")
    sweep = only_sweep().id
    lines = lab.stoke("logs", sweep).stdout.decode().splitlines()
    assert sorted(lines) == [f"{sweep}-1 | n 1", f"{sweep}-2 | n 2"]
    assert lab.stoke("logs", sweep, "--task", "2").stdout == b"n 2\n"
    missing = lab.stoke("logs", sweep, "--task", "3")
    assert missing.returncode == 2 and b"has the tasks 1 to 2, and no 3" in missing.stderr


def test_only_so_many_logs_are_printed_together(lab: Lab) -> None:
    lab.stoke("queue", "pause", "-b", "local")
    sweep = lab.detach("--each", "n=1..201", "-c", "print(1)")
    with History() as history:
        for _ in range(201):
            Sweeps(history).begin_next(sweep)
    done = lab.stoke("logs", sweep)
    hint = done.stderr.decode().partition("hint: ")[2].strip()
    (name,) = filled(hint, "name one of them: stoke logs {} --task 1")
    assert lab.stoke("logs", name, "--task", "1").returncode == 0
    assert lab.stoke("stop", sweep).returncode == 0
    assert set(lab.states(sweep)) == {"stopped"}


def test_logs_that_are_followed_have_the_tasks_that_begin_later(
    lab: Lab, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    wait = f"{waits_for(lab.gate)}\nprint('n', sys.argv[2])"
    sweep = lab.detach("--each", "n=1..5", "-c", f"import sys; {wait}")
    follow, last = start("logs", "-f", sweep), start("logs", "-f", sweep, "--task", "5")
    until(lambda: lab.running(sweep) == 2, "two tasks that run")
    lab.gate.touch()
    out, err = follow.communicate(timeout=60)
    assert sorted(out.decode().splitlines()) == [f"{sweep}-{n} | n {n}" for n in range(1, 6)], err
    assert last.communicate(timeout=60) == (b"n 5\n", b"")
    assert follow.returncode == last.returncode == 0


def test_following_the_logs_of_a_sweep_ends_with_it(
    lab: Lab, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    sweep = lab.detach("--each", "n=1..5", "-c", waits_for(lab.gate))
    follow, last = start("logs", "-f", sweep), start("logs", "-f", sweep, "--task", "5")
    until(lambda: lab.running(sweep) == 2, "two tasks that run")
    lab.stoke("stop", "--now", sweep)
    assert follow.communicate(timeout=60)[0] == b"" and follow.returncode == 0
    _, err = last.communicate(timeout=60)
    assert last.returncode == 2 and f"task 5 of {sweep} never began".encode() in err


def test_only_so_many_logs_are_followed_together(lab: Lab) -> None:
    lab.stoke("queue", "pause", "-b", "local")
    sweep = lab.detach("--each", "n=1..201", "-c", "print(1)")
    done = lab.stoke("logs", "-f", sweep)
    assert done.returncode == 2 and b"has 201 tasks; at most 200 logs" in done.stderr
    assert lab.stoke("stop", sweep).returncode == 0
