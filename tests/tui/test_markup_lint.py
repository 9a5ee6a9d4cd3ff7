"""No formatted string reaches a widget that would parse it as markup.

An f-string may hold text from outside; given to one of these it would be parsed. Text, Content or
`markup=False` is the way.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tui

PARSES_MARKUP = {"notify", "update", "Static", "Label", "Button", "Checkbox", "Collapsible"}
SOURCES = sorted(Path(tui.__file__).parent.rglob("*.py"))


def offences(source: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        plain = any(
            word.arg == "markup" and isinstance(word.value, ast.Constant) and not word.value.value
            for word in node.keywords
        )
        built = any(isinstance(argument, ast.JoinedStr | ast.BinOp) for argument in node.args)
        if name in PARSES_MARKUP and built and not plain:
            yield node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_formatted_string_is_parsed_as_markup(path: Path) -> None:
    assert list(offences(path.read_text())) == []


def test_the_lint_finds_what_it_looks_for() -> None:
    assert list(offences('app.notify(f"{x}")\nStatic("a" + x)\nnotify(f"{x}", markup=False)')) == [
        1,
        2,
    ]
