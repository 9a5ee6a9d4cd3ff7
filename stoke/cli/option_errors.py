"""Errors about the value of an option, reported under the option's name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from stoke.errors import RequestError
from stoke.request.fields import FIELDS


class _Filled(click.ParamType[Any]):
    """A value that is not empty: most likely a shell expanded a variable that is not set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail(f"'' is empty; write {_usage(param)}, or leave the option out.", param, ctx)
        return super().convert(value, param, ctx)


class FilledText(_Filled, click.types.StringParamType):
    pass


class FilledNumber(_Filled, click.IntRange):
    pass


FILLED = FilledText()
_TIME = re.compile(r"(\d+(\.\d+)?[smhd]?)+")


def _usage(param: click.Parameter | None) -> str:
    """Return how an option is written with a value."""
    assert isinstance(param, click.Option)
    flag = param.opts[-1]
    if isinstance(param, OptionalValue):
        return f"{flag} for {param.alone}, {flag}={param.metavar} for another value"
    return f"{flag} {param.metavar}"


def read_option(name: str, text: str, read: Callable[[str], float]) -> float:
    """Return the number that `read` makes of an option's text. `RequestError` names the option."""
    try:
        return float(read(text))
    except ValueError as error:
        raise RequestError(name, str(error)) from None


class OptionalValue(click.Option):
    """An option whose value, a time, can be left out and is `alone` then. Another follows a `=`."""

    def __init__(self, *words: Any, alone: str, **settings: Any) -> None:
        super().__init__(*words, **settings)
        self.alone = alone

    def make_metavar(self, ctx: click.Context) -> str:
        return f"[={super().make_metavar(ctx)}]"


def with_value(args: list[str], at: int, params: list[click.Parameter]) -> str:
    """Return a word of a command line; an `OptionalValue` without a value gets its default.

    `UsageError` if the next word is a time: it would be taken for FILE.
    """
    word = args[at]
    for option in params:
        if isinstance(option, OptionalValue) and word in option.opts:
            after = "".join(args[at + 1 : at + 2])
            if _TIME.fullmatch(after) and not os.path.exists(after):
                raise click.UsageError(f"A time for {word} follows a =: write {word}={after}.")
            return f"{word}={option.alone}"
    return word


class RequestCommand(click.Command):
    """A command whose options make a request.

    An error names the JSON field that is wrong; where an option set that field, name the option.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ours = [with_value(args, at, self.params) for at in range(end)]
        return super().parse_args(ctx, [*ours, *args[end:]])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RequestError as error:
            flag = _option_of(ctx, error.field)
            if flag is None:
                raise
            named = RequestError(flag, error.why, error.hint)
            named.job_id = error.job_id
            raise named from None


def _option_of(ctx: click.Context, name: str) -> str | None:
    """Return the option on the command line that set a field, with the key of a table behind it."""
    for field in FIELDS:
        rest = name.removeprefix(field.name)
        if field.option and name.startswith(field.name) and rest[:1] in ("", ".", "["):
            if not _is_given(ctx, field.option.name):
                return None
            return " ".join([field.option.flags[-1], *re.findall(r"\.(.+)", rest)])
    flag = f"--{name}"
    for option in ctx.command.params:
        if flag in option.opts and option.name and _is_given(ctx, option.name):
            return flag
    return None


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
