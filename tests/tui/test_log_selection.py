"""The log window: selecting, copying, saving and paging."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from textual.strip import Strip

from tests.tui.conftest import Desk, screen_text, until
from tests.tui.open_log import JOB, ask, lines, opened
from tui.app import StokeApp


async def test_copy_takes_the_line_under_the_cursor(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=lines(0, 5))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.press("k", "y")
        await until(pilot, lambda: app.clipboard == "line 3")
        assert view.cursor == 3
        await pilot.press("escape", "y")
        await until(pilot, lambda: app.clipboard == JOB)


async def test_the_pager_gets_the_log_without_escape_sequences(
    app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    pager = tmp_path / "pager"
    pager.write_text(f'#!/bin/sh\ncat "$1" > {copy}\n')
    pager.chmod(0o755)
    monkeypatch.setenv("PAGER", str(pager))
    monkeypatch.setattr(app, "suspend", nullcontext)
    desk.job(JOB, log=b"\x1b[31mred\x1b[0m\x1b]52;c;aGk=\x07\nlast\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("vertical_line")
        await until(pilot, copy.exists)
        await until(pilot, lambda: copy.read_text() == "red\nlast\n")
        monkeypatch.setenv("PAGER", "/nowhere/pager")
        await pilot.press("vertical_line")
        await until(pilot, lambda: "export PAGER=" in screen_text(app))


async def test_lines_are_selected_with_v_and_copied(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=b"one\t1\n\x1b[31mtwo\x1b[0m\nthree\n")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.press("v", "g")
        await until(pilot, lambda: "3 selected, y copies" in screen_text(app))
        await pilot.press("y")
        await until(pilot, lambda: app.clipboard == "one\t1\ntwo\nthree")
        await until(pilot, lambda: "3 lines: copied" in screen_text(app))
        assert view.selected_from is None


@pytest.mark.parametrize("wrap", [False, True])
async def test_lines_between_old_and_new_cursor_are_redrawn(
    app: StokeApp, desk: Desk, wrap: bool
) -> None:
    """Only the lines between the old and the new cursor are drawn."""
    desk.job(JOB, log=b"".join(b"%d %s\n" % (n, b"x" * (n * 37 % 300)) for n in range(60)))
    async with app.run_test(size=(120, 40)) as pilot:
        view = await opened(pilot, app)
        view.wrap = wrap
        drawn: set[int] = set()
        render = view.render_line

        def render_line(y: int) -> Strip:
            drawn.add(y)
            return render(y)

        view.render_line = render_line  # type: ignore[method-assign]
        for key in "kkvkkkjjjjjjkvkgjjvjjjkkkkkG":
            drawn.clear()
            await pilot.press(key)
            await pilot.pause()
            assert wrap or key not in "kj" or len(drawn) < 12
            shown = app.export_screenshot(simplify=True)
            view.refresh()
            await pilot.pause()
            assert app.export_screenshot(simplify=True) == shown, key


async def test_text_selected_with_the_mouse_is_copied(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=b"".join(b"line %d\n" % n for n in range(5)))
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        view = await opened(pilot, app)
        await pilot.mouse_down(view, offset=(3, 1))
        await pilot.hover(view, offset=(6, 3))
        await pilot.mouse_up(view, offset=(6, 3))
        await until(pilot, lambda: view.text_selection is not None)
        await pilot.press("ctrl+c")
        await until(pilot, lambda: app.clipboard == "ne 1\nline 2\nline 3")


async def test_copying_too_much_is_refused(app: StokeApp, desk: Desk) -> None:
    desk.job(JOB, log=(b"x" * 1_000_000 + b"\n") * 20)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("v", "g", "y")
        await until(pilot, lambda: "too long for a clipboard" in screen_text(app))


async def test_saving_the_log_asks_before_it_replaces_a_file(
    app: StokeApp, desk: Desk, tmp_path: Path
) -> None:
    log = b"\x1b[31mred\x1b[0m\n\xff raw\r\n"
    desk.job(JOB, log=log)
    target = tmp_path / "saved.log"
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await opened(pilot, app)
        await ask(pilot, "S", str(target))
        await until(pilot, lambda: target.exists() and target.read_bytes() == log)
        await until(pilot, lambda: "saved" in screen_text(app))
        target.write_bytes(b"mine")
        await ask(pilot, "S", str(target))
        await until(pilot, lambda: "Replace this file?" in screen_text(app))
        await pilot.press("escape")
        await until(pilot, lambda: not app.screen.is_modal)
        assert target.read_bytes() == b"mine"
        await ask(pilot, "S", str(target))
        await until(pilot, lambda: "Replace this file?" in screen_text(app))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: target.read_bytes() == log)
        await ask(pilot, "S", str(tmp_path / "no" / "where"))
        await until(pilot, lambda: "cannot save the log" in screen_text(app))
