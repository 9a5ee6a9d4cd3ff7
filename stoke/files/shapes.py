"""Check documents from untrusted sources: which fields they have, and of which type.

A shape is a type, a predicate, a list with the shape of each item (empty: any list), or a dict with the
shape of each field (empty: any object).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

NEEDED = "!"
"""At the end of a field's name: the object is useless without it."""
EACH = "*"
"""In place of a name: all fields that have no shape of their own."""

LATEST = float(1 << 33)
"""The year 2242. Later times are beyond what can be printed in every time zone."""

Shape = type | Callable[[Any], bool] | dict[str, Any] | list[Any]


class ShapeError(ValueError):
    """An object has another shape. The message names the field."""


def checked(value: Any, shape: Shape, where: str = "it") -> Any:
    """Return `value` without the fields that are null: they count as absent.

    Fields without a shape may be anything. Raises `ShapeError`.
    """
    if isinstance(shape, dict):
        return _checked_object(value, shape, where)
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise ShapeError(f"{where} is not a list")
        return [checked(one, shape[0], where) for one in value] if shape else value
    right = isinstance(value, shape) if isinstance(shape, type) else shape(value)
    if not right:
        raise ShapeError(f"{where} is invalid")
    return value


def _checked_object(value: Any, shape: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ShapeError(f"{where} is not an object")
    each = shape.get(EACH)
    found = {}
    for name, inner in value.items():
        if inner is None:
            continue
        of_field = shape.get(name + NEEDED, shape.get(name, each))
        found[name] = (
            inner if of_field is None else checked(inner, of_field, f"{where}.{name[:40]}")
        )
    for name in shape:
        if name.endswith(NEEDED) and name[:-1] not in found:
            raise ShapeError(f"{where} has no {name[:-1]}")
    return found


def is_time(value: object) -> bool:
    """Whether a value is a time that the clock of a machine can have, in epoch seconds."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < LATEST  # type: ignore[operator]


def is_count(value: object) -> bool:
    """Whether a value is a number of bytes or of things, which SQLite can store."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number and 0 <= value < 1 << 63  # type: ignore[operator]


def is_exit_code(value: object) -> bool:
    """Whether a value is a process's exit code, which Windows prints without a sign."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number and -(1 << 31) <= value < 1 << 32  # type: ignore[operator]
