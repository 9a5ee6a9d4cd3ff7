"""The values of a sweep: which tasks it has, and what each task's code gets.

Nothing here loads pydantic or click, because the history makes the requests of tasks with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from stoke.errors import RequestError

MOST_TASKS = 100_000
MOST_CHARACTERS = 32 * 1024
"""The most characters of one value. A variable and an argument of the system take 128 KiB."""
TASK_NUMBER = "id"
"""What a template and a variable call the number of a task."""
LINE = "line"
"""The name of the values of `--each-line`. They are appended as arguments without a name."""
PREFIX = "STOKE_TASK_"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_RANGE = re.compile(r"(-?\d{1,15})\.\.(-?\d{1,15})")
_MARK = re.compile(r"\{\{([A-Za-z_][\w.-]*)\}\}|\{([A-Za-z_][\w.-]*)\}", re.ASCII)
# A value may have several lines, and tabs. Other control characters would act on a terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Axis:
    """Values that vary together: those of one `--each`, or the columns of one file."""

    source: str
    """The option and what it names, for errors."""
    names: tuple[str, ...]
    rows: Sequence[tuple[str, ...]] | Items


@dataclass(frozen=True)
class Table:
    """The tasks of a sweep: a name for each value, and a row of values for each task."""

    names: tuple[str, ...]
    rows: list[tuple[str, ...]]


class Items:
    """The values of one `--each`: texts and ranges. A range takes no memory until it is expanded."""

    def __init__(self, parts: list[str | range]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(1 if isinstance(part, str) else len(part) for part in self._parts)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        for part in self._parts:
            if isinstance(part, str):
                yield (part,)
            else:
                for number in part:
                    yield (str(number),)


def parse_each(text: str) -> Axis:
    """Read NAME=VALUE,VALUE,... where a VALUE can be a range of integers, FIRST..LAST."""
    name, equals, listed = text.partition("=")
    if not equals:
        raise RequestError(
            "each", f"{text[:80]!r} has no values", "write NAME=VALUE,VALUE,... or NAME=1..10"
        )
    source = f"--each {name[:80]}"
    check_name(name, "each")
    parts: list[str | range] = []
    for number, item in enumerate(listed.split(","), 1):
        if not item:
            raise RequestError("each", f"value {number} of {name} is empty")
        bounds = _RANGE.fullmatch(item)
        if bounds is None:
            check_value(item, f"value {number} of {name}", "each")
            parts.append(item)
            continue
        first, last = int(bounds[1]), int(bounds[2])
        step = 1 if last >= first else -1
        parts.append(range(first, last + step, step))
    return Axis(source, (name,), Items(parts))


def check_name(name: str, field: str, where: str = "") -> None:
    if not _NAME.fullmatch(name):
        raise RequestError(
            field,
            f"{where}{name[:80]!r} is not the name of a value; use letters, digits, _, - and .",
        )
    if name == TASK_NUMBER:
        raise RequestError(field, f"{where}{name} is the number of the task; choose another name")


def check_value(value: str, where: str, field: str) -> None:
    if not value:
        raise RequestError(field, f"{where} is empty")
    if len(value) > MOST_CHARACTERS:
        raise RequestError(
            field,
            f"{where} has {len(value):,} characters; at most {MOST_CHARACTERS:,} are possible",
        )
    control = _CONTROL.search(value)
    if control is not None:
        raise RequestError(
            field,
            f"{where} has the control character U+{ord(control[0]):04X} at character "
            f"{control.start() + 1}",
        )


def make_table(axes: Sequence[Axis], *, in_pairs: bool) -> Table:
    """Return every combination of the axes' rows, or with `in_pairs` the first rows of all, then the
    second ones, and so on.

    Raises `RequestError` for names that clash and for too many tasks, before it builds any.
    """
    names = tuple(name for axis in axes for name in axis.names)
    _check_clashes(names)
    sizes = [len(axis.rows) for axis in axes]
    if in_pairs and len(set(sizes)) > 1:
        told = ", ".join(f"{axis.source}: {size:,}" for axis, size in zip(axes, sizes, strict=True))
        raise RequestError("zip", f"takes values of the same number ({told})")
    count = (sizes[0] if sizes else 0) if in_pairs else prod(sizes)
    if count > MOST_TASKS:
        raise RequestError(
            "each", f"the sweep would have {count:,} tasks; at most {MOST_TASKS:,} are possible"
        )
    if count == 0:
        raise RequestError("each", "the sweep has no tasks")
    rows = [axis.rows for axis in axes]
    found = zip(*rows, strict=True) if in_pairs else product(*rows)
    return Table(names, [tuple(value for part in parts for value in part) for parts in found])


def variable(name: str) -> str:
    """Return the variable that holds a value: `lr` is in STOKE_TASK_LR."""
    return PREFIX + re.sub(r"[^A-Z0-9]", "_", name.upper())


def _check_clashes(names: Sequence[str]) -> None:
    known: dict[str, str] = {variable(TASK_NUMBER): TASK_NUMBER}
    for name in names:
        other = known.setdefault(variable(name), name)
        if other is name and list(names).count(name) == 1:
            continue
        if other == name:
            raise RequestError("each", f"the name {name} is used twice")
        raise RequestError("each", f"{other} and {name} would both be in {variable(name)}")


def check_templates(arguments: Sequence[str], names: Sequence[str]) -> None:
    """Raise `RequestError` for an argument that names a value which the sweep does not have."""
    for argument in arguments:
        for mark in _MARK.finditer(argument):
            name = mark[2]
            if name is not None and name not in names and name != TASK_NUMBER:
                known = ", ".join(names)
                raise RequestError(
                    "args",
                    f"{mark[0]} names no value of the sweep; its values are: {known}",
                    f"for the text itself write {{{mark[0]}}}",
                )


def task_arguments(
    arguments: Sequence[str], names: Sequence[str], values: Sequence[str], number: int
) -> list[str]:
    """Return a task's arguments: `{name}` is replaced by the value, and values that no argument names
    are appended as `--name value`.

    `{{name}}` becomes the text `{name}`. Other braces are unchanged, and so is what a value holds.
    """
    known = {**dict(zip(names, values, strict=True)), TASK_NUMBER: str(number)}
    used: set[str] = set()

    def fill(mark: re.Match[str]) -> str:
        if mark[1] is not None:
            return f"{{{mark[1]}}}"
        name = mark[2]
        used.add(name)
        return known.get(name, mark[0])

    filled = [_MARK.sub(fill, argument) for argument in arguments]
    for name, value in zip(names, values, strict=True):
        if name in used:
            continue
        if name == LINE:
            filled.append(value)
        elif value.startswith("-"):
            filled.append(f"--{name}={value}")  # Not an option of its own.
        else:
            filled += [f"--{name}", value]
    return filled


def task_variables(names: Sequence[str], values: Sequence[str], number: int) -> dict[str, str]:
    """Return a task's variables: its number in STOKE_TASK_ID, and each value."""
    found = {variable(TASK_NUMBER): str(number)}
    return found | {variable(name): value for name, value in zip(names, values, strict=True)}


def task_request(
    request: Mapping[str, Any], names: Sequence[str], values: Sequence[str], number: int
) -> dict[str, Any]:
    """Return the JSON of a task's request, given that of its sweep."""
    return {
        **request,
        "args": task_arguments(request.get("args") or (), names, values, number),
        "env": {**(request.get("env") or {}), **task_variables(names, values, number)},
    }
