"""`stoke run --watch`: code is run again at each save."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stoke.history.database import History
from stoke.history.job import JobState
from tests.cli.conftest import Stoke
from tests.hints import exported, is_hint
from tests.lab import until
from tests.package_index import PackageIndex
from tests.terminals import PROGRAM, Terminal

LONG = "print('began')\nimport time\nwhile True: time.sleep(0.05)\n"
STUBBORN = "import signal, time\nsignal.signal(signal.SIGINT, lambda *_: print('ignored'))\n" + (
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('began')\nwhile True: time.sleep(0.05)\n"
)
WAITS = b"waiting for a save"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replace(path: Path, text: str) -> None:
    """As editors do that write a new file and rename it."""
    aside = path.with_suffix(".new")
    aside.write_text(text)
    os.replace(aside, path)


def turns(terminal: Terminal, count: int) -> None:
    until(lambda: terminal.screen.count(WAITS) == count, f"{count} runs: {terminal.screen!r}")


def test_each_save_runs_the_code_and_compares_the_time(
    terminal: Callable[..., Terminal], here: Path, index: PackageIndex
) -> None:
    (here / "a.py").write_text("import alpha; print('first')")
    (here / "r.txt").write_text("alpha==1.0")
    at = terminal("run", "--watch", "-r", "r.txt", "a.py")
    turns(at, 1)
    first = at.screen
    assert b"first" in first and b"cold" in first and b"than the run before" not in first
    replace(here / "a.py", "print('second')")
    turns(at, 2)
    second = at.screen[len(first) :]
    assert b"second" in second and b"than the run before" in second and b"warm" in second
    (here / "a.py").unlink()
    turns(at, 3)
    assert b"a.py: cannot be read" in at.screen
    (here / "a.py").write_text("raise SystemExit(3)")
    turns(at, 4)
    assert b"(exit 3)" in at.screen
    (here / "r.txt").write_text("alpha==2.0")
    turns(at, 5)
    at.process.send_signal(signal.SIGINT)
    assert at.wait() == 130


@pytest.mark.parametrize("code", [LONG, STUBBORN])
def test_a_save_ends_the_run_before(
    terminal: Callable[..., Terminal], here: Path, code: str
) -> None:
    (here / "a.py").write_text(code)
    at = terminal("run", "--watch", "a.py", env={"STOKE_STOP_GRACE": "1"})
    at.until(b"began")
    (here / "a.py").write_text("print('second')")
    turns(at, 2)
    assert b"saved; stopping this run" in at.screen and b"second" in at.screen
    with History() as history:
        states = [job.state for job in history.list()]
    assert states == [JobState.SUCCEEDED, JobState.STOPPED]
    at.process.send_signal(signal.SIGINT)
    assert at.wait() == 130


@pytest.mark.docker
def test_a_save_ends_a_container(
    terminal: Callable[..., Terminal], here: Path, docker_image: str, docker_scope: str
) -> None:
    (here / "a.py").write_text(LONG)
    place = ["-b", "docker", "--image", docker_image, "--scope", docker_scope]
    at = terminal("run", "--watch", *place, "a.py")
    at.until(b"began")
    replace(here / "a.py", "print('second')")
    turns(at, 2)
    assert b"second" in at.screen


@pytest.mark.parametrize("start", [["src/train.py"], ["--exec", "python", "src/train.py"]])
def test_the_files_of_the_project_are_watched(
    terminal: Callable[..., Terminal], here: Path, start: list[str]
) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    for name, text in {
        ".gitignore": "*.log\n",
        "src/train.py": "import helper, os\nprint('got', helper.x, sorted(os.listdir('data')))\n",
        "src/helper.py": "x = 1\n",
        "data/a.csv": "",
    }.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(text)
    at = terminal("run", "--watch", *start)
    turns(at, 1)
    assert b"got 1 ['a.csv']" in at.screen
    replace(here / "src/helper.py", "x = 2\n")
    turns(at, 2)
    assert b"got 2" in at.screen
    # None of these travels; the new folder after them does.
    (here / "noise.log").write_text("x")
    (here / "src/__pycache__").mkdir()
    (here / "src/__pycache__/helper.pyc").write_text("x")
    (here / "src/.helper.py.swp").write_text("x")
    (here / ".git/HEAD.lock").write_text("x")
    (here / "data/new").mkdir()
    turns(at, 3)
    assert b"got 2 ['a.csv', 'new']" in at.screen
    (here / "data/new/b.csv").write_text("x")
    turns(at, 4)
    os.symlink("/etc", here / "out")
    until(lambda: b"leads outside of the project" in at.screen, "the refusal")
    (here / "out").unlink()
    until(lambda: at.screen.count(b"got 2") == 4, f"the next run: {at.screen!r}")
    at.process.send_signal(signal.SIGINT)
    assert at.wait() == 130
    with History() as history:
        assert len(history.list()) == 5


def test_modules_beside_a_script_of_no_project_are_watched(
    terminal: Callable[..., Terminal], here: Path
) -> None:
    (here / "a.py").write_text(
        "import helper, package.inner\nprint('got', helper.x, package.inner.y)\n"
    )
    (here / "helper.py").write_text("x = 1\n")
    (here / "package").mkdir()
    (here / "package/inner.py").write_text("y = 1\n")
    at = terminal("run", "--watch", "a.py")
    turns(at, 1)
    (here / "package/inner.py").write_text("y = 20\n")
    turns(at, 2)
    (here / "helper.py").write_text("x = 20\n")
    turns(at, 3)
    assert b"got 1 1" in at.screen and b"got 1 20" in at.screen and b"got 20 20" in at.screen


def test_ctrl_c_in_a_run_ends_all(terminal: Callable[..., Terminal], here: Path) -> None:
    (here / "a.py").write_text(LONG)
    at = terminal("run", "--watch", "a.py")
    at.until(b"began")
    at.process.send_signal(signal.SIGINT)
    assert at.wait() == 130
    assert WAITS not in at.screen


def test_a_folder_that_does_not_exist_ends_it(stoke: Stoke, here: Path) -> None:
    done = stoke("run", "--watch", "nothing/a.py")
    assert done.returncode == 125 and b"cannot watch for saves" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["-c", "1"], b"--watch needs a FILE"),
        (["-"], b"--watch needs a FILE"),
        (["--exec", "pytest"], b"--watch needs a FILE"),
        (["--no-folder", "-m", "app"], b"--watch needs a FILE"),
        ([], b"--watch needs a FILE"),
        (["--json", "a.py"], b"--detach, --json and --each"),
        (["--detach", "a.py"], b"--detach, --json and --each"),
        (["--each", "n=1,2", "a.py"], b"--detach, --json and --each"),
        (["--retries", "2", "a.py"], b"combined with --retries"),
    ],
)
def test_what_cannot_be_watched_is_refused(stoke: Stoke, arguments: list[str], why: bytes) -> None:
    done = stoke("run", "--watch", *arguments)
    assert done.returncode == 2 and why in done.stderr


def test_without_notices_of_changes_files_are_polled(here: Path, own_home: Path) -> None:
    """In a user namespace of its own, whose limit on inotify does not concern the machine."""
    (here / "a.py").write_text("print('first')")
    alone = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    no_notices = "echo 0 > /proc/sys/user/max_inotify_instances && "
    if subprocess.run([*alone, f"{no_notices}:"], capture_output=True).returncode:
        pytest.skip("this machine allows no user namespaces")
    line = [*alone, f'{no_notices}exec "$@"', "sh", PROGRAM, "run", "--watch", "a.py"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 125, done.stderr
    (printed,) = re.findall(r"hint: (.*)", done.stderr)
    said = is_hint(printed, "have the files polled: export WATCHFILES_FORCE_POLLING=1")
    polled = subprocess.Popen(
        line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **exported(said)}
    )
    try:
        assert polled.stderr is not None and polled.stdout is not None
        while WAITS not in polled.stderr.readline():
            assert polled.poll() is None
        replace(here / "a.py", "print('second')")
        assert [polled.stdout.readline() for _ in range(2)] == [b"first\n", b"second\n"]
    finally:
        polled.send_signal(signal.SIGINT)
        polled.communicate(timeout=60)
