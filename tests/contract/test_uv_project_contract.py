"""Jobs of uv projects, on every backend: to its jobs a project that is source looks installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stoke.project.choices import ProjectEnvironment
from stoke.project.environment import project_environment
from tests import projects
from tests.lab import Lab, Outcome
from tests.package_index import PackageIndex
from tests.snapshots import File, run_project, snapshot


@pytest.fixture
def packages(index: PackageIndex) -> PackageIndex:
    projects.add_packages(index)
    return index


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_NO_CONFIG", "0")


def run(lab: Lab, root: Path, start: tuple[str, str], folder: str = ".", **fields: Any) -> Outcome:
    """Runs a job with the project's files and everything that the project adds to a request."""
    found = project_environment(str(root), str((root / folder).resolve()))
    made = snapshot(files_of(root, found))
    options = {
        "import_path": found.import_path,
        "programs": found.programs,
        "compiled": found.compiled,
        "directory": folder,
    }
    return run_project(lab, made, start, **options, **found.added_to(fields))


def files_of(root: Path, found: ProjectEnvironment) -> dict[str, File]:
    files: dict[str, File] = {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
    for name, data in found.extra_files.items():
        is_program = name.rpartition("/")[0] in found.programs
        files[name] = (data, 0o755) if is_program else data
    return files


LOOKS = """
import subprocess, word_count
from importlib.metadata import entry_points, version

groups = entry_points()
found = groups.select if hasattr(groups, "select") else lambda group: groups[group]
print(version("Word_Count"), [point.load().name for point in found(group="word_count.plugins")])
print(subprocess.run(["wordcount", "child"], check=True, capture_output=True).stdout)
"""


def test_a_library_is_imported_from_source_and_an_edit_keeps_its_environment(
    lab: Lab, packages: PackageIndex, tmp_path: Path
) -> None:
    root = projects.library(tmp_path / "p", packages)
    done = run(lab, root, ("program", "wordcount"), args=["a b"])
    assert done.stdout == b"wordcount 1.4.0 2.0 3 a b\n", done
    asked = len(packages.requests)
    projects.write(root, {"scripts/looks.py": LOOKS, "src/word_count/words.txt": "one two"})
    edited = run(lab, root, ("script", "scripts/looks.py"))
    assert edited.stdout.splitlines() == [
        b"1.4.0 ['plain']",
        rb"b'wordcount 1.4.0 2.0 2 child\n'",
    ], edited
    assert edited.phase("python").hit is True
    assert (edited.phase("python").bytes or 0) == (edited.phase("lock").bytes or 0) == 0
    assert len(packages.requests) == asked
    assert run(lab, root, ("module", "word_count")).stdout == b"wordcount 1.4.0 2.0 2\n"


def test_members_of_a_workspace_import_each_other(
    lab: Lab, packages: PackageIndex, tmp_path: Path
) -> None:
    root = projects.workspace(tmp_path / "p", packages)
    assert run(lab, root, ("script", "main.py")).stdout == b"shop 2.5\n"
    inside = run(lab, root, ("program", "shop-server"), "packages/server")
    assert inside.stdout == b"shop 2.5\n", inside
    assert inside.phase("python").packages == 1


@pytest.mark.parametrize("layout", ["src", "flat"])
def test_modules_are_compiled_once_for_the_same_files(
    lab: Lab, tmp_path: Path, layout: str
) -> None:
    """And what the build made is beside the source, whose other modules it does not replace."""
    root = projects.compiled(tmp_path / "p", layout)
    cold, warm = (run(lab, root, ("script", "main.py")) for _ in range(2))
    assert cold.stdout == warm.stdout == b"fast 7 source\n", cold
    assert [one.phase("build").hit for one in (cold, warm)] == [False, True]
    projects.write(root, {"main.py": "import app.fast; print(app.fast.VALUE + 1)\n"})
    edited = run(lab, root, ("script", "main.py"))
    assert edited.stdout == b"8\n", edited


def test_a_failed_build_shows_its_whole_output(lab: Lab, tmp_path: Path) -> None:
    root = projects.compiled(tmp_path / "p", "src", fails="the compiler's own words")
    done = run(lab, root, ("script", "main.py"))
    assert done.job.exit_code == 125
    assert b"the compiler's own words" in done.stderr, done
    assert (done.job.reason or "").startswith("build: ")


def test_a_flat_project_runs_with_its_requirements(
    lab: Lab, packages: PackageIndex, tmp_path: Path
) -> None:
    root = projects.flat(tmp_path / "p")
    requirements = (root / "requirements.txt").read_text()
    done = run(lab, root, ("script", "app.py"), requirements=requirements)
    assert done.stdout == b"<p>hello</p> alpha 1.5\n", done


def test_the_tests_of_a_library_run_with_one_command(
    lab: Lab, packages: PackageIndex, tmp_path: Path
) -> None:
    test = (
        "import unittest, word_count\n\nclass Words(unittest.TestCase):\n"
        "    def test_version(self):\n        self.assertTrue(word_count.__version__ == '1.4.0')\n"
    )
    root = projects.library(tmp_path / "p", packages)
    projects.write(root, {"tests/test_counts.py": test})
    start, args = ("program", "python"), ["-m", "unittest", "-q", "tests/test_counts.py"]
    done = run(lab, root, start, args=args)
    assert done.job.exit_code == 0 and b"Ran 1 test" in done.stderr, done
    projects.write(root, {"tests/test_counts.py": test.replace("assertTrue", "assertFalse")})
    assert run(lab, root, start, args=args).job.exit_code == 1
