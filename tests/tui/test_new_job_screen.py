"""New job: typed requests are saved as a draft, predicted and submitted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.widgets import Static, TextArea

from stoke.backend.api import Delivery
from stoke.errors import EngineError
from stoke.files.paths import state_dir
from stoke.history.job import JobState
from stoke.history.volume_index import ScopeCache, VolumeIndex
from stoke.request.spec import JobSpec
from tests.tui.conftest import Desk, FakeBackend, screen_text, shows_all, until
from tests.tui.new_job_form import SIZE, field, opened
from tui.app import StokeApp
from tui.dialogs.prompts import Confirm
from tui.jobs.job_detail import read_spec
from tui.messages import EditRequest
from tui.new_job.code_editor import CodeEditor
from tui.new_job.screen import NewJobScreen


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_typed_code_and_packages_are_submitted_and_watched(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk, size: tuple[int, int]
) -> None:
    async with app.run_test(size=size, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"print(1)")
        field(screen, "dependencies").control.focus()
        await pilot.press(*"pandas", "greater_than_sign", "equals_sign", *"2,", *"<3 numpy")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: backends["local"].deliveries)
        made = backends["local"].deliveries[0]
        assert made.spec.code == "print(1)"
        assert made.spec.dependencies == ("pandas>=2,<3", "numpy")
        await until(pilot, lambda: app.current_mode == "jobs")
        await until(pilot, lambda: made.job_id in screen_text(app))


async def test_a_key_after_the_submission_is_not_for_the_code(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"print(1)")
        screen.action_submit()
        assert screen.focused is None
        await until(pilot, lambda: backends["local"].deliveries)
        await until(pilot, lambda: screen.focused is screen.query_one("#code"))
        assert backends["local"].deliveries[0].spec.code == "print(1)"


async def test_a_module_is_submitted_in_place_of_code(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"1")
        field(screen, "module").text = "http.server"
        await until(pilot, lambda: "is named beside code" in screen_text(app))
        screen.query_one("#code", TextArea).text = " "
        await until(pilot, lambda: "is named beside code" not in screen_text(app))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: backends["local"].deliveries)
        spec = backends["local"].deliveries[0].spec
        assert (spec.module, spec.code) == ("http.server", "")
        await until(pilot, lambda: app.current_mode == "jobs")
        # The job can be edited: its module is in the form again.
        field(screen, "module").text = ""
        app.screen.post_message(EditRequest(spec, "server", "local"))
        await until(pilot, lambda: field(screen, "module").text == "http.server")


async def test_an_edited_job_keeps_its_settings_of_uv(
    app: StokeApp,
    backends: dict[str, FakeBackend],
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They decide what it installs; this machine's may be others by now."""
    uv = {"resolution": {"value": "lowest", "source": "UV_RESOLUTION"}}
    desk.job("fit-aaaaaa", spec={"code": "import x\n", "dependencies": ["six"], "uv": uv})
    desk.job("old-aaaaaa", spec={"code": "import y\n", "dependencies": ["six"], "uv": {}})
    monkeypatch.setenv("UV_PRERELEASE", "allow")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: "fit-aaaaaa" in screen_text(app))
        for job, asked in (("fit-aaaaaa", uv), ("old-aaaaaa", {})):
            stored = read_spec(desk.history, job)
            assert isinstance(stored, JobSpec)
            app.screen.post_message(EditRequest(stored, "again", "local"))
            await until(pilot, lambda: app.current_mode == "new")
            screen = app.screen
            assert isinstance(screen, NewJobScreen)
            await until(pilot, lambda: screen.query("#submit"))  # noqa: B023
            await until(pilot, lambda: screen.query_one(CodeEditor).text == stored.code)  # noqa: B023
            rest = screen.query_one("#rest", Static)
            assert rest.display == bool(asked)
            assert not asked or "uv resolution = lowest  (UV_RESOLUTION)" in str(rest.render())
            await pilot.press("ctrl+n")
            await until(pilot, lambda: backends["local"].deliveries)
            made = backends["local"].deliveries.pop().spec.model_dump(mode="json")
            assert made["uv"] == asked
            screen.query_one(CodeEditor).put("")


async def test_an_error_on_submitting_loses_nothing(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk
) -> None:
    backends["local"].down = EngineError("the disk is full", "make room")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "there is nothing to run" in screen_text(app))
        await pilot.press(*"print(2)")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: shows_all(app, "the disk is full", "print(2)"))
        assert app.current_mode == "new"
        backends["local"].down = None
        await pilot.press("ctrl+r")
        await until(pilot, lambda: backends["local"].deliveries)
        assert screen.query_one("#code").text == "print(2)"  # type: ignore[attr-defined]


async def test_the_draft_is_on_disk_as_it_is_typed(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk
) -> None:
    kept = state_dir() / "draft.json"
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"x = 1")
        field(screen, "dependencies").text = "numpy"
        await until(pilot, lambda: kept.exists() and "numpy" in kept.read_text())
    assert kept.stat().st_mode & 0o077 == 0
    again = StokeApp(app.context.config)
    async with again.run_test(size=SIZE, notifications=True) as pilot:
        await opened(pilot, again)
        await until(pilot, lambda: "x = 1" in screen_text(again))
        assert "numpy" in screen_text(again)


HALF = '{"code": "\\ud800", "backend": null, "use_cache": true, "values": {"name": "\\ud800"}}'


async def test_quitting_right_after_typing_saves_the_draft(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press(*"x = 1", "ctrl+q")
        assert "x = 1" in (state_dir() / "draft.json").read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"code": 1}', '{"values": {"name": null}}', HALF])
async def test_an_unreadable_draft_is_ignored(app: StokeApp, desk: Desk, text: str) -> None:
    (state_dir() / "draft.json").write_text(text)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(pilot, app)


async def test_the_prediction_uses_earlier_jobs(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"print(1)")
        field(screen, "dependencies").text = "numpy"
        await until(pilot, lambda: "python MISS" in screen_text(app))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: backends["local"].deliveries)
        made = backends["local"].deliveries[0].job_id
        desk.raw(made, "UPDATE jobs SET state = 'succeeded', finished_at = 9e9 WHERE id = ?")
        for name in ("lock", "python", "run"):
            desk.raw(
                made,
                "INSERT INTO phases (name, started_at, seconds, hit, job_id) "
                "VALUES (?, 1, 0.004, 1, ?)",
                name,
            )
        job = desk.history.get(made)
        assert job is not None
        place = ScopeCache("local", job.scope, "python")
        packages = ["numpy==2.1", "six==1.17"]
        VolumeIndex(desk.history).record_use(place, "key", 1.0, job.python_hash, packages)
        await until(pilot, lambda: app.current_mode == "jobs")
        await pilot.press("escape", "2")
        field(screen, "dependencies").text = "numpy "
        await until(pilot, lambda: "python HIT, about 8 ms" in screen_text(app))
        field(screen, "dependencies").text = "numpy torch"
        await until(pilot, lambda: "python PARTIAL 1 of 2 named" in screen_text(app))


async def test_the_editor_gets_the_code_and_gives_it_back(
    app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from contextlib import nullcontext

    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\ncp "$1" "$0.was"\nprintf "after = 2\\n" > "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    monkeypatch.setattr(app, "suspend", nullcontext)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press(*"before")
        await pilot.press("ctrl+e")
        await until(pilot, lambda: "after = 2" in screen_text(app))
        assert (tmp_path / "editor.was").read_text() == "before"
        monkeypatch.setenv("VISUAL", str(tmp_path / "no-such-editor"))
        await pilot.press("ctrl+e")
        await until(pilot, lambda: shows_all(app, "no-such-editor", "after = 2"))


async def test_the_editor_may_keep_to_utf8_or_to_the_declared_encoding(
    app: StokeApp, desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from contextlib import nullcontext

    code = "# coding: latin-1\nx = 'caf\xe9'\n"
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\ncp "$1" "$0.was"\ncat "$0.next" >"$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    monkeypatch.setattr(app, "suspend", nullcontext)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        screen.query_one(CodeEditor).put(code)
        for encoding in ("utf-8", "latin-1"):
            changed = code + f"# by {encoding}\n"
            (tmp_path / "editor.next").write_bytes(changed.encode(encoding))
            await pilot.press("ctrl+e")
            await until(pilot, lambda: changed == screen.query_one(CodeEditor).text)  # noqa: B023
        assert (tmp_path / "editor.was").read_text() == code + "# by utf-8\n"


async def test_other_code_is_replaced_only_after_asking(app: StokeApp, desk: Desk) -> None:
    desk.job("fit-aaaaaa", spec={"code": "import x\n"})
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press(*"mine")
        await pilot.press("escape", "escape")
        await until(pilot, lambda: app.current_mode == "jobs")
        await until(pilot, lambda: "fit-aaaaaa" in screen_text(app))
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")
        await until(pilot, lambda: "mine" in screen_text(app))
        assert "import x" not in screen_text(app)


async def test_a_request_edited_without_changes_is_the_same_request(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk
) -> None:
    """Edit and run without an edit is the same request."""
    spec: dict[str, Any] = {
        "code": "import sys\n",
        "args": ["a b", "-x"],
        "dependencies": ["pandas>=2,<3", "x[y]; python_version > '3'"],
        "requirements": "numpy==2.0\n",
        "python": ">=3.11,<3.14",
        "env": {"A": "1=2", "B": " two "},
        "timeout": 90,
        "use_cache": False,
        "scope": "team-a",
    }
    desk.job("fit-aaaaaa", name="fit", spec=spec)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: "fit-aaaaaa" in screen_text(app))
        await pilot.press("e")
        await until(pilot, lambda: app.current_mode == "new")
        await until(pilot, lambda: "import sys" in screen_text(app))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: backends["local"].deliveries)
        made = json.loads(backends["local"].deliveries[0].spec.model_dump_json())
        for name, value in spec.items():
            assert made[name] == value, name


async def test_ctrl_n_submits_and_keeps_the_form_open(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press(*"print(1)", "ctrl+n")
        await until(pilot, lambda: "submitted job-" in screen_text(app))
        assert app.current_mode == "new"
        await pilot.press(*"#", "ctrl+n")
        await until(pilot, lambda: len(backends["local"].deliveries) == 2)
        assert [one.spec.code for one in backends["local"].deliveries] == ["print(1)", "print(1)#"]


@pytest.fixture
def hesitant(backends: dict[str, FakeBackend]) -> Iterator[FakeBackend]:
    """The local backend; it takes no job while `hesitates` is set, which ends with the test."""
    backends["local"].hesitates = True
    yield backends["local"]
    backends["local"].hesitates = False


async def test_quitting_during_a_submission_waits_until_the_job_is_submitted(
    app: StokeApp, hesitant: FakeBackend, desk: Desk
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press(*"print(1)", "ctrl+r", "ctrl+q")
        await until(pilot, lambda: "Quitting once the job is submitted" in screen_text(app))
        hesitant.hesitates = False
        await until(pilot, lambda: not app.is_running)
    assert [job.state for job in desk.history.list()] == [JobState.STARTING]


async def test_quitting_twice_does_not_wait_for_the_submission(
    app: StokeApp, hesitant: FakeBackend, desk: Desk
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press(*"print(1)", "ctrl+r", "ctrl+q", "ctrl+q")
        await until(pilot, lambda: not app.is_running)
        assert hesitant.deliveries == []


async def test_quitting_is_cancelled_if_the_submission_fails(
    app: StokeApp, hesitant: FakeBackend, desk: Desk
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await opened(pilot, app)
        await pilot.press(*"print(1)", "ctrl+r", "ctrl+q")
        hesitant.down = EngineError("the disk is full", "make room")
        hesitant.hesitates = False
        await until(pilot, lambda: "the disk is full" in screen_text(app))
        hesitant.down = None
        await pilot.press("ctrl+r")
        await until(pilot, lambda: app.current_mode == "jobs")
        assert app.is_running


async def test_other_code_can_be_undone(app: StokeApp, desk: Desk) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"mine")
        screen.query_one(CodeEditor).put("other = 1\n")
        await until(pilot, lambda: "other = 1" in screen_text(app))
        await pilot.press("ctrl+z")
        await until(pilot, lambda: screen.query_one(CodeEditor).text == "mine")
        await pilot.press("ctrl+y")
        await until(pilot, lambda: screen.query_one(CodeEditor).text == "other = 1\n")


async def test_packages_that_the_code_names_are_shown_and_not_asked_for_twice(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk
) -> None:
    code = '# /// script\n# dependencies = ["six>=1"]\n# ///\nprint(1)\n'
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        screen.query_one(CodeEditor).put(code)
        field(screen, "dependencies").text = "numpy"
        await until(pilot, lambda: "six>=1 (in the code)" in screen_text(app))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: backends["local"].deliveries)
        spec = backends["local"].deliveries[0].spec
        assert spec.dependencies == ("numpy", "six>=1")
        await until(pilot, lambda: app.current_mode == "jobs")
        screen.offer(spec, "again", "local")
        assert field(screen, "dependencies").text == "numpy"


async def test_a_megabyte_of_code_is_pasted_typed_on_and_submitted(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk
) -> None:
    code = "def f(x):\n    return [y for y in range(x)]  # \u00e4 [red]\n" * 20_000
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await opened(pilot, app)
        app.post_message(events.Paste(code))
        patience = 120.0  # Colours of a megabyte take a busy machine long.
        await until(pilot, lambda: screen.query_one(CodeEditor).text == code, seconds=patience)
        await pilot.press("#", "ctrl+r")
        await until(pilot, lambda: backends["local"].deliveries, seconds=patience)
        assert backends["local"].deliveries[0].spec.code == f"{code}#"
        await until(pilot, lambda: app.screen is not screen, seconds=patience)


class Rendering(FakeBackend):
    def render(self, delivery: Delivery) -> str:
        return (
            f"job: {delivery.job_id}\nbundle: {'x' * 5000}\nsecrets: {dict(delivery.spec.secrets)}"
        )


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_resulting_request_is_shown_beside_the_form(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk, size: tuple[int, int]
) -> None:
    backends["local"].__class__ = Rendering
    async with app.run_test(size=size, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"print(1)", "ctrl+g")
        await until(pilot, lambda: shows_all(app, "job: job-", "stoke render local"))
        text = screen.query_one("#manifest-text", TextArea).text
        assert "4,708 characters more" in text
        field(screen, "name").text = "fit"
        field(screen, "secrets").text = "DB=env:HOME"
        await until(pilot, lambda: "job: fit-" in screen_text(app))
        await until(pilot, lambda: "without DB" in screen_text(app))
        field(screen, "python").text = "three"
        await until(pilot, lambda: "Fix the errors in the form first" in screen_text(app))
        await pilot.press("ctrl+g")
        await until(pilot, lambda: screen.query_one("#code").has_focus)
        await until(pilot, lambda: "print(1)" in screen_text(app))


async def test_a_backend_that_renders_nothing_shows_the_request(
    app: StokeApp, desk: Desk, tmp_path: Path
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press(*"print(1)", "ctrl+g")
        await until(pilot, lambda: '"code": "print(1)"' in screen_text(app))
        assert json.loads(screen.query_one("#manifest-text", TextArea).text) == {"code": "print(1)"}


async def test_one_key_adds_the_packages_that_the_code_imports(
    app: StokeApp, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        screen.query_one(CodeEditor).text = "import numpy, mine, os\nfrom yaml import load"
        await until(pilot, lambda: "f6 adds numpy, pyyaml" in screen_text(app))
        await pilot.press("f6")
        await until(pilot, lambda: "f6 adds" not in screen_text(app))
        assert field(screen, "dependencies").text.split() == ["numpy", "pyyaml"]
        await pilot.press("f6")
        screen.query_one(CodeEditor).text = "import numpy, yaml, attr"
        await until(pilot, lambda: "prediction: python" in screen_text(app))
        assert field(screen, "dependencies").text.split() == ["numpy", "pyyaml"]
