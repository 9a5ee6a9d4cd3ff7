"""The quantities of a request: bytes, seconds, cores and GPUs. An error names value and bounds."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from stoke.text.units import exact_size, parse_duration, parse_size

MIN_BYTES = 4 * 1024**2
MAX_BYTES = 1 << 50
MAX_SECONDS = 365 * 86400
MAX_CORES = 4096
MAX_GPUS = 1024
MAX_RETRIES = 100


def _read_bytes(value: Any) -> Any:
    """Return the bytes in a text or number; a value of another type is left to pydantic."""
    count = parse_size(value)
    if isinstance(count, int) and not MIN_BYTES <= count <= MAX_BYTES:
        bounds = f"from {exact_size(MIN_BYTES)} to {exact_size(MAX_BYTES)}"
        raise ValueError(f"{value!r} is not a size {bounds}; write it as 512m, 2g or 1.5GiB")
    return count


def _read_seconds(value: Any) -> Any:
    """Return the seconds in a text or number; a value of another type is left to pydantic."""
    seconds = parse_duration(value)
    if isinstance(seconds, int | float) and not 0 < seconds <= MAX_SECONDS:
        raise ValueError(
            f"{value!r} is not a duration above 0 s and up to 365 days; write it as 90s, 5m or 1h30m"
        )
    return seconds


def _read_cores(value: Any) -> Any:
    """Return the number in a text or number; a value of another type is left to pydantic."""
    cores = value
    if isinstance(value, str):
        try:
            cores = float(value)
        except ValueError:
            cores = 0
    if isinstance(cores, int | float) and not 0 < cores <= MAX_CORES:
        raise ValueError(
            f"{value!r} is not a number of cores above 0 and up to {MAX_CORES}; write 2 or 0.5"
        )
    return cores


def _read_gpus(value: Any) -> Any:
    return _whole(value, 1, MAX_GPUS, "a number of GPUs", "1 or 2")


def _read_retries(value: Any) -> Any:
    return _whole(value, 0, MAX_RETRIES, "a number of retries", "3")


def _read_exit_code(value: Any) -> Any:
    return _whole(value, 1, 255, "an exit code", "1,75")


def _whole(value: Any, least: int, most: int, what: str, example: str) -> Any:
    """Return the number in a text or number; a value of another type is left to pydantic."""
    number = value
    if isinstance(value, str):
        number = int(value) if re.fullmatch(r"\s*[0-9]{1,9}\s*", value) else least - 1
    if isinstance(number, int | float) and (not least <= number <= most or number != int(number)):
        raise ValueError(f"{value!r} is not {what} from {least} to {most}; write {example}")
    return number


Memory = Annotated[
    int,
    BeforeValidator(_read_bytes),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": MIN_BYTES, "maximum": MAX_BYTES},
                {"type": "string", "examples": ["512m", "2g", "1.5GiB"]},
            ]
        }
    ),
]
"""Bytes."""
Seconds = Annotated[
    float,
    BeforeValidator(_read_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS},
                {"type": "string", "examples": ["90s", "5m", "1h30m"]},
            ]
        }
    ),
]
Cores = Annotated[float, BeforeValidator(_read_cores), Field(gt=0, le=MAX_CORES)]
Gpus = Annotated[int, BeforeValidator(_read_gpus), Field(ge=1, le=MAX_GPUS)]
Retries = Annotated[int, BeforeValidator(_read_retries), Field(ge=0, le=MAX_RETRIES)]
ExitCode = Annotated[int, BeforeValidator(_read_exit_code), Field(ge=1, le=255)]
