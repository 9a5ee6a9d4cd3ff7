"""The hints that an event from inside a job can have shown in our own voice.

A job can print events of its own, so the text of a hint proves nothing about its author. Only the hints
that our runner can write are shown as hints: the list is read from the text literals of the runner's
own source, and what the runner fills into one is a single word, or names with commas between.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from stoke.payload import runner_source

# No space, quote or shell character: nothing that could be read as a command of its own.
_WORD = r"[A-Za-z0-9][A-Za-z0-9._+:@=~-]{0,99}"
_FILLED = rf"{_WORD}(?:, {_WORD}){{0,9}}"
_PLACE = re.compile(r"%[-0-9.]*[sdfr]|%\([a-z_]+\)[sd]")
# A literal with fewer letters than this says too little to be a hint.
_LEAST_LETTERS = 10
_MOST = 1000


def is_ours(hint: str) -> bool:
    """Whether the runner that we send along could have written this hint."""
    return len(hint) <= _MOST and any(one.fullmatch(hint) for one in _templates())


@cache
def _templates() -> tuple[re.Pattern[str], ...]:
    found = set(_literals(ast.parse(runner_source())))
    return tuple(re.compile(one) for one in sorted(found))


def _literals(tree: ast.AST) -> Iterator[str]:
    """A pattern for each text in the source that is long enough, its places to fill in left open."""
    for node in ast.walk(tree):
        parts: list[str | None] = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for number, part in enumerate(_PLACE.split(node.value)):
                parts += [None, part] if number else [part]
        elif isinstance(node, ast.JoinedStr):
            parts = [
                one.value if isinstance(one, ast.Constant) and isinstance(one.value, str) else None
                for one in node.values
            ]
        if sum(letter.isalpha() for part in parts if part for letter in part) >= _LEAST_LETTERS:
            yield "".join(_FILLED if part is None else re.escape(part) for part in parts)
