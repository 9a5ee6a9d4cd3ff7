"""The editor colours what is drawn as Textual would, without asking for all of it."""

from __future__ import annotations

from typing import Any

from textual.app import App, ComposeResult
from textual.widgets import TextArea

from tui.widgets.editing import SafeTextArea

CODE = (
    '''"""A docstring
over lines.
"""
import os


def f(x: int = 3) -> str:
    # a comment
    return f"{x!r} \u00e4" + """and
    more"""
'''
    * 40
)


class Both(App[None]):
    def compose(self) -> ComposeResult:
        for editor in (TextArea, SafeTextArea):
            yield editor(CODE, language="python", theme="css")


def highlights(editor: TextArea) -> list[list[Any]]:
    return [sorted(editor._highlights[row], key=str) for row in range(editor.document.line_count)]


async def test_every_line_is_highlighted_as_by_textual() -> None:
    async with Both().run_test(size=(80, 24)) as pilot:
        theirs, ours = pilot.app.query(TextArea)
        assert highlights(ours) == highlights(theirs)
        for editor in (theirs, ours):
            editor.insert('x = """\n', (100, 0))
        assert highlights(ours) == highlights(theirs)
        assert any(highlights(ours))


async def test_only_what_is_drawn_is_asked_for() -> None:
    async with Both().run_test(size=(80, 24)) as pilot:
        ours = pilot.app.query_one(SafeTextArea)
        ours.insert("#", (0, 0))
        await pilot.pause()
        assert 0 < len(ours._highlights) < ours.document.line_count
