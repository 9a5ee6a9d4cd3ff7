"""A wrong value of an option: the error names the option, the value and what is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from stoke.cli.commands import cache, race, render, run, submit
from stoke.cli.option_errors import OptionalValue
from stoke.errors import RequestError
from stoke.request.fields import FIELDS
from stoke.request.values import Flag
from tests.cli.conftest import given

SIZE = "write it as 512m, 2g or 1.5GiB"
TIME = "write it as 90s, 5m or 1h30m"
CORES = "above 0 and up to 4096; write 2 or 0.5"
ADDRESS = "is not a web address; write https://host/path"
REFERENCE = "env:NAME or file:/path"
MOUNT = "write SRC:/path, SRC:/path:rw or claim:NAME:/path"
VERSION = "write 3.12 or >=3.11,<3.14"
VARIABLE = "use letters, digits and _, with no digit first"


class Wrong(NamedTuple):
    value: str
    accepted: str
    """What the error says instead."""
    shown: bool = True
    """Whether the error repeats the value, which it must not where that may be a secret."""


# For each field with an option that takes a value.
WRONG: dict[str, list[Wrong]] = {
    "code": [Wrong("\t", "is empty; there is nothing to run", shown=False)],
    "module": [Wrong("a b", "write package.module")],
    "exec": [Wrong("../x", "such as pytest")],
    "dependencies": [
        Wrong("y==", "has bounds that are not versions"),
        Wrong("./x", "write NAME @ git+https://... or NAME @ https://..."),
    ],
    "requirements": [
        Wrong("/nowhere", "No such file or directory"),
        Wrong("http://", "no host given"),
    ],
    "constraints": [Wrong("/nowhere", "No such file or directory")],
    "locked": [Wrong("/nowhere", "No such file or directory")],
    "system": [Wrong("a;b", "write one such as gcc")],
    "python": [Wrong("x", VERSION), Wrong("99", VERSION), Wrong("2.7", VERSION)],
    "env": [
        Wrong("x", "write NAME=VALUE", shown=False),
        Wrong("1A=2", VARIABLE, shown=False),
        Wrong("=x", VARIABLE, shown=False),
    ],
    "secrets": [
        Wrong("x", "write NAME=env:OTHER or NAME=file:/path", shown=False),
        Wrong("A=hunter2", "write NAME=env:OTHER or NAME=file:/path", shown=False),
        Wrong("A B=env:X", VARIABLE, shown=False),
    ],
    "mounts": [Wrong("x", MOUNT), Wrong("/data:x", MOUNT), Wrong("/data:/x:zz", MOUNT)],
    "results": [
        Wrong("/abs", "write the path inside it, or copy the file to $STOKE_RESULTS"),
        Wrong("..", "write out/*.csv"),
    ],
    "index.url": [Wrong("x", ADDRESS, shown=False), Wrong("ftp://h/x", ADDRESS, shown=False)],
    "index.extra": [Wrong("x", ADDRESS, shown=False)],
    "index.credentials": [Wrong("hunter2", REFERENCE, shown=False)],
    "timeout": [Wrong("x", TIME), Wrong("0", TIME), Wrong("-5s", TIME), Wrong("9999999h", TIME)],
    "hold": [Wrong("x", TIME), Wrong("0", TIME), Wrong("-5s", TIME), Wrong("9999999h", TIME)],
    "cpu": [Wrong(value, CORES) for value in ("x", "0", "-1", "nan", "1e9")],
    "memory": [Wrong(value, SIZE) for value in ("x", "1m", "-1", "nan", "9999999t")],
    "shm_size": [Wrong(value, SIZE) for value in ("x", "1m", "-1", "nan", "9999999t")],
    "workspace": [Wrong("A/B", "write a name, such as 'B'"), Wrong("-", "use letters, digits")],
    "cpu_request": [Wrong(value, CORES) for value in ("x", "0", "nan")],
    "memory_request": [Wrong(value, SIZE) for value in ("x", "1m")],
    "gpu": [Wrong(value, "from 1 to 1024; write 1") for value in ("x", "0", "-1", "1.5", "9999")],
    "retries": [
        Wrong(value, "is not a number of retries from 0 to 100; write 3")
        for value in ("x", "-1", "1.5", "101")
    ],
    "retry_exit": [
        Wrong(value, "is not an exit code from 1 to 255; write 1,75") for value in ("x", "0", "256")
    ],
    "profile": [Wrong("x" * 41, "name a table in argo.profiles")],
    "labels": [
        Wrong("x", "write KEY=VALUE", shown=False),
        Wrong("a/b/c=1", "write name or example.com/name", shown=False),
    ],
    "annotations": [
        Wrong("x", "write KEY=VALUE", shown=False),
        Wrong("a/b/c=1", "write name or example.com/name", shown=False),
    ],
    "image": [Wrong("A B", "write it as python:3.13-slim")],
    "scope": [Wrong("A B", "use up to 40 of a-z, 0-9 and -")],
}
FILES = ("requirements", "constraints", "locked")
"""Fields whose errors name the file, which is the option's value."""

OPTIONS = {field.name: field.option for field in FIELDS if field.option}
VALUED = {name: option for name, option in OPTIONS.items() if option.metavar}


def test_each_option_with_a_value_has_a_wrong_one() -> None:
    assert WRONG.keys() == VALUED.keys()
    for field in FIELDS:
        if field.option and not field.option.metavar:
            assert isinstance(field.value, Flag)


@pytest.mark.parametrize(
    ("name", "wrong"), [(name, wrong) for name, values in WRONG.items() for wrong in values]
)
def test_a_wrong_value_is_named_with_its_option_and_what_is_accepted(
    own_home: Path, name: str, wrong: Wrong
) -> None:
    flag = VALUED[name].flags[-1]
    code = ["-c", "1"] if name not in ("code", "module", "exec") else []
    with pytest.raises(RequestError) as caught:
        run.command.main([*given(VALUED[name], wrong.value), *code], standalone_mode=False)
    text = caught.value.what
    if name not in FILES:
        assert text.startswith(flag)
    assert (
        repr(wrong.value)[1:-1] in text.removeprefix(flag).replace(wrong.accepted, "")
    ) == wrong.shown
    assert wrong.accepted in text
    assert not (own_home / "state").exists()


def _texts(command: click.Command) -> list[click.Option]:
    return [
        option
        for option in command.params
        if isinstance(option, click.Option) and not option.is_flag and not option.is_eager
    ]


@pytest.mark.parametrize("option", _texts(run.command), ids=lambda one: one.opts[-1])
def test_an_empty_value_is_refused(own_home: Path, option: click.Option) -> None:
    code = ["-c", "1"] if option.name not in ("code", "module", "exec") else []
    with pytest.raises(click.BadParameter) as caught:
        run.command.main([*words_of(option), *code], standalone_mode=False)
    assert option.opts[-1] in caught.value.format_message()
    form = f"{option.opts[-1]} {option.metavar}"
    if isinstance(option, OptionalValue):
        form = "--hold for 1h, --hold=TIME for another value"
    assert f"'' is empty; write {form}, or leave" in caught.value.format_message()


def words_of(option: click.Option) -> list[str]:
    """An option with an empty value; one whose value may be left out has it behind a =."""
    return [f"{option.opts[-1]}="] if isinstance(option, OptionalValue) else [option.opts[-1], ""]


def test_a_time_that_follows_no_equals_sign_is_no_file(own_home: Path, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text('{"code": "1"}')
    for command, words in (
        (run.command, ["--hold", "10m", "-c", "1"]),
        (run.command, ["--hold", "90", str(request)]),
        (submit.command, ["--hold", "10m", str(request)]),
    ):
        with pytest.raises(click.UsageError, match=f"follows a =: write --hold={words[1]}\\.$"):
            command.main(words, standalone_mode=False)


def test_an_empty_file_is_refused(own_home: Path) -> None:
    with pytest.raises(click.UsageError, match="'' is empty; FILE names a file or a folder"):
        run.command.main([""], standalone_mode=False)


@pytest.mark.parametrize("command", [race.command, render.command], ids=["race", "render"])
def test_other_commands_with_code_name_the_option_too(
    own_home: Path, command: click.Command
) -> None:
    form: list[Any] = ["lock"] if command is render.command else []
    with pytest.raises(RequestError, match=r"^--python: .x. is not a Python version"):
        command.main([*form, "--python", "x", "-c", "1"], standalone_mode=False)


def test_commands_without_code_name_the_option_too(own_home: Path, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text('{"code": "1"}')
    with pytest.raises(RequestError, match=r"^--scope: 'A B' is not a scope name"):
        submit.command.main([str(request), "--scope", "A B"], standalone_mode=False)
    with pytest.raises(RequestError, match=r"^--python: 'x' is not a Python version"):
        cache.command.main(["warm", "-w", "six", "--python", "x"], standalone_mode=False)
    request.write_text('{"code": "1", "scope": "A B"}')
    with pytest.raises(RequestError, match=r"^(?!--).*scope"):
        submit.command.main([str(request)], standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["-b", "nope"], "--backend: there is no backend called 'nope'"),
        (["--folder", "/nowhere"], "--folder: /nowhere is no folder"),
        (["--secret", "A=env:NOT_HERE"], "--secret A: the variable NOT_HERE is not set"),
        (["-b", "local", "-s", "gcc"], "--system: the local backend has no system packages"),
    ],
)
def test_an_error_after_the_options_were_read_names_the_option_too(
    own_home: Path, arguments: list[str], start: str
) -> None:
    with pytest.raises(RequestError) as caught:
        run.command.main([*arguments, "-c", "1"], standalone_mode=False)
    assert caught.value.what.startswith(start)
    assert caught.value.exit_code == 2


def test_a_value_that_no_option_gave_is_named_by_its_field(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text("# /// script\n# dependencies = ['y==']\n# ///\n")
    with pytest.raises(RequestError) as caught:
        run.command.main(["-w", "six", str(script)], standalone_mode=False)
    assert "--with" not in caught.value.what
