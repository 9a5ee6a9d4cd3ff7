"""What a request runs: code, a module or a program, and the command lines for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from stoke.cli.commands.run import command as run
from stoke.cli.options import request_from
from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.jobs.request import Request
from stoke.request.spec import make_spec


@pytest.fixture(autouse=True)
def no_project(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.chdir(own_home)


def asked(*words: str) -> Request:
    options = run.make_context("run", list(words)).params
    for name in ("backend", "detach", "as_json", "quiet"):
        options.pop(name)
    return request_from(Config(), **options)


@pytest.mark.parametrize(
    ("words", "field", "name", "args"),
    [
        (["-m", "http.server"], "module", "http.server", []),
        (["-m", "http.server", "8000", "-x"], "module", "http.server", ["8000", "-x"]),
        (["--module=http.server", "--", "-b", "::"], "module", "http.server", ["-b", "::"]),
        (["-mhttp.server", "8000"], "module", "http.server", ["8000"]),
        (["--exec", "pytest", "--", "-q", "tests"], "exec", "pytest", ["-q", "tests"]),
        (["--exec", "pytest", "tests", "--", "-q"], "exec", "pytest", ["tests", "--", "-q"]),
        (["--exec=pytest", "-x"], "exec", "pytest", ["-x"]),
        (["--exec", "pytest", "run.py"], "exec", "pytest", ["run.py"]),
    ],
)
def test_words_behind_a_module_or_program_are_its_own(
    words: list[str], field: str, name: str, args: list[str]
) -> None:
    request = asked("--cpu", "2", *words)
    spec = request.spec
    assert (getattr(spec, field), list(spec.args), spec.code) == (name, args, "")
    assert (request.name, spec.cpu) == (name, 2)


def test_an_option_of_ours_behind_a_program_is_refused_with_both_ways_to_write_it() -> None:
    with pytest.raises(click.UsageError) as refused:
        asked("--exec", "pytest", "-q", "a b")
    assert "put it before --exec pytest" in refused.value.message
    assert "--exec pytest -- -q 'a b'" in refused.value.message


def test_what_the_refusal_proposes_works() -> None:
    spec = asked("--exec", "pytest", "--", "-q", "a b").spec
    assert (spec.exec, spec.args) == ("pytest", ("-q", "a b"))


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({}, "code", "is empty"),
        ({"code": " \n"}, "code", "is empty"),
        ({"code": "1", "module": "this"}, "module", "beside code"),
        ({"code": "1", "exec": "this"}, "exec", "beside code"),
        ({"module": "this", "exec": "this"}, "exec", "beside module"),
        ({"module": "tools/make.py"}, "module", "stoke run FILE"),
        ({"module": ".relative"}, "module", "is not the name of a module"),
        ({"module": "-c"}, "module", "is not the name of a module"),
        ({"module": ""}, "module", "is not the name of a module"),
        ({"module": "a" * 256}, "module", "is not the name of a module"),
        ({"exec": "a" * 256}, "exec", "is not the name of a program"),
        ({"exec": "./run"}, "exec", "is not the name of a program"),
        ({"exec": "--help"}, "exec", "is not the name of a program"),
        ({"exec": ".."}, "exec", "is not the name of a program"),
        ({"exec": "a\n"}, "exec", "is not the name of a program"),
    ],
)
def test_a_request_runs_exactly_one_thing(fields: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(RequestError) as refused:
        make_spec(fields)
    assert refused.value.field == field
    assert why in refused.value.why
