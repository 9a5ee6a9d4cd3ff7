"""The program that `stoke run FOLDER` starts, and the error where it is ambiguous."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoke.errors import RequestError
from stoke.project.folder_program import find_program
from tests import projects
from tests.package_index import PackageIndex

SCRIPTS = '[project]\nname = "app"\nversion = "1"\n[project.scripts]\n'


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        ({"__main__.py": "", "app/__main__.py": ""}, {"file": "__main__.py"}),
        ({"app/__main__.py": "", "lib/__init__.py": ""}, {"module": "app"}),
        ({"pyproject.toml": SCRIPTS, "src/app/__main__.py": ""}, {"module": "app"}),
        ({"pyproject.toml": SCRIPTS + 'tool = "a:b"\n', "src/app/x.py": ""}, {"exec": "tool"}),
    ],
)
def test_the_program_of_a_folder(
    tmp_path: Path, files: dict[str, str], entry: dict[str, str]
) -> None:
    folder = projects.write(tmp_path / "app", files)
    expected = {
        name: str(folder / value) if name == "file" else value for name, value in entry.items()
    }
    found, name = find_program(str(folder))
    assert found == expected and name == entry.get("module", entry.get("exec", "app"))


@pytest.mark.parametrize(
    ("files", "why", "hint"),
    [
        (
            {"a/__main__.py": "", "b/__main__.py": ""},
            "more than one program: -m a, -m b",
            "run -m a",
        ),
        (
            {"pyproject.toml": SCRIPTS + 'x = "a:b"\ny = "a:c"\n'},
            "more than one program: --exec x, --exec y",
            "run --exec x",
        ),
        ({"one two.py": "", "z.py": ""}, "it has one two.py, z.py", "one two.py'"),
        ({"README": ""}, "is a folder without __main__.py", None),
    ],
)
def test_an_ambiguous_folder_is_refused_with_its_programs(
    tmp_path: Path, files: dict[str, str], why: str, hint: str | None
) -> None:
    folder = projects.write(tmp_path / "p", files)
    with pytest.raises(RequestError) as refused:
        find_program(str(folder))
    assert why in refused.value.why
    assert hint is None or hint in (refused.value.hint or "")


def test_a_library_starts_its_package(tmp_path: Path, index: PackageIndex) -> None:
    root = projects.library(tmp_path / "p", index, locked=False)
    assert find_program(str(root)) == ({"module": "word_count"}, "word_count")
