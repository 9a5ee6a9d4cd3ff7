"""New job's files: code and requests opened, presets saved and chosen."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events
from textual.widgets import Checkbox, Input, Static

from stoke.request import presets
from tests.tui.conftest import Desk, FakeBackend, said, screen_text, until
from tests.tui.new_job_form import SIZE, field, opened
from tui.app import StokeApp
from tui.dialogs.prompts import Confirm
from tui.new_job.code_editor import CodeEditor
from tui.new_job.pick import ChoosePreset, OpenFile, SavePreset
from tui.widgets.path_input import typed_path, whole_path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    (folder / "jobs").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_code_is_opened_by_keys_and_undone(
    app: StokeApp, desk: Desk, here: Path, size: tuple[int, int]
) -> None:
    (here / "jobs" / "train.py").write_text("print('from a file')\n")
    (here / "jobs" / "[red].py").write_text("x")
    async with app.run_test(size=size, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"mine", "ctrl+o")
        await until(pilot, lambda: "jobs/" in screen_text(app))
        await pilot.press("tab")
        await until(pilot, lambda: "[red].py" in screen_text(app))
        await pilot.press("down", "enter")
        await until(pilot, lambda: "from a file" in screen_text(app))
        assert field(screen, "name").text == "train"
        await pilot.press("ctrl+z")
        await until(pilot, lambda: screen.query_one(CodeEditor).text == "mine")
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "train.py" in screen_text(app))
        await pilot.press(*"nowhere/x", "enter")
        await until(pilot, lambda: "No such file" in said(app))
        await pilot.press("escape")
        assert screen.query_one(CodeEditor).text == "mine"


@pytest.mark.parametrize(
    ("how", "form"),
    [
        ("pasted", "{path}"),
        ("pasted", "'{path}'"),
        ("pasted", "{escaped}"),
        ("pasted", "file://{address}"),
        ("pasted", "  {home} \n"),
        ("typed", "{path}"),
    ],
)
async def test_an_absolute_path_in_any_notation_replaces_the_suggested_folder(
    app: StokeApp, desk: Desk, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    form: str, how: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "my files" / "job's.py"
    if "'" in form:
        path = path.with_name("job.py")
    path.parent.mkdir()
    path.write_text("print('from elsewhere')\n")
    text = form.format(
        path=path,
        escaped=str(path).replace(" ", "\\ ").replace("'", "\\'"),
        address=quote(str(path)),
        home=f"~/my files/{path.name}",
    )
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, OpenFile))
        if how == "pasted":
            app.screen.query_one(Input).post_message(events.Paste(text))
        else:
            for character in text:
                await pilot.press(character)
        await until(pilot, lambda: app.screen.query_one(Input).value.endswith(path.name))
        await pilot.press("enter")
        await until(pilot, lambda: "from elsewhere" in screen.query_one(CodeEditor).text)


@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1))
def test_a_path_is_taken_as_any_shell_or_terminal_writes_it(name: str) -> None:
    path = f"/x/{name}".rstrip()
    assert whole_path(shlex.quote(path)) == path
    assert whole_path(f"file://{quote(path)}") == path
    assert whole_path("work/" + name) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("/folder//tmp/a.py", "/tmp/a.py"),
        ("/folder/~/a.py", "~/a.py"),
        ("~/folder/a.py", "~/folder/a.py"),
        ("//etc/x~/y", "/etc/x~/y"),
        ("/folder//~ada/a", "~ada/a"),
    ],
)
def test_a_typed_absolute_path_replaces_the_suggested_folder(typed: str, meant: str) -> None:
    assert typed_path(typed) == meant


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.py", b"x = '\xe4'\n", "is not UTF-8 at line 1"),
        ("a.py", b"#" * (9 * 1024**2), "longer than 8 MiB"),
        ("a.ipynb", b'{"cells": [], "nbformat": 4}', "is a notebook without code"),
        ("a.toml", b"a = 1\n", "is TOML by its name"),
        ("a.json", b'{"cells": [], "nbformat": 4}', "is a Jupyter notebook"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b'{"code": "1", "scope": "A B"}', "is not a scope name"),
    ],
)
async def test_an_unusable_file_is_reported_and_the_form_unchanged(
    app: StokeApp, desk: Desk, here: Path, name: str, data: bytes, why: str
) -> None:
    (here / name).write_bytes(data)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"mine", "ctrl+o")
        await until(pilot, lambda: name in screen_text(app))
        await pilot.press(*"a", "enter")
        await until(pilot, lambda: why in said(app))
        assert screen.query_one(CodeEditor).text == "mine"


async def test_a_notebook_is_opened_as_a_script(app: StokeApp, desk: Desk, here: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": "# x"},
        {"cell_type": "code", "source": "print(1)"},
    ]
    (here / "nb.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4}))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "nb.ipynb" in screen_text(app))
        await pilot.press(*"nb", "enter")
        await until(pilot, lambda: "opened as a script" in said(app))
        assert screen.query_one(CodeEditor).text == "# %%\nprint(1)\n"


async def test_code_in_a_declared_encoding_is_opened_as_its_text(
    app: StokeApp, desk: Desk, here: Path
) -> None:
    text = "# -*- coding: latin-1 -*-\nprint('caf\xe9')\n"
    (here / "latin.py").write_bytes(text.encode("latin-1"))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "latin.py" in screen_text(app))
        await pilot.press(*"latin", "enter")
        await until(pilot, lambda: screen.query_one(CodeEditor).text == text)


@pytest.mark.parametrize(
    "request_",
    [
        {"code": "1", "requirements": "six==1.0 --hash=sha256:" + "0" * 64, "locked": True},
        {"code": "2", "dependencies": ["six"], "constraints": "six<2\n"},
    ],
)
async def test_constraints_and_a_complete_lock_are_part_of_the_form(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk, request_: dict[str, Any]
) -> None:
    """A preset with them is opened, and submitted as the same request."""
    presets.save(presets.path_of("one"), json.dumps(request_))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, ChoosePreset))
        await pilot.press("enter")
        await until(pilot, lambda: screen.query_one(CodeEditor).text == request_["code"])
        assert screen.query_one("#locked", Checkbox).value is request_.get("locked", False)
        assert field(screen, "constraints").text == request_.get("constraints", "")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: backends["local"].deliveries)
    spec = backends["local"].deliveries[0].spec
    assert spec.locked is request_.get("locked", False)
    assert spec.constraints == request_.get("constraints", "")


async def test_a_preset_is_saved_chosen_and_the_same_request(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"print(1)")
        field(screen, "dependencies").text = "pandas>=2,<3\nsix"
        field(screen, "env").text = "MODE=fast\nAPI_TOKEN=hunter2"
        field(screen, "name").text = "fit"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, SavePreset))
        await pilot.press("enter")
        await until(pilot, lambda: "stoke submit" in said(app))
        assert "API_TOKEN: saved by reference" in said(app)
        path = presets.path_of("fit")
        assert json.loads(path.read_text()) == {
            "code": "print(1)",
            "dependencies": ["pandas>=2,<3", "six"],
            "env": {"MODE": "fast"},
            "secrets": {"API_TOKEN": "env:API_TOKEN"},
        }
        # A second one of that name asks first, and Cancel has the focus.
        await pilot.press(*"#", "ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, SavePreset))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")
        assert json.loads(path.read_text())["code"] == "print(1)"
        # Typed code is replaced only after a question.
        screen.query_one(CodeEditor).put("")
        field(screen, "dependencies").text = "torch"
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, ChoosePreset))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: screen.query_one(CodeEditor).text == "print(1)")
        assert field(screen, "dependencies").text == "pandas>=2,<3\nsix"
        assert field(screen, "secrets").text == "API_TOKEN=env:API_TOKEN"


async def test_a_form_with_errors_cannot_be_saved_as_a_preset(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"print(1)")
        field(screen, "timeout").text = "soon"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "is not a duration" in said(app))
        assert field(screen, "timeout").control.has_focus
        assert presets.found() == []


async def test_a_bad_preset_is_named_and_nothing_lost(app: StokeApp, desk: Desk) -> None:
    presets.save(presets.path_of("bad"), '{"code": "[red]x", "scope": "[/nope]"}')
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"mine", "f4")
        await until(pilot, lambda: "'[/nope]' is not a scope name" in said(app))
        await pilot.press("enter")
        await until(pilot, lambda: "bad.json cannot be used" in said(app))
        await pilot.press("escape")
        assert screen.query_one(CodeEditor).text == "mine"


async def test_an_empty_preset_list_explains_how_to_save_one(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press("f4")
        await until(pilot, lambda: "No presets yet" in said(app))
        await pilot.press("escape")
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, OpenFile))
        await pilot.press("escape")


async def test_values_without_a_form_field_are_kept_and_listed(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk
) -> None:
    index = {"url": "https://packages.test/simple"}
    presets.save(presets.path_of("ours"), json.dumps({"code": "print(1)", "index": index}))
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, ChoosePreset))
        await pilot.press("enter")
        await until(pilot, lambda: screen.query_one(CodeEditor).text == "print(1)")
        assert "packages.test" in str(screen.query_one("#rest", Static).render())
        app.exit()
    again = StokeApp(app.context.config)
    async with again.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "print(1)" in screen_text(again))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: backends["local"].deliveries)
        assert backends["local"].deliveries[0].spec.index.url == index["url"]
