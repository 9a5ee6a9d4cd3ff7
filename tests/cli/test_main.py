"""The program as a whole: what it loads, its help, its last words when something goes wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from stoke.cli.command_table import COMMANDS, cli
from stoke.files.crash_report import crash_file
from tests.cli.conftest import Stoke, only_job
from tests.terminals import PROGRAM, Terminal

HEAVY = ["textual", "docker", "kubernetes", "hera", "requests"]
SLOW = ["pydantic", "pydantic_settings", "importlib.metadata"]


def loaded_by(*arguments: str) -> set[str]:
    """The modules that the real program imports for a command line."""
    done = subprocess.run(
        [PROGRAM, *arguments],
        capture_output=True,
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.decode().splitlines()
    names = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "stoke.cli.main" in names
    return names


def packages(names: set[str]) -> set[str]:
    return names | {name.partition(".")[0] for name in names}


def test_help_loads_no_command() -> None:
    names = loaded_by("--help")
    assert not packages(names) & {*HEAVY, *SLOW, "sqlite3"}
    assert not names & {module for module, _ in COMMANDS.values()}


def test_jobs_and_logs_of_finished_jobs_load_no_backend(stoke: Stoke) -> None:
    assert stoke("run", "-q", "-c", "print(1)").returncode == 0
    job = only_job()
    for command in (["jobs"], ["jobs", "--json"], ["logs", job.id], ["logs", "-f", job.id]):
        names = loaded_by(*command)
        assert not packages(names) & {*HEAVY, *SLOW, "backends", "tui"}, command


def test_jobs_without_a_history_loads_no_backend_and_makes_nothing(own_home: Path) -> None:
    names = loaded_by("jobs")
    assert not packages(names) & {*HEAVY, *SLOW, "backends"}
    assert not (own_home / "state").exists()


def test_foreign_packages_on_the_path_do_not_shadow_ours(stoke: Stoke, tmp_path: Path) -> None:
    for name in ("tui", "backends", "styles"):
        (tmp_path / "theirs" / name).mkdir(parents=True)
        (tmp_path / "theirs" / name / "__init__.py").write_text("raise SystemExit('theirs')")
    env = {"PYTHONPATH": str(tmp_path / "theirs")}
    done = stoke("run", "-q", "-c", "print('ours')", env=env)
    assert (done.returncode, done.stdout) == (0, b"ours\n"), done.stderr


def commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    with click.Context(cli) as context:
        for name in COMMANDS:
            command = cli.get_command(context, name)
            assert command is not None
            found.append((name, command))
            if isinstance(command, click.Group):
                found += [(f"{name} {below}", one) for below, one in command.commands.items()]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_each_commands_help_has_an_example_that_parses(name: str, command: click.Command) -> None:
    shown = CliRunner().invoke(cli, [*name.split(), "--help"])
    assert shown.exit_code == 0
    examples = re.findall(rf"^ +stoke {name}(?: .*)?$", shown.output, re.MULTILINE)
    if isinstance(command, click.Group):
        return
    assert examples
    # Every option that an example uses is one of the command's.
    known = {option for parameter in command.params for option in parameter.opts}
    for example in examples:
        used = re.findall(
            r"(?<= )(-[a-z]|--[a-z-]+)(?= |$)", re.split(r"\||\.py | -- ", example)[0]
        )
        assert set(used) <= known, example


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_has_the_help_line_of_each_command(name: str) -> None:
    command = dict(commands())[name]
    assert (command.help or "").splitlines()[0] == COMMANDS[name][1]


def test_the_help_of_run_lists_the_exit_codes() -> None:
    shown = CliRunner().invoke(cli, ["run", "--help"]).output
    for code in ("2", "124", "125", "130", "143"):
        assert re.search(rf"^ +{code} +\w", shown.partition("Exit codes:")[2], re.MULTILINE)


def test_version(stoke: Stoke) -> None:
    assert re.fullmatch(rb"stoke \d+\.\d+\.\d+\n", stoke("--version").stdout)


def test_without_a_terminal_the_screens_point_at_the_commands(stoke: Stoke) -> None:
    done = stoke()
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines()[1] == "hint: use the commands: stoke --help"


def test_a_damaged_history_is_reported_with_a_hint(stoke: Stoke, own_home: Path) -> None:
    (own_home / "state").mkdir()
    (own_home / "state/history.sqlite").write_bytes(b"not a database" * 100)
    done = stoke("jobs")
    assert done.returncode == 125
    first, second = done.stderr.decode().splitlines()
    assert first.startswith("error: the history ") and second.startswith("hint: put it aside")


def test_an_error_of_our_own_is_one_line_unless_debugged(stoke: Stoke, tmp_path: Path) -> None:
    # Broken from outside: what a command is about to import raises.
    (tmp_path / "sqlite3.py").write_text("raise RuntimeError('broken \\x1b[2J here')")
    code = (
        "import sys; from stoke.cli.main import main;"
        f"sys.path.insert(0, {str(tmp_path)!r}); sys.argv[1:] = ['jobs']; sys.exit(main())"
    )
    from sys import executable

    done = subprocess.run([executable, "-c", code], capture_output=True)
    assert done.returncode == 125
    first, second = done.stderr.decode().splitlines()
    assert first == "error: stoke itself failed: RuntimeError: broken  here"
    assert str(crash_file()) in second
    assert "RuntimeError: broken" in crash_file().read_text()
    env = {**os.environ, "STOKE_DEBUG": "1"}
    debugged = subprocess.run([executable, "-c", code], capture_output=True, env=env)
    assert b"Traceback" in debugged.stderr


def test_the_quick_end_of_the_program_leaves_nothing_out() -> None:
    """Exit functions, threads that are no daemons, the last output, and the exit code."""
    from sys import executable

    begin = "import atexit, sys, threading; from stoke.cli.main import program\n"
    exits = "atexit.register(print, 'exit function', flush=True)\n"
    waits = "threading.main_thread().join(), print('thread', flush=True)"
    thread = f"threading.Thread(target=lambda: ({waits})).start()\n"
    end = "sys.stderr.write('no newline')\nsys.argv = ['stoke', 'show']\nprogram()"
    for middle, printed in (
        (exits, b"exit function\n"),
        (thread, b"thread\n"),
        (exits + thread, b"thread\nexit function\n"),
    ):
        code = begin + middle + end
        done = subprocess.run([executable, "-c", code], capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (2, printed), done.stderr
        assert done.stderr.startswith(b"no newline")


def test_output_that_cannot_be_written_is_reported(stoke: Stoke) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [PROGRAM, "run", "-q", "-c", "print(1)"], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 125
    assert b"error: cannot write to standard output: No space left on device" in done.stderr


@pytest.mark.parametrize("words", [["jobs", "--all"], ["logs", "job"], ["show", "job"], ["--help"]])
def test_a_full_disk_for_standard_output_is_no_crash(stoke: Stoke, words: list[str]) -> None:
    stoke("run", "-c", "print(1)")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([PROGRAM, *words], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 125
    assert done.stderr == b"error: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("command", ["show", "logs", "stop", "rm", "rerun"])
def test_a_name_that_is_not_utf8_is_no_job(stoke: Stoke, command: str) -> None:
    stoke("run", "-c", "print(1)")
    done = stoke(command, os.fsdecode(b"job\xff"))
    assert done.returncode == 1
    assert b"no job is called" in done.stderr and b"itself failed" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_ask_this_program(stoke: Stoke, shell: str) -> None:
    done = stoke("completion", shell)
    assert done.returncode == 0
    assert b"_STOKE_COMPLETE" in done.stdout


def completed(stoke: Stoke, *words: str) -> list[str]:
    env = {
        "_STOKE_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["stoke", *words]),
        "COMP_CWORD": str(len(words)),
    }
    lines = stoke(env=env).stdout.decode().split()
    return [line.partition(",")[2] for line in lines]


def test_completion_knows_commands_options_jobs_and_backends(stoke: Stoke) -> None:
    assert completed(stoke, "re") == ["results", "rerun", "render"]
    assert "--detach" in completed(stoke, "run", "--de")
    assert {"local", "docker"} <= set(completed(stoke, "run", "-b", ""))
    assert completed(stoke, "show", "") == []
    assert stoke("run", "-q", "--name", "fit", "-c", "1").returncode == 0
    assert completed(stoke, "show", "fi") == [only_job().id]


def test_colours_are_for_terminals_that_want_them(stoke: Stoke) -> None:
    assert b"\x1b" not in stoke("run", "-c", "1").stderr
    assert b"\x1b" not in stoke("jobs").stdout


def test_json_of_jobs_is_a_list_of_documents(stoke: Stoke) -> None:
    assert json.loads(stoke("jobs", "--json").stdout) == []
    assert stoke("run", "-q", "-c", "1").returncode == 0
    (document,) = json.loads(stoke("jobs", "--json").stdout)
    shown = json.loads(stoke("show", "--json", document["id"]).stdout)
    assert shown.pop("usage") == []  # The curve of a job, which a list leaves out.
    assert document == shown


def test_at_a_terminal_the_screens_open_and_q_leaves_them(
    stoke: Stoke, terminal: Callable[..., Terminal]
) -> None:
    """However early: while the rest of the screens is still brought."""
    assert stoke("run", "-q", "-c", "1").returncode == 0
    at = terminal()
    at.until(b"\x1b[?1049h")
    at.until(b"Jobs")
    at.type("q")
    assert at.wait() == 0
    assert b"\x1b[?1049l" in at.screen


def test_at_the_first_start_q_leaves_the_greeting_first(terminal: Callable[..., Terminal]) -> None:
    at = terminal()
    at.until(b"stoke runs Python somewhere else")
    shown = len(at.screen)
    at.type("q")
    at.until(b"run in a shell", shown)  # The empty list, below the greeting.
    at.type("q")
    assert at.wait() == 0


def test_a_dumb_terminal_gets_a_pointer_to_the_commands(terminal: Callable[..., Terminal]) -> None:
    at = terminal(env={"TERM": "dumb"})
    assert at.wait() == 2
    assert b"use the commands: stoke --help" in at.screen
