"""Values of 60,000 characters in every place: an error that names the field in a readable length."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stoke.errors import EXIT_REQUEST, EXIT_UNKNOWN_JOB
from stoke.request.fields import FIELDS
from stoke.text.shorten import LONGEST_MESSAGE
from tests.cli.conftest import Stoke, given

HUGE = "x" * 60_000
WORDS = " ".join("y" * 30_000)
# An error, its hint, and the usage of the command.
MOST_BYTES = 2 * LONGEST_MESSAGE + 500
VALUED = [one.option for one in FIELDS if one.option and one.name not in ("code", "use_cache")]


@pytest.mark.parametrize(
    "arguments",
    [
        *(["run", "-c", "1", *given(option, HUGE)] for option in VALUED if option.name != "module"),
        ["run", "-m", HUGE],
        ["run", "-c", "1", "--secret", f"A=env:{HUGE}"],
        ["run", "-c", "1", "--secret", f"A=file:{HUGE}"],
        ["run", "-c", "1", "--mount", f"/{HUGE}:/{HUGE}"],
        ["run", "-c", "1", "-b", HUGE],
        ["run", "-c", "1", "--python", WORDS],
        ["run", HUGE],
        ["run", f"--{HUGE}"],
        ["run", f"--{WORDS}"],
        ["jobs", HUGE],
        ["jobs", WORDS],
        ["show", HUGE],
        ["logs", "--grep", f"({HUGE}", "x"],
        ["cache", "prune", "--unused", HUGE],
        ["submit", HUGE],
        [HUGE],
    ],
    ids=lambda words: " ".join(word[:12] for word in words),
)
def test_an_error_never_repeats_all_of_a_huge_value(stoke: Stoke, arguments: list[str]) -> None:
    done = stoke(*arguments)
    assert done.returncode in (EXIT_REQUEST, EXIT_UNKNOWN_JOB)
    assert 0 < len(done.stderr) < MOST_BYTES


@pytest.mark.parametrize("value", [HUGE, [HUGE], {HUGE: HUGE}], ids=["text", "list", "table"])
def test_an_error_never_repeats_all_of_a_request(
    stoke: Stoke, tmp_path: Path, value: object
) -> None:
    file = tmp_path / "request.json"
    for wrong in ({"python": value}, {"code": "1", "scope": value}, {HUGE: value}):
        file.write_text(json.dumps(wrong))
        done = stoke("submit", str(file))
        assert done.returncode == EXIT_REQUEST
        assert 0 < len(done.stderr) < MOST_BYTES


@pytest.mark.parametrize(
    "variable",
    ["STOKE_CONFIG", "STOKE_STATE_DIR", "STOKE_CACHE_DIR", "HOME", "SSL_CERT_FILE", "PIP_CERT"],
)
def test_a_path_that_is_too_long_is_no_crash(stoke: Stoke, variable: str) -> None:
    done = stoke("run", "-w", "a b c", "-c", "1", env={variable: f"/{HUGE}"})
    assert b"stoke itself failed" not in done.stderr
    assert 0 < len(done.stderr) < MOST_BYTES


def test_an_error_never_repeats_all_of_the_settings(stoke: Stoke, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    for text in (f'"{HUGE}" = 1', f'backend = "{HUGE}"', f'[log]\nmax_size = "{HUGE}"', HUGE):
        file.write_text(text)
        done = stoke("run", "-c", "1", env={"STOKE_CONFIG": str(file)})
        assert done.returncode not in (0, 1)
        assert 0 < len(done.stderr) < MOST_BYTES
