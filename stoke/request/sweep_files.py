"""Read the values of a sweep from files: lines, CSV, and lines of JSON."""

from __future__ import annotations

import csv
import json
from typing import Any

from stoke.errors import RequestError
from stoke.request.input_files import STANDARD_INPUT, read_input
from stoke.request.sweep_values import LINE, MOST_TASKS, Axis, check_name, check_value

MAX_FILE = 64 * 1024**2
_FIELD = "each-file"


def read_lines(where: str) -> Axis:
    """Read one task for each line of a file, or of standard input (`-`)."""
    field, named = "each-line", _named(where)
    lines = _text(where, field).split("\n")
    if lines[-1] == "":
        lines.pop()
    _check_count(len(lines), field, named)
    rows = [(line.removesuffix("\r"),) for line in lines]
    for number, (line,) in enumerate(rows, 1):
        check_value(line, f"line {number} of {named}", field)
    return Axis(f"--each-line {named}", (LINE,), rows)


def read_table(where: str) -> Axis:
    """Read one task for each row of a CSV file with a header, or for each line of a JSONL file."""
    kind = where.lower().rpartition(".")[2]
    if kind not in ("csv", "jsonl"):
        raise RequestError(_FIELD, f"{where[:80]!r} is neither a .csv nor a .jsonl file")
    text = _text(where, _FIELD)
    return _csv(text, where) if kind == "csv" else _jsonl(text, where)


def _csv(text: str, where: str) -> Axis:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    names: list[str] = []
    rows: list[tuple[str, ...]] = []
    try:
        for row in reader:
            at = f"line {reader.line_num} of {where}"
            if not names:
                if not row:
                    raise RequestError(_FIELD, f"{at} is empty; it has to name the columns")
                for name in row:
                    check_name(name, _FIELD, f"{at} has to name the columns: ")
                names = row
                continue
            if len(row) != len(names):
                raise RequestError(_FIELD, f"{at} has {len(row)} values for {len(names)} columns")
            for name, value in zip(names, row, strict=True):
                check_value(value, f"{name} in {at}", _FIELD)
            rows.append(tuple(row))
            _check_most(len(rows), _FIELD, where)
    except csv.Error as error:
        raise RequestError(
            _FIELD, f"line {reader.line_num} of {where} is no CSV: {error}"
        ) from None
    _check_count(len(rows), _FIELD, where)
    return Axis(f"--each-file {where}", tuple(names), rows)


def _jsonl(text: str, where: str) -> Axis:
    names: list[str] = []
    rows: list[tuple[str, ...]] = []
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
        at = f"line {number} of {where}"
        try:
            values = json.loads(line, object_pairs_hook=_once)
        except _TwiceError as error:
            raise RequestError(_FIELD, f"{at} has {error} twice") from None
        except (ValueError, RecursionError) as error:
            raise RequestError(_FIELD, f"{at} is no JSON: {error}") from None
        if not isinstance(values, dict) or not values:
            raise RequestError(_FIELD, f"{at} is no object with values")
        if not names:
            names = list(values)
            for name in names:
                check_name(name, _FIELD, f"{at}: ")
        if values.keys() != set(names):
            raise RequestError(
                _FIELD, f"{at} has other names than line 1: {', '.join(values)[:200]}"
            )
        rows.append(tuple(_json_value(values[name], f"{name} in {at}") for name in names))
        _check_most(len(rows), _FIELD, where)
    return Axis(f"--each-file {where}", tuple(names), rows)


class _TwiceError(Exception):
    """A name that an object has twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return found


def _json_value(value: Any, where: str) -> str:
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool | int | float):
        text = json.dumps(value)
    else:
        raise RequestError(_FIELD, f"{where} is neither a text nor a number")
    check_value(text, where, _FIELD)
    return text


def _text(where: str, field: str) -> str:
    data = read_input(where, MAX_FILE)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RequestError(field, f"line {line} of {_named(where)} is not UTF-8") from None


def _named(where: str) -> str:
    return STANDARD_INPUT if where == "-" else where


def _check_count(count: int, field: str, named: str) -> None:
    if count == 0:
        raise RequestError(field, f"{named} has no tasks")
    _check_most(count, field, named)


def _check_most(count: int, field: str, named: str) -> None:
    if count > MOST_TASKS:
        raise RequestError(field, f"{named} has more than {MOST_TASKS:,} tasks")
