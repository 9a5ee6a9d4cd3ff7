"""Which folder is the project, and which modules travel with a script that has none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stoke.errors import RequestError
from stoke.project.local_modules import local_modules
from stoke.project.root import find_root, project_of
from tests.hints import refused
from tests.project.trees import make_tree, paths


def without_root(project: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in project.items() if name != "root"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a marker of its own: dotfiles in a repository."""
    home = make_tree(tmp_path / "me", ".git/HEAD", "pyproject.toml")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return home


@pytest.mark.parametrize("marker", ["pyproject.toml", ".git", "stoke.toml"])
def test_the_nearest_folder_with_a_marker_is_the_root(home: Path, marker: str) -> None:
    make_tree(home / "outer", "pyproject.toml", f"inner/{marker}", "inner/src/deep/x.py")
    assert find_root(str(home / "outer/inner/src/deep")) == str(home / "outer/inner")
    assert find_root(str(home / "outer/other")) is None  # It does not exist.
    assert find_root(str(home / "outer")) == str(home / "outer")


def test_the_home_folder_and_its_parents_are_no_root(home: Path) -> None:
    make_tree(home / "loose", "x.py")
    make_tree(home.parent, "pyproject.toml")
    assert find_root(str(home)) is None
    assert find_root(str(home / "loose")) is None


def test_a_marker_where_all_users_can_write_is_not_believed(tmp_path: Path) -> None:
    shared = make_tree(tmp_path / "shared", "pyproject.toml", "mine/x.py")
    shared.chmod(0o1777)
    assert find_root(str(shared / "mine")) is None


def test_directory_and_script_are_relative_to_the_root(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(home / "p", "pyproject.toml", "src/train.py", "data/x")
    monkeypatch.chdir(root / "data")
    project = project_of("../src/train.py", "pass")
    assert project is not None
    assert (project["root"], project["directory"], project["script"]) == (
        str(root), "data", "src/train.py",
    )  # fmt: skip
    monkeypatch.chdir(home)
    outside = project_of("p/src/train.py", "pass")
    assert outside is not None and outside["directory"] == "."


def test_code_sees_the_project_of_the_current_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(home / "p", "stoke.toml", "sub/x")
    assert project_of(None, "pass") is None
    monkeypatch.chdir(root / "sub")
    project = project_of(None, "pass")
    assert project is not None
    assert (project["root"], project["directory"], project["script"]) == (str(root), "sub", None)


def test_a_link_to_a_script_belongs_to_the_project_of_its_target(home: Path) -> None:
    root = make_tree(home / "p", "pyproject.toml", "tool.py")
    make_tree(home / "bin").joinpath("tool").symlink_to(root / "tool.py")
    project = project_of("bin/tool", "pass")
    assert project is not None and (project["root"], project["script"]) == (str(root), "tool.py")


def test_a_named_folder_wins(home: Path) -> None:
    root = make_tree(home / "p", "pyproject.toml", "sub/train.py", "train.py")
    project = project_of("p/sub/train.py", "pass", folder="p/sub")
    assert project is not None
    assert (project["root"], project["script"]) == (str(root / "sub"), "train.py")
    elsewhere = project_of("p/train.py", "pass", folder="p/sub")
    assert elsewhere is not None and elsewhere["script"] is None


@pytest.mark.parametrize("folder", ["/", "~", "p/train.py", "missing"])
def test_a_folder_that_is_none_is_refused(home: Path, folder: str) -> None:
    make_tree(home / "p", "train.py")

    def call() -> object:
        return project_of("p/train.py", "pass", folder=folder.replace("~", str(home)))

    with pytest.raises(RequestError, match="folder"):
        call()
    if folder in "/~":
        refused(call, "name a folder inside it")


def test_a_name_that_is_not_utf8_is_refused(home: Path) -> None:
    root = make_tree(home / os.fsdecode(b"\xff"), "pyproject.toml", "a.py")
    hint = refused(
        lambda: project_of(str(root / "a.py"), "pass"),
        "run it without the folder's files: --no-folder",
    )
    assert hint.endswith("--no-folder")


def test_a_script_that_imports_nothing_local_has_no_project(home: Path) -> None:
    make_tree(home / "loose", "a.py", "helper.py", "os.txt")
    assert project_of("loose/a.py", "import os\nhelp = 'helper'") is None
    # Its name is a word of the code, and no import.
    assert project_of("loose/a.py", "print('import helper')\nx = helper") is None


def test_included_files_travel_with_a_script_of_no_project(home: Path) -> None:
    root = make_tree(home / "loose", "a.py", "data.csv", "other.csv", "sub/data.csv")
    project = project_of("loose/a.py", "pass", include=["/data.csv"])
    assert project is not None
    assert paths(root, "pass", **without_root(project)) == {"a.py", "data.csv"}


def test_local_imports_are_followed_as_python_does(home: Path) -> None:
    folder = make_tree(
        home / "loose", "main.py", "one.py", "two.py", "three.py", "unused.py", "pack/__init__.py",
        "pack/data.txt", "pack/deep/mod.py", "names/plain.py", "four.py", "broken.py",
    )  # fmt: skip
    (folder / "main.py").write_text(
        "import one, os\n"
        "def late():\n    from pack.deep import mod\n"
        "try:\n    import missing\nexcept ImportError:\n    import broken\n"
        "import \\\n  names.plain\n"
    )
    (folder / "one.py").write_text("from two import x  # and three\n")
    (folder / "two.py").write_text("x = 1\nimport main\n")
    (folder / "pack/deep/mod.py").write_text("import four\nfrom . import unused\n")
    (folder / "broken.py").write_text("import (\n")
    (folder / "four.py").write_text("")
    (folder / "names/plain.py").write_text("")
    (folder / "pack/__init__.py").write_text("")
    found = local_modules(str(folder), "main.py", (folder / "main.py").read_text())
    assert found == ["broken.py", "four.py", "names", "one.py", "pack", "two.py"]
    project = project_of(str(folder / "main.py"), (folder / "main.py").read_text())
    assert project is not None and project["imports_only"]
    travels = paths(folder, (folder / "main.py").read_text(), **without_root(project))
    assert travels == {
        "main.py", "one.py", "two.py", "broken.py", "four.py", "names/plain.py", "pack/__init__.py",
        "pack/data.txt", "pack/deep/mod.py",
    }  # fmt: skip


def test_python_finds_every_module_that_travels(home: Path, tmp_path: Path) -> None:
    """The modules that Python loads from beside a script are among those that travel."""
    folder = make_tree(home / "loose", "main.py", "a.py", "b.py", "pack/__init__.py", "pack/c.py")
    (folder / "main.py").write_text("import a\nfrom pack import c\n")
    (folder / "a.py").write_text("import b\n")
    for name in ("b.py", "pack/__init__.py", "pack/c.py"):
        (folder / name).write_text("")
    code = (folder / "main.py").read_text()
    show = "\nimport sys\nfor m in list(sys.modules.values()): print(getattr(m, '__file__', None))"
    done = subprocess.run(
        [sys.executable, "-c", code + show], cwd=folder, capture_output=True, text=True, check=True
    )
    loaded = {
        os.path.relpath(line, folder)
        for line in done.stdout.splitlines()
        if line.startswith(str(folder))
    }
    project = project_of(str(folder / "main.py"), code)
    assert project is not None
    assert loaded and loaded <= paths(folder, code, **without_root(project))
