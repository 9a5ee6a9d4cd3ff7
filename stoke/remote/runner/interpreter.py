"""The fingerprint of an interpreter, and the bounds that its version satisfies."""

from __future__ import annotations

import os
import re
import sys


def fingerprint() -> list[str]:
    """Return what an environment depends on: it fits no interpreter with another fingerprint."""
    from importlib.machinery import EXTENSION_SUFFIXES

    machine = os.uname()
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        libc = "musl"
    system = []
    try:
        with open("/etc/os-release") as release:
            system = sorted(line.strip() for line in release if re.match("(ID|VERSION_ID)=", line))
    except OSError:
        pass
    base = getattr(sys, "_base_executable", None) or sys.executable
    libc = libc or "unknown"
    return [
        sys.version,
        EXTENSION_SUFFIXES[0],
        os.path.realpath(base),
        machine.sysname,
        machine.machine,
        libc,
        *system,
    ]


def satisfies(version: tuple[int, ...], requested: str) -> bool:
    """Return whether a version such as (3, 12, 1) is within bounds such as "3.12" or ">=3.11,<3.14"."""
    for part in requested.split(","):
        match = re.match(r"\s*(~=|==|!=|<=|>=|<|>)?\s*([\d.]+?)(\.\*)?\s*$", part)
        if not match:
            return False
        operator, digits, star = match.groups()
        bound = tuple(int(digit) for digit in digits.split("."))
        prefix = tuple(version[: len(bound)])
        full = tuple(version[:3])
        padded = bound + (0,) * (3 - len(bound))
        fits = {
            None: prefix == bound,
            "==": prefix == bound if star or len(bound) == 3 else full == padded,
            "!=": prefix != bound if star or len(bound) == 3 else full != padded,
            "~=": full >= padded and prefix[:-1] == bound[:-1],
            ">=": full >= padded,
            "<=": full <= padded,
            ">": full > padded,
            "<": full < padded,
        }
        if not fits[operator]:
            return False
    return True
