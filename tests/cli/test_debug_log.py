"""`--debug` and STOKE_DEBUG: what the debug log tells, and that no secret gets into it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from stoke.files.paths import state_dir
from tests.cli.conftest import Stoke
from tests.terminals import Terminal
from tests.test_import_hygiene import command, loaded_by

SECRETS = {
    "MY_TOKEN": "tok/en with 1 space",
    "PLAIN": "env-value-of-the-code",
    "CREDENTIALS": "user:pass:word@1",
    "INDEX_PASSWORD": "netrc-like-password",
}


def debug_text() -> str:
    return "".join(path.read_text() for path in state_dir().glob("debug.log*"))


def test_without_it_there_is_no_file(stoke: Stoke) -> None:
    assert stoke("jobs").returncode == 0
    assert not (state_dir() / "debug.log").exists()


@pytest.mark.parametrize("words", [["--help"], ["jobs"], ["logs", "--help"]])
def test_without_it_logging_is_not_loaded(words: list[str]) -> None:
    assert "logging" not in loaded_by(command(*words))


@pytest.mark.parametrize("how", ["option", "variable"])
def test_it_records_start_steps_and_end(stoke: Stoke, how: str) -> None:
    words = ["run", "-c", "raise SystemExit(3)"]
    by_option = how == "option"
    done = stoke("--debug", *words) if by_option else stoke(*words, env={"STOKE_DEBUG": "1"})
    assert done.returncode == 3
    text = debug_text()
    for record in (
        "stoke.cli.debug_log: start: stoke ",
        "stoke.jobs.submit: submit job-",
        "stoke.logs.follower: log of job-",
        "confirmed exited, exit code 3",
        "stoke.cli.main: end: exit code 3 after ",
    ):
        assert record in text
    assert (state_dir() / "debug.log").stat().st_mode & 0o777 == 0o600


def test_errors_name_the_file(stoke: Stoke) -> None:
    done = stoke("--debug", "show", "no-such-job")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == f"debug log: {state_dir() / 'debug.log'}"
    assert "error: no job has been submitted on this machine yet" in debug_text()


def test_a_file_that_cannot_be_written_stops_no_command(stoke: Stoke) -> None:
    (state_dir() / "debug.log").mkdir(parents=True)
    done = stoke("--debug", "run", "-q", "-c", "print(1)")
    assert (done.returncode, done.stdout) == (0, b"1\n")
    assert b"cannot write the debug log" in done.stderr


@pytest.mark.parametrize("backend", ["local", pytest.param("docker", marks=pytest.mark.docker)])
def test_no_secret_gets_into_it(
    stoke: Stoke,
    tmp_path: Path,
    backend: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the environment, as a secret file, in the payload, as an index's login; and in what fails."""
    scope = "debug-log-test"
    if backend == "docker":
        monkeypatch.setenv("STOKE_DOCKER__IMAGE", request.getfixturevalue("docker_image"))
        scope = request.getfixturevalue("docker_scope")
    (tmp_path / "key").write_text("secret-of-a-file\n")
    words = ["--debug", "run", "-b", backend, "--scope", scope]
    words += ["--env", f"PLAIN={SECRETS['PLAIN']}", "--secret", "TOKEN=env:MY_TOKEN"]
    words += ["--secret", f"KEY=file:{tmp_path / 'key'}"]
    code = "import os; assert os.environ['KEY'] == 'secret-of-a-file'; print(os.environ['TOKEN'])"
    done = stoke(*words, "-c", code, env=SECRETS)
    assert (done.returncode, done.stdout.decode()) == (0, SECRETS["MY_TOKEN"] + "\n"), done.stderr
    # No index listens there, so uv reports the address, and the job fails.
    login = ["--index", "http://127.0.0.1:9/simple", "--index-credentials", "env:CREDENTIALS"]
    extra = ["--extra-index", "http://me:${INDEX_PASSWORD}@127.0.0.1:9/other"]
    done = stoke(*words, *login, *extra, "-w", "six", "-c", "import six", env=SECRETS)
    assert done.returncode == 125, done.stderr
    assert stoke("--debug", "rerun", "no-such", "--secret", "A=env:MY_TOKEN").returncode != 0
    text = debug_text()
    assert text.count("end: exit code") == 3 and f"to {backend}: scope {scope}" in text
    for secret in (*SECRETS.values(), "pass:word@1", "secret-of-a-file"):
        forms = (secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode())
        assert not [form for form in forms if form in text]


def test_the_screens_write_it_too(stoke: Stoke, terminal: Callable[..., Terminal]) -> None:
    assert stoke("run", "-q", "-c", "1").returncode == 0
    at = terminal("--debug")
    at.until(b"Jobs")
    at.type("q")
    assert at.wait() == 0
    assert "end: exit code 0" in debug_text()
