"""Projects on the screens: what would travel with a form, and what traveled with a job."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from textual.pilot import Pilot

from stoke.cli.command_table import cli
from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.history.job import JobState, Phase
from stoke.request import presets
from stoke.request.spec import JobSpec
from tests.hints import is_hint, refused
from tests.projects import write
from tests.tui.conftest import NOW, Desk, FakeBackend, said, screen_text, shows_all, until
from tests.tui.new_job_form import field, opened
from tests.tui.test_hostile import harmless
from tui.app import StokeApp
from tui.new_job import draft as drafts
from tui.new_job.code_editor import CodeEditor
from tui.new_job.draft import Draft
from tui.new_job.files_dialog import FilesDialog
from tui.new_job.pick import OpenFile
from tui.new_job.project import add_project, form_hint, project_fields
from tui.new_job.project_files import FilesLine
from tui.new_job.screen import NewJobScreen

SIZE = (120, 50)
HOSTILE = "evil\x1b]0;PWN\x07\n\u202ename[bold].txt"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "demo"
    write(
        folder,
        {
            "pyproject.toml": "[project]\nname = 'demo'\nversion = '1'\ndependencies = ['six']\n",
            "src/train.py": "import helper\nprint(helper.NAME)\n",
            "src/helper.py": "NAME = 'here'\n",
            "data/in.csv": "1,2\n",
            "data/big.csv": "x" * 3000,
            ".env": "TOKEN=1\n",
            ".gitignore": "*.log\n",
            "out.log": "",
        },
    )
    monkeypatch.chdir(folder)
    return folder


async def open_file(pilot: Pilot[Any], app: StokeApp, path: Path) -> NewJobScreen:
    screen = await opened(pilot, app)
    screen._open(path)
    await until(pilot, lambda: screen.query_one(CodeEditor).text == path.read_text())
    await until(pilot, lambda: screen.query_one(FilesLine).display)
    return screen


def files_line(screen: NewJobScreen) -> str:
    return str(screen.query_one(FilesLine).render())


async def rendered_by_the_form(pilot: Pilot[Any], screen: NewJobScreen) -> dict[str, Any]:
    request = screen._validation.request(screen._now())
    return request.spec.model_dump(mode="json")


def rendered_by_the_command(*words: str) -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["render", "json", *words])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ["src/train.py"]),
        ({"exclude": "/data\n*.md\n"}, ["--exclude", "/data", "--exclude", "*.md", "src/train.py"]),
        ({"include": ".env"}, ["--include", ".env", "src/train.py"]),
        ({"folder": "src"}, ["--folder", "src", "src/train.py"]),
        ({"folder": ""}, ["src/train.py"]),
        ({"no_folder": "yes"}, ["--no-folder", "src/train.py"]),
        ({"args": "a 'b c'", "dependencies": "numpy"}, ["-w", "numpy", "src/train.py", "a", "b c"]),
        ({"code": "", "folder": ".", "module": "demo"}, ["--folder", ".", "-m", "demo"]),
        ({"code": "", "folder": ".", "exec": "demo"}, ["--folder", ".", "--exec", "demo"]),
    ],
)
async def test_the_form_and_the_command_make_the_same_request(
    app: StokeApp, desk: Desk, here: Path, values: dict[str, str], words: list[str]
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await open_file(pilot, app, here / "src" / "train.py")
        assert field(screen, "folder").text == str(here)
        for name, text in values.items():
            if name == "code":
                screen.query_one(CodeEditor).text = text
                await until(pilot, lambda: screen._script == "")
            else:
                field(screen, name).text = text
        by_form = screen._validation.request(screen._now()).spec.model_dump(mode="json")
    assert by_form == rendered_by_the_command(*words)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_an_opened_file_brings_its_folder_and_the_list_says_what_stays(
    app: StokeApp,
    backends: dict[str, FakeBackend],
    desk: Desk,
    here: Path,
    size: tuple[int, int],
) -> None:
    async with app.run_test(size=size, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "src/" in screen_text(app))
        await pilot.press(*"rain")  # Folders that have it in their names, too: none.
        for _ in "rain":
            await pilot.press("backspace")
        await pilot.press(*"src/rain", "enter")
        await until(pilot, lambda: "import helper" in screen_text(app))
        await until(pilot, lambda: "a copy" in screen_text(app))
        await until(pilot, lambda: "looks like a secret" in files_line(screen))
        assert "left out" in files_line(screen)
        assert "/.env in the field include" in files_line(screen)
        await pilot.press("f7")
        await until(pilot, lambda: "data/" in screen_text(app))
        await pilot.press("G")
        await until(pilot, lambda: "stays" in screen_text(app))
        for shown in ("helper.py", ".env  looks like a secret", "out.log  ignored by git"):
            assert shown in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        # An edit stays in the job: the user's file keeps its content.
        screen.query_one(CodeEditor).put("import helper\nprint('edited')\n")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: backends["local"].deliveries)
        spec = backends["local"].deliveries[0].spec
        assert spec.code == "import helper\nprint('edited')\n"
        assert spec.project is not None and spec.project.script == "src/train.py"
        assert spec.project.digest is not None and spec.dependencies == ("six",)
    assert (here / "src" / "train.py").read_text() == "import helper\nprint(helper.NAME)\n"


async def test_refusals_have_the_words_of_the_command(
    app: StokeApp, desk: Desk, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await open_file(pilot, app, here / "src" / "train.py")
        app.context.config.__dict__["project"] = app.context.config.project.model_copy(
            update={"max_size": 1024}
        )
        screen.query_one(FilesLine).forget()
        field(screen, "exclude").text = "*.md"
        await until(pilot, lambda: "fix first: folder" in said(app))
        error = field(screen, "folder").query_one(".field-error")
        assert "and the limit is 1.0 KiB; the largest: data/big.csv" in str(error.render())
        assert "/data/big.csv in the field exclude" in str(error.render())
        field(screen, "exclude").text = "/data"
        await until(pilot, lambda: "fix first" not in said(app))
        (here / "out").symlink_to("/etc/hosts")
        field(screen, "exclude").text = "/data\n*.md"
        await until(pilot, lambda: "leads outside of the project" in str(error.render()))
        assert "/out in the field exclude" in str(error.render())
        field(screen, "folder").text = str(here / "nowhere")
        await until(pilot, lambda: "is no folder" in str(error.render()))
        # What is refused is not submitted either.
        await pilot.press("ctrl+r")
        await until(pilot, lambda: field(screen, "folder").control.has_focus)


async def test_undo_restores_the_code_and_the_file_that_it_is_from(
    app: StokeApp, desk: Desk, here: Path
) -> None:
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        screen.query_one(CodeEditor).put("print('typed')\n")
        screen._open(here / "src" / "train.py")
        await until(pilot, lambda: screen._script.endswith("train.py"))
        screen.query_one(CodeEditor).focus()
        await pilot.press("ctrl+z")
        await until(pilot, lambda: "typed" in screen.query_one(CodeEditor).text)
        await until(pilot, lambda: screen._script == "")
        await pilot.press("ctrl+y")
        await until(pilot, lambda: screen._script.endswith("train.py"))


async def test_a_folder_is_taken_with_its_own_program(
    app: StokeApp, desk: Desk, here: Path
) -> None:
    (here / "pyproject.toml").unlink()
    write(here, {"stoke.toml": "", "demo/__init__.py": "", "demo/__main__.py": "print(1)\n"})
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, OpenFile) and "src/" in screen_text(app))
        await pilot.press("f9")
        await until(pilot, lambda: field(screen, "module").text == "demo")
        assert field(screen, "folder").text == str(here)
        await until(pilot, lambda: "f7 lists them" in files_line(screen))
        made = screen._validation.request(screen._now()).spec
        assert made.module == "demo" and made.code == "" and made.project is not None


async def test_a_folder_without_a_program_of_its_own_says_what_to_open(
    app: StokeApp, desk: Desk, here: Path
) -> None:
    (here / "pyproject.toml").unlink()
    write(here, {"stoke.toml": "", "one/__main__.py": "", "two/__main__.py": ""})
    write(here, {"one/__init__.py": "", "two/__init__.py": ""})
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, OpenFile) and "src/" in screen_text(app))
        await pilot.press("f9")
        hint = "Open one of its files (ctrl+o), or name a module or a program."
        await until(pilot, lambda: "name a module or a program." in said(app))
        assert is_hint(hint, hint) in said(app).replace("\n", " ")
        field(screen, "module").text = "one"
        await until(pilot, lambda: "f7 lists them" in files_line(screen))
        assert screen._validation.request(screen._now()).spec.module == "one"


def test_patterns_without_a_folder_and_a_file_that_is_gone_say_what_to_do(here: Path) -> None:
    draft = Draft(values={"include": "data/a.csv"})
    assert refused(lambda: project_fields(draft), "name the folder")
    draft.values["folder"] = str(here)
    assert (project_fields(draft) or {})["include"] == ["data/a.csv"]
    gone = Draft(code="1", script=str(here / "gone.py"))
    assert refused(lambda: project_fields(gone), "open another file (ctrl+o), or send no files")
    gone.values["no_folder"] = "yes"
    assert project_fields(gone) is None
    gone.values["no_folder"] = "no"
    gone.script = str(here / "src/train.py")
    assert (project_fields(gone) or {})["script"] == "src/train.py"


async def test_names_in_the_tree_do_not_drive_the_terminal(
    app: StokeApp, desk: Desk, here: Path
) -> None:
    (here / HOSTILE).write_text("1")
    (here / f"{HOSTILE}.log").write_text("1")
    os.mkdir(here / f"folder{HOSTILE}")
    Path(os.fsdecode(os.fsencode(here) + b"/caf\xe9.txt")).write_text("1")
    (here / "link").symlink_to(HOSTILE)
    async with app.run_test(size=(120, 60), notifications=True) as pilot:
        await open_file(pilot, app, here / "src" / "train.py")
        await pilot.press("f7")
        await until(pilot, lambda: "caf" in screen_text(app))
        assert "[bold]" in harmless(app)


async def test_a_large_folder_is_listed_while_keys_work(
    app: StokeApp, desk: Desk, here: Path
) -> None:
    for number in range(40):
        folder = here / f"part{number}"
        folder.mkdir()
        for one in range(100):
            (folder / f"{one}.txt").touch()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await open_file(pilot, app, here / "src" / "train.py")
        await until(pilot, lambda: "4,0" in files_line(screen))
        # Each change gives up the listing before it, and only the last one is shown.
        for number in range(10):
            field(screen, "exclude").text = "\n".join(f"/part{one}" for one in range(number + 31))
        await until(
            pilot, lambda: " files" in files_line(screen) and "4,0" not in files_line(screen)
        )
        await pilot.press("f7")
        await until(pilot, lambda: isinstance(app.screen, FilesDialog))
        await pilot.press("G")
        await until(pilot, lambda: "part39/" in screen_text(app))


def submitted(here: Path, name: str, *words: str) -> str:
    """Submit with the command, and return the job's id."""
    result = CliRunner().invoke(cli, ["run", "-d", "--name", name, *words])
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


async def test_jobs_run_again_with_the_recorded_files_or_the_current_ones(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk, here: Path
) -> None:
    job = submitted(here, "demo", "src/train.py")
    recorded = backends["local"].deliveries[0].spec.project
    assert recorded is not None
    desk.history.set_phase(job, Phase("project", time.time(), 0.02, False, bytes=1200))
    desk.job("plain-aaaaaa", JobState.SUCCEEDED, age=10)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        app.screen.show_job(job)  # type: ignore[attr-defined]
        await until(pilot, lambda: "Run with the current files" in said(app))
        await until(pilot, lambda: "project" in screen_text(app))
        await pilot.press("r")
        await until(pilot, lambda: len(backends["local"].deliveries) == 2)
        again = backends["local"].deliveries[1].spec.project
        assert again is not None and again.digest == recorded.digest
        (here / "src" / "helper.py").write_text("NAME = 'new'\n")
        app.screen.show_job(job)  # type: ignore[attr-defined]
        await until(pilot, lambda: app.screen.job.id == job)  # type: ignore[attr-defined]
        await pilot.press("F")
        await until(pilot, lambda: len(backends["local"].deliveries) == 3)
        fresh = backends["local"].deliveries[2]
        assert fresh.spec.project is not None
        assert fresh.spec.project.digest not in (None, recorded.digest)
        # The comparison names the file that changed.
        await until(pilot, lambda: app.screen.job.id == fresh.job_id)  # type: ignore[attr-defined]
        await pilot.press("escape", "space")
        app.screen.show_job(job)  # type: ignore[attr-defined]
        await until(pilot, lambda: app.screen.job.id == job)  # type: ignore[attr-defined]
        await pilot.press("escape", "c")
        await until(pilot, lambda: shows_all(app, "files: 1 changed", "~ src/helper.py 14 B"))


async def test_a_job_is_edited_with_its_files_as_they_were_or_are(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk, here: Path
) -> None:
    submitted(here, "demo", "--exclude", "/data", "src/train.py")
    spec = backends["local"].deliveries[0].spec
    assert spec.project is not None
    (here / "src" / "new.py").write_text("")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        screen.offer(JobSpec.model_validate(spec.model_dump()), "demo", "local")
        await until(pilot, lambda: "as submitted" in files_line(screen))
        assert field(screen, "folder").text == str(here)
        assert field(screen, "exclude").text == "/data"
        assert field(screen, "recorded").display
        made = screen._validation.request(screen._now()).spec
        assert made.project == spec.project and made.dependencies == spec.dependencies
        field(screen, "recorded").text = "no"
        await until(pilot, lambda: "as submitted" not in files_line(screen))
        made = screen._validation.request(screen._now()).spec
        assert made.project is not None and made.project.digest is None
        assert made.project.exclude == ("/data",) and made.dependencies == spec.dependencies


async def test_a_job_runs_again_at_each_save_until_that_is_ended(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk, here: Path
) -> None:
    """A run that goes on is stopped; the list follows the runs."""
    job = submitted(here, "demo", "src/train.py")
    desk.history.set_phase(job, Phase("project", time.time(), 0.02, False, bytes=1200))
    deliveries = backends["local"].deliveries
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: "Spec" in screen_text(app))
        app.screen.show_job(job)  # type: ignore[attr-defined]
        await until(pilot, lambda: "Run with the current files" in said(app))
        await pilot.press("A")
        await until(pilot, lambda: "at each save: " in screen_text(app))
        (here / "src/helper.py").write_text("NAME = 'saved'\n")
        await until(pilot, lambda: len(deliveries) == 2)
        first = deliveries[1].job_id
        await until(pilot, lambda: app.screen.job.id == first)  # type: ignore[attr-defined]
        (here / "src/train.py").write_text("print('second')\n")
        await until(pilot, lambda: len(deliveries) == 3)
        assert deliveries[2].spec.code == "print('second')\n"
        assert first in backends["local"].stopped
        await pilot.press("A")
        await until(pilot, lambda: "at each save: " not in screen_text(app))


CHOSEN = """
[project]
name = "demo"
version = "1"
dependencies = ["six"]
optional-dependencies = { plot = ["pygal"] }

[dependency-groups]
dev = ["pytest"]
docs = ["mkdocs"]
"""
CHOICES = {"group": "docs", "extra": "plot", "no_dev": "yes"}


async def test_a_draft_and_a_preset_keep_the_project_and_its_choices(
    app: StokeApp, backends: dict[str, FakeBackend], desk: Desk, here: Path
) -> None:
    """The saved form is the request of the command with the same options, and so is the preset."""
    write(here, {"pyproject.toml": CHOSEN})
    values = {"include": ".env", "exclude": "/data\n*.md", **CHOICES}
    words = ["--include", ".env", "--exclude", "/data", "--exclude", "*.md"]
    words += ["--group", "docs", "--extra", "plot", "--no-dev", "src/train.py"]
    by_command = rendered_by_the_command(*words)
    assert by_command["dependencies"] == ["six", "pygal", "mkdocs"]
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await open_file(pilot, app, here / "src" / "train.py")
        for name, text in values.items():
            field(screen, name).text = text
        assert await rendered_by_the_form(pilot, screen) == by_command
        await until(pilot, lambda: drafts.load().values.get("no_dev") == "yes")
        presets.save(
            presets.path_of("kept"), presets.as_json(screen._validation.as_asked(screen._now()))[0]
        )
    assert json.loads(presets.path_of("kept").read_text())["project"]["asked"]["groups"] == ["docs"]
    again = StokeApp(Config(), clock=lambda: NOW)
    async with again.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, again)
        await until(pilot, lambda: screen.query_one(CodeEditor).text.startswith("import helper"))
        assert {name: field(screen, name).text for name in values} == values
        assert field(screen, "folder").text == str(here)
        assert await rendered_by_the_form(pilot, screen) == by_command
        for one in (*values, "folder", "args"):
            field(screen, one).text = "no" if one == "no_dev" else ""
        screen.query_one(CodeEditor).text = ""
        spec = presets.read(presets.path_of("kept"))
        screen.offer(spec, "kept", "local")
        await until(pilot, lambda: field(screen, "group").text == "docs")
        assert {name: field(screen, name).text for name in values} == values
        assert screen._script == str(here / "src/train.py")
        assert await rendered_by_the_form(pilot, screen) == by_command
        # The opened request has its packages already.
        field(screen, "extra").text = ""
        changed = screen._now()
        hint = "start a new draft (f10) and open the script there (ctrl+o)"
        assert refused(lambda: add_project({}, changed), hint)
        screen._fill(Draft())
        screen._open(here / "src" / "train.py")
        await until(pilot, lambda: field(screen, "folder").text == str(here))
        field(screen, "group").text = "docs"
        made = screen._validation.request(screen._now()).spec
        assert made.dependencies == ("six", "pytest", "mkdocs")


@pytest.mark.parametrize(("name", "words"), [("module", "-m"), ("exec", "--exec")])
async def test_a_draft_and_a_preset_keep_what_runs_in_place_of_code(
    app: StokeApp, desk: Desk, here: Path, name: str, words: str
) -> None:
    by_command = rendered_by_the_command("--folder", ".", words, "demo", "a", "b c")
    values = {"folder": str(here), name: "demo", "args": "a 'b c'"}
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, app)
        for one, text in values.items():
            field(screen, one).text = text
        await until(pilot, lambda: drafts.load().values.get("args") == "a 'b c'")
        text = presets.as_json(screen._validation.as_asked(screen._now()))[0]
        presets.save(presets.path_of("kept"), text)
    again = StokeApp(Config(), clock=lambda: NOW)
    async with again.run_test(size=SIZE, notifications=True) as pilot:
        screen = await opened(pilot, again)
        await until(pilot, lambda: field(screen, name).text == "demo")
        assert await rendered_by_the_form(pilot, screen) == by_command
        screen._fill(Draft())
        screen.offer(presets.read(presets.path_of("kept")), "kept", "local")
        await until(pilot, lambda: field(screen, name).text == "demo")
        assert await rendered_by_the_form(pilot, screen) == by_command


def test_choices_of_packages_need_a_project(here: Path) -> None:
    draft = Draft(code="1", values={"group": "docs"})
    assert refused(lambda: add_project({}, draft), "name the folder, or empty this field")
    draft.values["folder"] = str(here)
    with pytest.raises(RequestError, match="it has none"):
        add_project({}, draft)
    write(here, {"pyproject.toml": CHOSEN})
    assert add_project({}, draft)[0]["dependencies"] == ["six", "pytest", "mkdocs"]


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        (None, ""),
        ("name it: --include /.env", "name it: /.env in the field include"),
        ("--exclude /a --exclude '/b c'; or more", "/a, /b c in the field exclude; or more"),
        ("--exclude " + shlex.quote("it's; a, b") + "; or", "it's; a, b in the field exclude; or"),
        ("send no files: --no-folder", "send no files: the box in Where and how"),
        ("--exclude '/cut", "--exclude '/cut"),
        ("install it: uv --no-folders", "install it: uv --no-folders"),
    ],
)
def test_hints_name_the_fields_of_the_form(hint: str | None, shown: str) -> None:
    assert form_hint(hint) == shown
