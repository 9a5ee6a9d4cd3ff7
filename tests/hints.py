"""Take a printed hint apart, so that a test can follow it as it was printed.

A test names the hint by its template, the text in the source with `{}` for what is filled in.
`tests/test_hints_followed.py` looks for these templates.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from stoke.errors import StokeError


def refused(call: Callable[[], object], template: str) -> str:
    """The hint of the error that `call` ends with."""
    with pytest.raises(StokeError) as caught:
        call()
    return is_hint(caught.value.hint, template)


def is_hint(printed: str | None, template: str) -> str:
    filled(printed, template)
    assert printed is not None
    return printed


def filled(printed: str | None, template: str) -> tuple[str, ...]:
    """What a printed hint has in the places of its template."""
    assert printed is not None
    pattern = "(.+)".join(map(re.escape, template.split("{}")))
    found = re.fullmatch(pattern, printed, re.DOTALL)
    assert found, printed
    return found.groups()


def command(printed: str, program: str = "stoke") -> list[str]:
    """The arguments of the last command of a program in a hint."""
    found = re.findall(rf"\b{program} ([^;]*)", printed)
    assert found, printed
    return shlex.split(found[-1])


def exported(printed: str, root: Path | None = None) -> dict[str, str]:
    """The variables that a hint exports, with `root` in place of the folder /some of its examples."""
    found = re.search(r"export (.+)$", printed)
    assert found, printed
    pairs = [one.partition("=") for one in shlex.split(found[1])]
    return {
        name: value.replace("/some", str(root), 1) if root else value for name, _, value in pairs
    }
