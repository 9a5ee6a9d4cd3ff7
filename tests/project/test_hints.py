"""Hints about projects, followed until the request is taken."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from stoke.project.choices import ProjectOptions
from stoke.project.environment import project_environment
from stoke.project.folder_program import find_program
from stoke.project.request_additions import environment_for_request
from tests import projects
from tests.hints import command, filled, refused
from tests.package_index import PackageIndex, offline_backend


def uv(hint: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", *command(hint, "uv")], check=True)


def test_a_folder_with_several_programs(tmp_path: Path) -> None:
    folder = str(projects.write(tmp_path / "p", {"a/__main__.py": "", "b/__main__.py": ""}))
    hint = refused(partial(find_program, folder), "name one: stoke run {}")
    assert filled(hint, "name one: stoke run {}") == ("-m a",)


def test_a_folder_without_a_program(tmp_path: Path) -> None:
    folder = str(projects.write(tmp_path / "p", {"one two.py": ""}))
    hint = refused(partial(find_program, folder), "name a file: stoke run {}")
    assert Path(command(hint)[1]).is_file()


def test_a_lockfile_that_does_not_match(tmp_path: Path, index: PackageIndex) -> None:
    root = projects.library(tmp_path / "a b", index)
    file = root / "pyproject.toml"
    file.write_text(file.read_text().replace('["beta>=1"]', '["beta>=1", "delta"]'))
    ask = partial(project_environment, str(root), str(root))
    uv(refused(ask, "update it: {}"))
    assert "delta==1.0" in ask().requirements


def test_a_lockfile_that_uv_cannot_use(tmp_path: Path, index: PackageIndex) -> None:
    root = projects.library(tmp_path / "p", index)
    (root / "uv.lock").write_text("version = 99\n")
    hint = refused(partial(project_environment, str(root), str(root)), "see the whole answer: {}")
    done = subprocess.run(
        [sys.executable, "-m", "uv", *command(hint, "uv")], capture_output=True, text=True
    )
    assert done.returncode != 0 and "version" in done.stderr


def test_groups_of_a_pylock(tmp_path: Path, index: PackageIndex) -> None:
    root = projects.library(tmp_path / "p", index, locked=False)
    (root / "pylock.toml").write_text('lock-version = "1.0"\ncreated-by = "x"\npackages = []\n')
    ask = partial(project_environment, str(root), str(root), ProjectOptions(groups=("docs",)))
    uv(refused(ask, "remove the option, or use uv.lock in its place: {}"))
    assert "delta==1.0" in ask().requirements
    (root / "uv.lock").unlink()
    assert not project_environment(str(root), str(root)).requirements


def test_dependencies_that_only_a_build_backend_knows_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    root = projects.write(
        tmp_path / "p",
        {
            "pyproject.toml": '[project]\nname = "app"\nversion = "1"\ndynamic = ["dependencies"]\n'
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
            "backend.py": offline_backend("app", "1") + "\nbuild_editable = build_wheel\n",
        },
    )
    ask = partial(project_environment, str(root), str(root))
    uv(refused(ask, "lock them: {}"))
    assert ask().import_path


def test_groups_of_a_script_with_its_own_packages(tmp_path: Path, index: PackageIndex) -> None:
    root = str(projects.library(tmp_path / "p", index))
    metadata = "# /// script\n# dependencies = []\n# ///\n"

    def ask(code: str, *groups: str) -> str:
        options = ProjectOptions(groups=groups)
        return environment_for_request({"code": code}, root, root, options).requirements

    refused(lambda: ask(f"{metadata}pass", "docs"), "remove the option, or the metadata")
    assert ask(f"{metadata}pass") == ""
    assert "delta==1.0" in ask("pass", "docs")
