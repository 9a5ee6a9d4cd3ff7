"""`stoke run`: streams, exit codes, JSON, ctrl+c; on real local jobs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stoke.history.database import History
from stoke.history.job import JobState
from tests.cli.conftest import Stoke, job_count, only_job
from tests.lab import until
from tests.package_index import PackageIndex
from tests.terminals import PROGRAM, Terminal

JOB_KEYS = [
    "id", "name", "kind", "backend", "scope", "state", "provisional", "stale", "held_until",
    "exit_code", "reason", "submitted_at", "started_at", "finished_at", "seconds", "cpu_seconds",
    "peak_memory", "phases", "predicted", "lock", "packages", "notes", "log", "results",
    "attempts", "damage", "schedule", "task_of", "sweep", "spec",
]  # fmt: skip
SPEC_KEYS = [
    "code", "module", "exec", "shell", "project", "args", "dependencies", "requirements",
    "constraints", "locked", "system", "python", "env", "secrets", "mounts", "workspace", "results",
    "index", "nix", "uv", "image", "timeout", "cpu", "memory", "hold", "shm_size", "cpu_request",
    "memory_request", "gpu", "retries", "retry_exit", "notify", "profile", "labels",
    "annotations", "use_cache", "scope",
]  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
FOREVER = "import time\nprint('began', flush=True)\nwhile True: time.sleep(0.05)"


# ------------------------------------------------------------------ streams


@pytest.mark.parametrize(
    ("out", "err"),
    [
        (b"line\n", b"other\n"),
        (b"no end", b"no end"),
        (b"\xff\xfe\x00\x9b raw \r\n", b"\xc3\x28\n\n"),
        (b"", b"\n"),
        (b"\n\n", b"\n\x1e\n"),
        (b"\x1b]0;PWN\x07", b"\x1b[2J"),
        (b"x" * 300_000 + b"\n", b"y" * 300_000),
    ],
    ids=["lines", "no-end", "not-utf8", "nothing", "newlines", "escapes", "long"],
)
def test_both_streams_arrive_byte_for_byte(
    stoke: Stoke, tmp_path: Path, out: bytes, err: bytes
) -> None:
    script = tmp_path / "print.py"
    script.write_text(f"import os\nos.write(1, {out!r})\nos.write(2, {err!r})\n")
    done = stoke("run", "--quiet", str(script))
    assert (done.returncode, done.stdout, done.stderr) == (0, out, err)


def test_progress_goes_to_stderr_only_on_lines_of_its_own(stoke: Stoke) -> None:
    code = "import sys; sys.stdout.write('out'); sys.stderr.write('err')"
    done = stoke("run", "-c", code)
    assert done.stdout == b"out"
    first, *rest = done.stderr.decode().splitlines()
    assert first == "err"
    assert rest[-1].startswith("stoke: succeeded in ")
    assert all(line.startswith("stoke: ") for line in rest)


def test_standard_input_is_at_its_end(stoke: Stoke) -> None:
    done = stoke("run", "-q", "-c", "import sys; print(repr(sys.stdin.read()))", stdin=b"typed\n")
    assert done.stdout == b"''\n"


def test_a_closed_output_ends_the_command_quietly_and_leaves_the_job(own_home: Path) -> None:
    code = "import time\nfor n in range(100000):\n    print(n, flush=True)\n    time.sleep(0.001)"
    process = subprocess.Popen(
        [PROGRAM, "run", "-q", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 141
    assert not only_job().state.finished


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_harm_nothing(stoke: Stoke, own_home: Path, closed: str) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr)"
    line = f'exec "$@" {closed}'
    done = subprocess.run(["sh", "-c", line, "sh", PROGRAM, "run", "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr
    again = stoke("logs", only_job().id)
    assert (again.stdout, again.stderr) == (b"out\n", b"err\n")


# ------------------------------------------------------------------ code and arguments


def test_code_from_a_file_is_called_by_its_name(stoke: Stoke, tmp_path: Path) -> None:
    script = tmp_path / "train model.py"
    script.write_text("import sys; print(sys.argv[1:], __name__)")
    done = stoke("run", "-q", str(script), "--", "--epochs", "3", "$(id)", "a b", "")
    assert done.stdout == b"['--epochs', '3', '$(id)', 'a b', ''] __main__\n"
    assert only_job().id.startswith("train-model-")


def test_a_files_name_may_be_anything(stoke: Stoke, tmp_path: Path) -> None:
    for name in (b"\xff\xfe.py", "日本 \x1b[2J.py".encode(), b"-rf.py"):
        script = os.fsencode(tmp_path) + b"/" + name
        with open(script, "wb") as file:
            file.write(b"print('ran')")
        done = stoke("run", os.fsdecode(script))
        assert (done.returncode, done.stdout) == (0, b"ran\n"), done.stderr
        assert b"\x1b" not in done.stderr


def test_code_from_standard_input(stoke: Stoke) -> None:
    done = stoke("run", "-q", "-", "--", "one", stdin=b"import sys; print(sys.argv[1:])")
    assert done.stdout == b"['one']\n"
    assert only_job().name == "job"


def test_words_behind_c_are_arguments(stoke: Stoke) -> None:
    done = stoke("run", "-q", "-c", "import sys; print(sys.argv[1:])", "a", "--", "-b")
    assert done.stdout == b"['a', '--', '-b']\n"


@pytest.mark.parametrize(
    "code",
    [
        b"\xef\xbb\xbfprint('bom')\r\n",
        b"print('''{{workflow.uid}} {{=1}} $(id) `id` ${HOME}''')",
        b"print('a\\\\b', \"it's\", '\\'')\r\n",
        "print('żółw 🎉')".encode(),
        b"x = '" + b"y" * 1024**2 + b"'\nprint(len(x))",
    ],
    ids=["bom", "templates", "quotes", "emoji", "1-mib"],
)
def test_any_code_arrives_as_it_is(stoke: Stoke, tmp_path: Path, code: bytes) -> None:
    script = tmp_path / "code.py"
    script.write_bytes(code)
    plain = subprocess.run(["python3", script], capture_output=True, check=True)
    assert stoke("run", "-q", str(script)).stdout == plain.stdout


def test_a_syntax_error_is_the_codes_own(stoke: Stoke) -> None:
    done = stoke("run", "-q", "-c", "print('no end'")
    assert done.returncode == 1
    assert b"SyntaxError" in done.stderr


def test_variables_and_secrets_reach_the_code(stoke: Stoke, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n")
    code = "import os; print(os.environ['A'], os.environ['B'], os.environ['C'])"
    done = stoke(
        "run", "-q", "-c", code, "--env", "A=x=y", "--secret", "B=env:HERE",
        "--secret", f"C=file:{tmp_path}/token", env={"HERE": "from here"},
    )  # fmt: skip
    assert done.stdout == b"x=y from here from a file\n"


# ------------------------------------------------------------------ packages


def test_packages_cold_and_warm(stoke: Stoke, index: PackageIndex) -> None:
    code = "import alpha, beta; print(alpha.version, beta.version)"
    cold = stoke("run", "-w", "alpha>=1,<2", "-w", "beta", "-c", code)
    assert cold.stdout == b"1.0 1.0\n", cold.stderr
    told = cold.stderr.decode()
    assert "expecting python miss" in told
    assert re.search(r"^stoke: lock  .* miss  2 packages$", told, re.MULTILINE)
    assert re.search(r"^stoke: python  .* miss  2 packages$", told, re.MULTILINE)
    asked = len(index.requests)
    warm = stoke("run", "-w", "alpha>=1,<2, beta", "-c", code)
    assert warm.stdout == cold.stdout
    told = warm.stderr.decode()
    assert "expecting python hit" in told
    assert re.search(r"^stoke: python  .* hit  2 packages$", told, re.MULTILINE)
    assert len(index.requests) == asked


def test_a_lock_has_to_be_one(stoke: Stoke, index: PackageIndex, tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("alpha==1.0\n")
    refused = stoke("run", "--lock", str(file), "-c", "1")
    assert refused.returncode == 2
    assert b"error: requirements:" in refused.stderr and b"--hash" in refused.stderr
    sha = PackageIndex("127.0.0.1").add("alpha", "1.0")
    file.write_text(f"alpha==1.0 --hash=sha256:{sha}\n")
    done = stoke("run", "--lock", str(file), "-q", "-c", "import alpha; print(alpha.version)")
    assert done.stdout == b"1.0\n", done.stderr


# ------------------------------------------------------------------ exit codes


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit(125)", 125),
        ("raise SystemExit('why')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 139),
    ],
)
def test_the_exit_code_is_the_jobs(stoke: Stoke, code: str, exit_code: int) -> None:
    done = stoke("run", "-c", code)
    assert done.returncode == exit_code
    assert "failed in" in done.stderr.decode() and f"(exit {exit_code})" in done.stderr.decode()


def test_the_timeout_is_124(stoke: Stoke) -> None:
    done = stoke("run", "--timeout", "0.3s", "-c", FOREVER)
    assert done.returncode == 124
    job = only_job()
    assert (job.state, job.reason, job.exit_code) == (JobState.FAILED, "timeout", 124)


def test_an_environment_that_cannot_be_made_is_125(stoke: Stoke, index: PackageIndex) -> None:
    done = stoke("run", "-w", "alpha==7", "-c", "print('never')")
    assert (done.returncode, done.stdout) == (125, b"")
    told = done.stderr.decode()
    assert "error: lock: " in told and "alpha==7" in told
    assert "Traceback" not in told


def test_stopped_elsewhere_is_143(
    start: Callable[..., subprocess.Popen[bytes]], stoke: Stoke
) -> None:
    running = start("run", "-c", FOREVER)
    assert running.stdout is not None
    assert running.stdout.readline() == b"began\n"
    assert stoke("stop", only_job().id).returncode == 0
    assert running.wait(60) == 143
    assert only_job().state is JobState.STOPPED


def test_a_killed_client_leaves_the_job_to_others(
    start: Callable[..., subprocess.Popen[bytes]], stoke: Stoke, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    code = (
        "import pathlib, time\n"
        "print('began', flush=True)\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)\n"
        "print('ended')\n"
    )
    running = start("run", "-q", "-c", code)
    assert running.stdout is not None
    assert running.stdout.readline() == b"began\n"
    running.kill()
    running.wait()
    go.touch()
    followed = stoke("logs", "-f", only_job().id)
    assert followed.stdout == b"began\nended\n"
    assert only_job().state is JobState.SUCCEEDED


# ------------------------------------------------------------------ newlines at a terminal


def test_a_line_on_stderr_is_whole_on_the_screen_before_the_next_comes(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    code = (
        "import pathlib, sys, time\n"
        "print('waiting', file=sys.stderr)\n"
        f"while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)\n"
        "print('then', file=sys.stderr)\n"
    )
    at = terminal("run", "-q", "-c", code)
    at.until(b"waiting\r\n")
    go.touch()
    assert at.wait() == 0
    assert at.screen == b"waiting\r\nthen\r\n"


# ------------------------------------------------------------------ JSON


def test_json_is_all_of_stdout_and_has_the_designs_shape(stoke: Stoke, index: PackageIndex) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr)"
    done = stoke("run", "--json", "-q", "-w", "alpha", "--timeout", "1m", "-c", code)
    document = json.loads(done.stdout)
    assert sorted(done.stderr.splitlines()) == [b"err", b"out"]
    assert list(document) == JOB_KEYS
    assert list(document["spec"]) == SPEC_KEYS
    assert (document["state"], document["exit_code"], document["reason"]) == ("succeeded", 0, None)
    assert document["provisional"] is False
    for name in ("submitted_at", "started_at", "finished_at"):
        assert TIME.fullmatch(document[name])
    assert document["seconds"] > 0 and document["cpu_seconds"] > 0 and document["peak_memory"] > 0
    phases = {phase["name"]: phase for phase in document["phases"]}
    assert {"lock", "python", "run"} <= phases.keys()
    for phase in phases.values():
        assert list(phase) == ["name", "seconds", "hit", "packages", "cached", "bytes", "key"]
    assert phases["python"]["hit"] is False and phases["python"]["packages"] == 1
    # This backend cannot count them: unknown, not 0.
    assert phases["python"]["bytes"] is None and phases["run"]["hit"] is None
    expected: dict[str, object] = {"python": "miss", "system": None, "seconds": None, "counts": {}}
    assert document["predicted"] == expected
    assert document["packages"] == {"python": {"cached": [], "downloaded": ["alpha==2.0"]}}
    assert document["log"] == {"lines": 2, "bytes": 8, "gaps": 0}
    assert document["spec"]["dependencies"] == ["alpha"]
    assert document["spec"]["timeout"] == 60


def test_json_tells_of_failures_too(stoke: Stoke, index: PackageIndex) -> None:
    done = stoke("run", "--json", "-w", "nosuchthing", "-c", "1")
    document = json.loads(done.stdout)
    assert (done.returncode, document["exit_code"], document["state"]) == (125, 125, "failed")
    assert "nosuchthing" in document["reason"]
    assert document["started_at"] is None


@pytest.mark.parametrize("option", ["--detach", "-d", "-qd"])
def test_detach_prints_the_id_and_leaves(stoke: Stoke, option: str) -> None:
    done = stoke("run", option, "-c", FOREVER)
    assert done.returncode == 0
    job_id = done.stdout.decode().strip()
    assert job_id == only_job().id
    assert not only_job().state.finished
    assert stoke("stop", job_id).returncode == 0


def test_detach_with_json_prints_the_document(stoke: Stoke) -> None:
    document = json.loads(stoke("run", "--detach", "--json", "-c", "1").stdout)
    assert (document["state"], document["exit_code"], document["seconds"]) == ("queued", None, None)
    until(lambda: json.loads(stoke("jobs", "--json").stdout)[0]["state"] == "succeeded", "its end")


# ------------------------------------------------------------------ bad days


def test_a_home_that_cannot_be_written_to_is_named(stoke: Stoke, own_home: Path) -> None:
    # A file where the folder should be: refused for every user, also for root.
    (own_home / "state").write_text("")
    done = stoke("run", "-c", "1")
    assert done.returncode == 125
    assert done.stderr.decode().splitlines() == [
        f"error: cannot make {own_home}/state: File exists",
        "hint: name a folder you can write to: export STOKE_STATE_DIR=/some/folder",
    ]


def test_a_secret_that_is_not_there_submits_nothing(stoke: Stoke, own_home: Path) -> None:
    done = stoke("run", "-c", "1", "--secret", "TOKEN=env:NOT_HERE")
    assert done.returncode == 2
    assert b"error: --secret TOKEN: the variable NOT_HERE is not set" in done.stderr
    assert job_count(own_home) == 0


def test_a_missing_engine_is_reported_and_recorded(stoke: Stoke, tmp_path: Path) -> None:
    gone = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    done = stoke("run", "--json", "-b", "docker", "-c", "1", env=gone)
    assert done.returncode == 125
    assert b"error: " in done.stderr and b"hint: " in done.stderr
    assert b"Traceback" not in done.stderr
    document = json.loads(done.stdout)
    assert (document["state"], document["exit_code"]) == ("failed", 125)


def test_configured_secrets_of_an_index_stay_with_that_index(
    stoke: Stoke, own_home: Path, index: PackageIndex
) -> None:
    (own_home / "config.toml").write_text('[index]\ncredentials = "env:PASSWORD_OF_OURS"\n')
    done = stoke("run", "-q", "--index", index.url, "-w", "alpha", "-c", "1")
    # It was not even looked for: the variable is not set.
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("signal_ignored", [True, False])
def test_ctrl_c_in_the_terminal_does_not_reach_a_background_job(
    own_home: Path, signal_ignored: bool
) -> None:
    """A shell starts a command before `&` with ctrl+c ignored, and stoke has to keep that."""
    process = subprocess.Popen(
        [PROGRAM, "run", "-q", "-c", "import time; print('began', flush=True); time.sleep(0.5)"],
        stdout=subprocess.PIPE,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
        if signal_ignored
        else None,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"began\n"
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == (0 if signal_ignored else 130)


def test_two_clients_with_the_same_request_build_it_once(
    start: Callable[..., subprocess.Popen[bytes]], index: PackageIndex
) -> None:
    clients = [start("run", "-q", "-w", "beta", "-c", "import beta") for _ in range(2)]
    assert [client.wait(120) for client in clients] == [0, 0]
    with History() as history:
        hits = [
            phase.hit for job in history.list() for phase in job.phases if phase.name == "python"
        ]
    assert sorted(map(bool, hits)) == [False, True]
