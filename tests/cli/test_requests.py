"""Bad input at the door: an error that names the field or the place, exit code 2, nothing made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Stoke, job_count, only_job

RUN = ["run", "-c", "print(1)"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-w", "pandas>>2"], "--with: "),
        (["-w", "numpy pandas; python_version ~~ '3'"], "--with: "),
        (["-w", "-e ."], "--with: "),
        (["-w", "./here"], "--with: "),
        (["-w", "file:///tmp/x.whl"], "--with: "),
        (["-s", "gcc;id"], "--system: "),
        (["-s", "$(id)"], "--system: "),
        (["--python", "three"], "--python: "),
        (["--env", "NOEQUALS"], "--env: "),
        (["--env", "1A=x"], "--env: "),
        (["--secret", "TOKEN=hunter2"], "--secret: "),
        (["--env", "A=1", "--secret", "A=env:A"], "A is given both"),
        (["--index", "ftp://example"], "--index: "),
        (["--index", "https://user:hunter2@example"], "--index: "),
        (["--extra-index", "nonsense"], "--extra-index: "),
        (["--index-credentials", "hunter2"], "--index-credentials: "),
        (["--memory", "lots"], "--memory: "),
        (["--memory", "1k"], "--memory: "),
        (["--timeout", "soon"], "--timeout: "),
        (["--timeout", "0s"], "--timeout: "),
        (["--cpu", "0"], "--cpu: "),
        (["--image", "--privileged"], "--image: "),
        (["--scope", "Team A"], "--scope: "),
        (["-b", "nowhere"], "--backend: "),
        (["-r", "/nowhere/requirements.txt"], "/nowhere/requirements.txt"),
    ],
)
def test_wrong_values_are_named(
    stoke: Stoke, own_home: Path, arguments: list[str], named: str
) -> None:
    done = stoke(*RUN, *arguments)
    told = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"")
    assert told.startswith("error: ") and named in told.splitlines()[0]
    assert "Traceback" not in told and "hunter2" not in told
    assert job_count(own_home) == 0


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("-e .\n", "requirements"),
        ("numpy\n./local.whl\n", "requirements"),
        ("-r other.txt\n", "requirements"),
        ("numpy==\n", "requirements"),
        ("--require-hashes\nnumpy\n", "requirements"),
    ],
)
def test_a_requirements_files_line_is_named(
    stoke: Stoke, tmp_path: Path, lines: str, named: str
) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(lines)
    done = stoke(*RUN, "-r", str(file))
    assert done.returncode == 2
    assert named in done.stderr.decode().splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["run"], "Nothing to run"),
        (["run", "--nonsense"], "No such option"),
        (["run", "--nonsense", "x=1", "-c", "print(1)"], "No such option"),
        (["run", "-c", "1", "--cpu", "x"], "--cpu: 'x' is not a number of cores"),
        (["run", "-c", "1", "--secret", "A=x"], "write NAME=env:OTHER or NAME=file:/path"),
        (["run", "-c", "1", "--lock", "x", "-w", "y"], "--lock holds every package"),
        (["run", "-m", "this", "-c", "1"], "after -m this"),
        (["run", "-c", "1", "--exec", "this"], "give one of them"),
        (["run", "-m", "this", "-m", "that"], "-m after -m this"),
        (["run", "--exec", "pytest", "-q"], "--exec pytest -- -q"),
        (["nonsense"], "No such command"),
        (["jobs", "-n", "0"], "not in the range"),
        (["jobs", "--state", "gone"], "is not one of"),
        (["rm"], "Name jobs"),
        (["rm", "job", "--all-finished"], "Name jobs"),
        (["stop"], "Missing argument"),
        (["render", "yaml", "-c", "1"], "is not one of"),
        (["completion", "tcsh"], "is not one of"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(
    stoke: Stoke, own_home: Path, arguments: list[str], what: str
) -> None:
    done = stoke(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert what in done.stderr.decode() and "Traceback" not in done.stderr.decode()
    assert not (own_home / "state").exists()


def test_a_file_that_is_not_there_is_named(stoke: Stoke) -> None:
    done = stoke("run", "nowhere.py")
    assert done.returncode == 2
    assert done.stderr == b"error: nowhere.py: cannot be read: No such file or directory\n"


def test_code_that_is_not_utf8_is_reported_with_place_and_hint(
    stoke: Stoke, tmp_path: Path
) -> None:
    script = tmp_path / "old.py"
    script.write_bytes("x = 1\ny = 'é'\n".encode("latin-1"))
    done = stoke("run", str(script))
    assert done.returncode == 2
    told = done.stderr.decode()
    assert "line 2" in told and "0xe9" in told and "hint: " in told


def test_empty_code_is_refused(stoke: Stoke) -> None:
    done = stoke("run", "-", stdin=b" \n")
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: code: is empty")


def test_hostile_text_in_an_error_is_harmless(stoke: Stoke) -> None:
    done = stoke(*RUN, "-w", "\x1b]0;PWN\x07\x1b[2Jx y")
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr and b"\x07" not in done.stderr


def test_a_request_beyond_the_backends_capabilities_creates_nothing(
    stoke: Stoke, own_home: Path
) -> None:
    for arguments, option in (
        (["-s", "gcc,ffmpeg"], "--system"),
        (["--cpu", "1"], "--cpu"),
        (["--memory", "1g"], "--memory"),
        (["--image", "python:3.12"], "--image"),
    ):
        done = stoke(*RUN, "-b", "local", *arguments)
        assert done.returncode == 2, arguments
        first, second = done.stderr.decode().splitlines()
        assert first.startswith(f"error: {option}: ") and second.startswith("hint: ")
    assert job_count(own_home) == 0


def test_a_wrong_configuration_names_the_setting(stoke: Stoke, own_home: Path) -> None:
    (own_home / "config.toml").write_text('backend = "local"\nscope = "Not A Scope"\n')
    done = stoke(*RUN)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: scope: ") and b"config.toml" in done.stderr


# ------------------------------------------------------------------ submit


def test_submit_runs_our_own_form(stoke: Stoke, tmp_path: Path) -> None:
    request = tmp_path / "sums.json"
    request.write_text(json.dumps({"code": "import sys; print(sys.argv[1:])", "args": ["a", "b"]}))
    done = stoke("submit", str(request), "-q")
    assert (done.returncode, done.stdout) == (0, b"['a', 'b']\n")
    assert only_job().name == "sums"


def test_submit_runs_the_earlier_services_form(stoke: Stoke) -> None:
    request = {
        "pythonCode": "import sys; print('hello'); sys.exit(4)",
        "dependencies": "",
        "requirementsFile": None,
        "systemDependencies": "",
        "useCache": False,
    }
    done = stoke("submit", "-", "-q", stdin=json.dumps(request).encode())
    assert (done.returncode, done.stdout) == (4, b"hello\n")


def test_submit_takes_options_over_the_request(stoke: Stoke) -> None:
    request = json.dumps({"code": "print(1)", "scope": "theirs", "use_cache": True})
    done = stoke(
        "submit", "-", "--scope", "ours", "--no-cache", "--name", "mine", "--json", "-q",
        stdin=request.encode(),
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert (document["scope"], document["spec"]["scope"], document["name"]) == (
        "ours",
        "ours",
        "mine",
    )
    assert document["spec"]["use_cache"] is False


def test_the_json_of_show_can_be_submitted_again(stoke: Stoke) -> None:
    first = stoke("run", "--json", "-c", "print('same')", "--env", "A=1", "--timeout", "1m")
    spec = json.loads(first.stdout)["spec"]
    again = stoke("submit", "-", "--json", stdin=json.dumps(spec).encode())
    assert json.loads(again.stdout)["spec"] == spec


def test_a_masked_value_is_not_submitted_as_if_it_were_one(stoke: Stoke) -> None:
    first = stoke("run", "--json", "-c", "1", "--env", "API_KEY=hunter2")
    spec = json.loads(first.stdout)["spec"]
    assert spec["env"] == {"API_KEY": "***"}
    again = stoke("submit", "-", stdin=json.dumps(spec).encode())
    assert again.returncode == 2
    assert b"API_KEY was hidden" in again.stderr


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"{", "is not JSON"),
        (b"\xff{}", "is not UTF-8"),
        (b"[1]", "no JSON object"),
        (b"{}", "code"),
        (b'{"code": "1", "nonsense": 1}', "nonsense"),
        (b'{"pythonCode": "1", "code": "2"}', "code"),
        (b'{"pythonCode": "1", "dependencies": ["numpy"]}', "dependencies"),
        (b'{"code": "1", "dependencies": "numpy"}', "dependencies"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"code": "\\ud800"}', "code"),
    ],
    ids=[
        "cut",
        "bytes",
        "list",
        "empty",
        "unknown",
        "mixed",
        "not-text",
        "not-a-list",
        "deep",
        "half",
    ],
)
def test_an_invalid_request_names_the_fault(stoke: Stoke, text: bytes, what: str) -> None:
    done = stoke("submit", "-", stdin=text)
    told = done.stderr.decode()
    assert done.returncode == 2
    assert told.startswith("error: ") and what in told and "Traceback" not in told


def test_a_secret_is_nowhere_to_be_seen(
    stoke: Stoke, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGIN", "ada:hunter2")
    done = stoke(
        "run", "--json", "-c", "import os; print(len(os.environ['PIN']))", "--secret", "PIN=env:LOGIN",
        "--index", "http://localhost:1/", "--index-credentials", "env:LOGIN",
    )  # fmt: skip
    assert done.returncode == 0 and b"11\n" in done.stderr
    job = only_job()
    seen = done.stdout + done.stderr + stoke("show", job.id).stdout + stoke("jobs", "--json").stdout
    seen += b"".join(
        file.read_bytes() for file in (own_home / "state").rglob("*") if file.is_file()
    )
    assert b"PIN" in seen
    assert b"hunter2" not in seen
