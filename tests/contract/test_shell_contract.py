"""Shells and programs inside jobs, at real terminals, on every backend."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stoke.backend.api import EngineStatus
from stoke.history.database import History
from stoke.history.job import Job, JobState
from stoke.jobs.control import stop
from tests.cli.conftest import only_job
from tests.hints import filled
from tests.lab import Lab, until
from tests.terminals import PATIENCE, PROGRAM, Terminal

WAITS = "import time; print('ready', flush=True); time.sleep(600)"


@pytest.fixture
def terminal(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> Iterator[Callable[..., Terminal]]:
    """Run `stoke` at a terminal, with jobs in the lab's scope."""
    monkeypatch.setenv("STOKE_SCOPE", lab.scope)
    monkeypatch.setenv("STOKE_BACKEND", lab.backend.name)
    monkeypatch.chdir(own_home)
    opened: list[Terminal] = []

    def run(*arguments: str, size: tuple[int, int] = (24, 80)) -> Terminal:
        opened.append(Terminal(*arguments, size=size))
        return opened[-1]

    yield run
    for one in opened:
        one.close()
    with History() as history:
        for job in history.list(unfinished=True):
            stop(job, lab.backend, history, 0)


@pytest.fixture
def shell(terminal: Callable[..., Terminal]) -> Terminal:
    """A shell that answers."""
    shell = terminal("shell")
    assert shell.answer("echo $((6 * 7))") == "42\n"
    return shell


@pytest.fixture
def job(lab: Lab, terminal: object) -> Job:
    """A job that runs."""
    job = lab.submit(WAITS, env={"GREETING": "hello there"})
    lab.track(job)
    lab.until_output(job, b"ready")
    return job


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [PROGRAM, *arguments], input=stdin, capture_output=True, timeout=PATIENCE, check=False
    )
    # What stoke says on a busy machine, once a second has passed.
    done.stderr = re.sub(rb"stoke: \S+ is not ready yet; waiting for it\n", b"", done.stderr)
    return done


def test_a_shell_has_a_terminal_of_the_users_size(
    lab: Lab, terminal: Callable[..., Terminal]
) -> None:
    shell = terminal("shell", size=(31, 97))
    assert shell.answer("tty").startswith("/dev/pts/")
    assert shell.answer("stty size") == "31 97\n"
    assert shell.answer("echo $TERM") == "xterm-256color\n"
    shell.resize(50, 120)
    until(lambda: shell.answer("stty size") == "50 120\n", "the new size")
    job = only_job()
    assert (job.kind, job.state, job.backend) == ("shell", JobState.RUNNING, lab.backend.name)
    shell.type("exit\r")
    assert shell.wait() == 0
    assert only_job().state is JobState.SUCCEEDED
    assert lab.backend.inspect(job.id).status is not EngineStatus.RUNNING


def test_ctrl_c_interrupts_the_program_and_not_the_shell(shell: Terminal) -> None:
    before = len(shell.screen)
    shell.type("echo sleep''ing; sleep 600; echo woke with $?\r")
    shell.until(b"sleeping\r\n", before)
    shell.type("\x03")
    assert shell.answer("echo here") == "here\n"
    shell.type("exit 7\r")
    assert shell.wait() == 7
    job = only_job()
    assert (job.state, job.exit_code) == (JobState.FAILED, 7)


def test_a_shell_has_job_control(shell: Terminal) -> None:
    before = len(shell.screen)
    # One process: a shell that is just starting another one does not stop.
    program = (
        "import signal as s, time; s.signal(s.SIGCONT, lambda *_: print('goes on', flush=True)); "
        "print('sleep' 'ing', flush=True); [time.sleep(0.1) for _ in iter(int, 1)]"
    )
    shell.type(f'python3 -c "{program}"\r')
    shell.until(b"sleeping\r\n", before)
    shell.type("\x1a")
    shell.until(b"Stopped", before)
    assert "Stopped" in shell.answer("jobs %1")
    # Not killed by the shell: bash 5.2 sometimes misses the end of a job that it kills.
    before = len(shell.screen)
    shell.type("fg %1\r")
    shell.until(b"\r\ngoes on\r\n", before)
    shell.type("\x03")
    assert shell.answer("jobs") == ""
    shell.type("exit 0\r")
    assert shell.wait() == 0


def test_the_exit_code_of_an_interrupted_command_is_no_signal(shell: Terminal) -> None:
    shell.type("exit 130\r")
    assert shell.wait() == 130
    job = only_job()
    assert (job.state, job.exit_code) == (JobState.FAILED, 130)
    assert job.reason == "the shell ended with exit code 130"


def test_python_in_a_shell_is_the_environments(
    lab: Lab,
    terminal: Callable[..., Terminal],
    own_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if lab.backend.name == "local":
        # What pyenv and conda tell their users to write there.
        monkeypatch.setenv("HOME", str(own_home))
        (own_home / ".bashrc").write_text("PATH=/usr/bin:$PATH\nMINE=yes\nPS1='my prompt> '\n")
    shell = terminal("shell", "--env", "GREETING=hello there")
    python = shell.answer("command -v python").strip()
    assert shell.answer("python -c 'import sys; print(sys.executable)'").strip() == python
    assert shell.answer("echo $GREETING") == "hello there\n"
    if lab.backend.name == "local":
        assert "/environment/bin/" in python
        assert shell.answer("echo $MINE") == "yes\n"
        assert b"my prompt> " in shell.screen
    shell.type("exit\r")
    assert shell.wait() == 0


def test_a_shell_without_a_terminal_reads_its_commands(lab: Lab, terminal: object) -> None:
    done = run("shell", "-q", stdin=b"tty; echo out; echo err >&2; exit 3\n")
    assert done.returncode == 3, done.stderr
    assert done.stdout == b"not a tty\nout\n"
    assert done.stderr == b"err\n"


def test_a_killed_client_leaves_nothing(lab: Lab, shell: Terminal) -> None:
    job = only_job()
    shell.type("sleep 600 & sleep 601\r")
    os.kill(shell.process.pid, signal.SIGKILL)
    until(
        lambda: lab.backend.inspect(job.id).status is not EngineStatus.RUNNING,
        "the end of the shell",
    )
    done = lab.finish(job).job
    assert (done.state, done.reason) == (JobState.FAILED, "its terminal was closed")
    if lab.backend.name == "local":
        ours = f"STOKE_LOCAL_JOB={job.id}".encode()
        until(lambda: not _marked(ours), "the end of the shell's processes")


def _marked(text: bytes) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if text in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            pass
    return found


def test_stop_ends_a_shell_and_gives_the_terminal_back(lab: Lab, shell: Terminal) -> None:
    job = only_job()
    assert run("stop", job.id).returncode == 0
    assert shell.wait() == 143
    assert only_job().state is JobState.STOPPED


def test_exec_has_the_variables_and_the_folder_of_the_code(lab: Lab, job: Job) -> None:
    done = run("exec", job.id, "--", "sh", "-c", 'echo "$GREETING"; pwd; command -v python; exit 9')
    assert done.returncode == 9, done.stderr
    greeting, folder, python = done.stdout.decode().splitlines()
    assert greeting == "hello there"
    assert folder.endswith("/files")
    assert run("exec", job.id, "python", "-c", "import os; print(os.getcwd())").stdout.decode() == (
        f"{folder}\n"
    )
    assert python.endswith("/python")


def test_exec_passes_bytes_unchanged(lab: Lab, job: Job) -> None:
    data = os.urandom(1_500_000) + bytes(range(256))
    done = run("exec", job.id, "--", "cat", stdin=data)
    assert done.returncode == 0
    assert done.stdout == data and done.stderr == b""


def test_exec_ends_with_a_program_that_leaves_input_unread(lab: Lab, job: Job) -> None:
    data = os.urandom(1_500_000)
    script = "head -c 5; echo early >&2; exit 3"

    def once(_number: int) -> tuple[int, bytes, bytes]:
        done = run("exec", job.id, "--", "sh", "-c", script, stdin=data)
        return done.returncode, done.stdout, done.stderr

    # An engine that loses the end loses it in one run of twelve.
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(once, range(12))) == {(3, data[:5], b"early\n")}


def test_exec_at_a_terminal_opens_a_shell(
    lab: Lab, job: Job, terminal: Callable[..., Terminal]
) -> None:
    shell = terminal("exec", job.id, size=(20, 70))
    assert shell.answer("stty size") == "20 70\n"
    assert shell.answer("echo $GREETING") == "hello there\n"
    shell.type("exit 5\r")
    assert shell.wait() == 5
    assert only_job().state is JobState.RUNNING
    watching = terminal("exec", job.id)
    assert watching.answer("echo in") == "in\n"
    assert run("stop", "--now", job.id).returncode == 0
    assert watching.wait() != 0
    if lab.backend.name == "local":
        ours = f"STOKE_LOCAL_JOB={job.id}".encode()
        until(lambda: not _marked(ours), "the end of the shell's processes")


def test_exec_says_why_it_cannot(lab: Lab, job: Job) -> None:
    missing = run("exec", job.id, "--", "no-such-program")
    assert missing.returncode == 125
    assert b"there is no program no-such-program" in missing.stderr
    (same,) = filled(_hint(missing), "look around in it: stoke exec {}")
    assert run("exec", same, stdin=b"echo in; exit 3").returncode == 3
    with History() as history:
        stop(job, lab.backend, history, 0)
    assert lab.finish(job).job.state is JobState.STOPPED
    ended = run("exec", job.id)
    assert ended.returncode == 125
    assert f"{job.id} has stopped".encode() in ended.stderr
    (same,) = filled(_hint(ended), "run it again, and keep it if it fails: stoke rerun --hold {}")
    assert same == job.id


def test_a_job_without_a_shell_says_so(lab: Lab, terminal: object) -> None:
    # Its PATH has neither bash nor sh.
    done = run("shell", "-q", "--env", "PATH=/nowhere", stdin=b"exit\n")
    assert done.returncode == 125
    assert b"there is neither bash nor sh" in done.stderr
    assert only_job().state.finished
    job = lab.submit(WAITS, env={"PATH": "/nowhere"})
    lab.track(job)
    lab.until_output(job, b"ready")
    done = run("exec", job.id)
    (same,) = filled(_hint(done), "run a program that it has: stoke exec {} -- python")
    done = run("exec", same, "--", "python", "-c", "raise SystemExit(4)")
    assert done.returncode == 4, done.stderr


def _hint(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode().partition("hint: ")[2].strip()


LEAVES_A_FILE = "open('left.txt', 'w').write('evidence'); raise SystemExit(4)"


def test_a_failed_job_is_held_until_it_is_released(lab: Lab, terminal: object) -> None:
    done = run("run", "--no-folder", "--env", "WHO=me", "--hold", "-c", LEAVES_A_FILE)
    assert done.returncode == 4, done.stderr
    assert b"held for" in done.stderr
    job = only_job()
    assert (job.state, job.exit_code, job.held) == (JobState.FAILED, 4, True)
    assert f"{job.id}  failed, held".encode() in run("jobs").stdout
    inside = run("exec", job.id, "--", "sh", "-c", 'cat left.txt; echo "$WHO"')
    assert inside.stdout == b"evidenceme\n", inside.stderr
    saved = run("exec", job.id, "--", "sh", "-c", 'cp left.txt "$STOKE_RESULTS/saved.txt"')
    assert saved.returncode == 0, saved.stderr
    assert run("logs", "-f", job.id).returncode == 0
    assert run("stop", job.id).returncode == 0
    job = only_job()
    assert (job.state, job.exit_code, job.held) == (JobState.FAILED, 4, False)
    until(lambda: lab.backend.inspect(job.id).status is not EngineStatus.RUNNING, "its end")
    assert b"saved.txt" in run("results", job.id).stdout


def test_a_held_job_ends_with_its_time(lab: Lab, terminal: object) -> None:
    assert run("run", "-q", "--no-folder", "--hold=1s", "-c", LEAVES_A_FILE).returncode == 4
    job = only_job()
    until(lambda: lab.backend.inspect(job.id).status is not EngineStatus.RUNNING, "its end")

    def is_final() -> bool:
        return run("jobs").returncode == 0 and not only_job().provisional

    until(is_final, "its confirmed end")
    assert (only_job().state, only_job().exit_code) == (JobState.FAILED, 4)


def test_a_held_job_is_removed(lab: Lab, terminal: object) -> None:
    assert run("run", "-q", "--no-folder", "--hold", "-c", LEAVES_A_FILE).returncode == 4
    job = only_job()
    assert run("rm", job.id).returncode == 0
    until(lambda: lab.backend.inspect(job.id).status is EngineStatus.ABSENT, "its removal")


def test_a_job_that_succeeds_is_not_held(lab: Lab, terminal: object) -> None:
    assert run("run", "-q", "--no-folder", "--hold", "-c", "print(1)").returncode == 0
    assert not only_job().held and not only_job().provisional
