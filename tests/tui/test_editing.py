"""The editor highlights drawn lines as Textual would, without reading all of the document."""

from __future__ import annotations

from typing import Any

import pytest
from textual import events
from textual.app import App, ComposeResult
from textual.widgets import TextArea

from tui.new_job.code_editor import CodeEditor
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


async def test_highlights_are_read_for_drawn_lines_only() -> None:
    async with Both().run_test(size=(80, 24)) as pilot:
        ours = pilot.app.query_one(SafeTextArea)
        ours.insert("#", (0, 0))
        await pilot.pause()
        assert 0 < len(ours._highlights) < ours.document.line_count


@pytest.mark.parametrize("how", ["load", "put", "paste", "start"])
async def test_every_text_survives_the_text_area(how: str) -> None:
    text = "a\x0cb\u2028c\x85d\x1ce\ud800 '\x00\t\U0001f600\ufeff\u202e\n\nlast"
    app: App[None] = App()
    async with app.run_test(size=(80, 24)) as pilot:
        editor = CodeEditor(text if how == "start" else "")
        await app.mount(editor)
        editor.focus()
        if how == "load":
            editor.load_text(text)
        elif how == "put":
            editor.put(text)
        elif how == "paste":
            app.post_message(events.Paste(text))
        await pilot.pause()
        assert editor.text == text
        assert editor.get_text_range((0, 0), editor.document.end) == text
        assert editor.document.line_count == 3
        await pilot.press("x", "ctrl+z")
        assert editor.text == text
