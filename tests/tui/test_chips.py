"""Packages as chips: typing, pasting, completion, undo, and the error of each chip."""

from __future__ import annotations

from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Select

from tests.tui.conftest import Desk, screen_text, shows_all, until
from tests.tui.new_job_form import field, opened
from tui.app import StokeApp
from tui.new_job.chips import ChipInput, Chips

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)])


async def chips_of(pilot: Pilot[Any], app: StokeApp, name: str = "dependencies") -> Chips:
    screen = await opened(pilot, app)
    # local has no system packages, so that field is disabled there.
    screen.query_one("#backend", Select).value = "docker"
    chips = field(screen, name).chips
    assert chips is not None
    # The field may be disabled until the form is checked for that backend.
    await until(pilot, lambda: chips.input.focus().has_focus)
    return chips


def texts(chips: Chips) -> list[str]:
    return [chip.text for chip in chips._chips]


@SIZES
async def test_typing_makes_chips_and_backspace_takes_the_last_one_back(
    app: StokeApp, desk: Desk, size: tuple[int, int]
) -> None:
    async with app.run_test(size=size, notifications=True) as pilot:
        chips = await chips_of(pilot, app)
        await pilot.press(*"numpy, pandas>=2,<3 six")
        assert (texts(chips), chips.input.value) == (["numpy"], "pandas>=2,<3 six")
        await pilot.press("enter")
        assert texts(chips) == ["numpy", "pandas>=2,<3", "six"]
        await until(pilot, lambda: " numpy   pandas>=2,<3   six " in screen_text(app))
        await pilot.press("backspace")
        assert (texts(chips), chips.input.value) == (["numpy", "pandas>=2,<3"], "six")
        await pilot.press(*"==1.17", "enter", "enter")
        assert texts(chips) == ["numpy", "pandas>=2,<3", "six==1.17"]
        await until(pilot, lambda: not chips.input.has_focus)


async def test_keys_select_edit_and_remove_a_chip(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        chips = await chips_of(pilot, app)
        chips.text = "a\nb\nc\nd"
        await pilot.press("left", "left", "left")
        assert chips.chosen == 1
        await pilot.press("enter", *">=2", "enter")
        assert texts(chips) == ["a", "b>=2", "c", "d"]
        await pilot.press("left", "left", "delete", "backspace")
        assert texts(chips) == ["a", "b>=2"]
        await pilot.press("right", *"e", "enter")
        assert texts(chips) == ["a", "b>=2", "e"]
        # Editing another chip keeps the unfinished text.
        await pilot.press(*"f", "home", "left", "left", "enter", "enter")
        assert sorted(texts(chips)) == ["a", "b>=2", "e", "f"]


async def test_each_wrong_chip_shows_its_error(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        chips = await chips_of(pilot, app)
        await pilot.press(*"numpy ./mine x=1", "enter")
        await until(pilot, lambda: shows_all(app, "(and 1 more)", "! ./mine", "does not travel"))
        await pilot.press("left")
        await until(pilot, lambda: "'x=1' is not a requirement" in screen_text(app))
        assert [chip.text for chip in chips.wrong] == ["./mine", "x=1"]
        await pilot.press("delete", "delete")
        await until(pilot, lambda: "python MISS" in screen_text(app))


async def test_package_names_are_completed_from_earlier_jobs(app: StokeApp, desk: Desk) -> None:
    for request, names in (("a", ["pandas", "pytest"]), ("b", ["pandas", "numpy"])):
        desk.history.add_asked(request, "python", names)
    desk.history.add_asked("a", "system", ["gcc"])
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        chips = await chips_of(pilot, app)
        await until(pilot, lambda: chips.known)
        assert list(chips.known) == ["pandas", "numpy", "pytest"]
        await pilot.press(*"six p")
        assert chips.input._suggestion == "six pandas"
        await pilot.press("down")
        assert chips.input._suggestion == "six pytest"
        await pilot.press("up", "right", "enter")
        assert texts(chips) == ["six", "pandas"]
        await pilot.press("p")
        assert chips.input._suggestion == "pytest"


async def test_a_pasted_list_becomes_chips(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        chips = await chips_of(pilot, app)
        await pilot.press(*"si")
        app.post_message(events.Paste('x\n  "numpy>=2",  # newest\n[red]\n\x1b[31m\n'))
        await until(pilot, lambda: len(texts(chips)) >= 3)
        assert texts(chips)[:2] == ["six", "numpy>=2"]
        app.post_message(events.Paste(""))
        app.post_message(events.Paste("\n"))
        await pilot.pause()
        assert len(chips.wrong) == len(texts(chips)) - 2


async def test_a_pasted_requirements_file_fills_the_requirements_field(
    app: StokeApp, desk: Desk
) -> None:
    text = f"numpy==2.0 \\\n    --hash=sha256:{'0' * 64}\n"
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        chips = await chips_of(pilot, app)
        app.post_message(events.Paste(text))
        screen = app.get_screen_stack("new")[0]
        await until(pilot, lambda: field(screen, "requirements").text == text)  # type: ignore[arg-type]
        assert texts(chips) == []


@SIZES
async def test_ten_thousand_packages(app: StokeApp, desk: Desk, size: tuple[int, int]) -> None:
    names = [f"package-{number}>=1,<2" for number in range(10_000)]
    async with app.run_test(size=size, notifications=True) as pilot:
        chips = await chips_of(pilot, app)
        app.post_message(events.Paste("\n".join(names)))
        await until(pilot, lambda: shows_all(app, "package-9999>=1,<2", "10,000"))
        assert texts(chips) == names
        assert chips.size.height <= 6
        await until(pilot, lambda: "python MISS" in screen_text(app))
        await pilot.press("left", "delete")
        assert texts(chips) == names[:-1]


async def test_system_packages_are_chips_too(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        chips = await chips_of(pilot, app, "system")
        await pilot.press(*"gcc ffmpeg, a*b", "enter")
        assert texts(chips) == ["gcc", "ffmpeg", "a*b"]
        assert [chip.wrong for chip in chips.wrong] == [
            "'a*b' is not the name of a Nix package; write one such as gcc or python3Packages.numpy"
        ]


async def test_a_click_chooses_a_chip(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        chips = await chips_of(pilot, app)
        chips.text = "numpy\nsix"
        await pilot.pause()
        await pilot.click("ChipList", offset=(10, 0))
        await until(pilot, lambda: chips.chosen == 1)
        assert isinstance(app.focused, ChipInput)
