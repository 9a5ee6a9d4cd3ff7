"""The projects in `examples/`, run as docs/projects.md says, on every backend.

Their packages come from the index of the tests, except in one test that uses the public index.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.installed_wheels import add_installed
from tests.lab import Lab
from tests.package_index import PackageIndex

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAM = str(Path(sys.executable).with_name("stoke"))
LOCKED = ("library", "workspace")
PACKAGES = (
    "click", "iniconfig", "markdown-it-py", "mdurl", "packaging", "pluggy", "pygments", "pytest",
)  # fmt: skip

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """The examples in a folder of no project, without lockfiles that were made by hand."""
    ignored = shutil.ignore_patterns("uv.lock")
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=ignored))


@pytest.fixture
def run(lab: Lab, copies: Path) -> Run:
    """Runs `stoke run` on the backend in a folder of the examples."""

    def command(folder: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, "run", "-b", lab.backend.name, "--scope", lab.scope, *words],
            cwd=copies / folder,
            capture_output=True,
            text=True,
            timeout=280,
        )

    return command


@pytest.fixture
def served(
    lab: Lab, index: PackageIndex, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> PackageIndex:
    """The index of the tests, for stoke and for the lockfiles."""
    add_installed(index, *PACKAGES)
    index.add("colorama", "0.4.6")
    monkeypatch.setenv("STOKE_INDEX__URL", index.url)
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    lock_all(copies)
    return index


def lock_all(copies: Path) -> None:
    """Make the lockfiles, which the repository does not have: they name the index that uv asked."""
    for name in LOCKED:
        lock = [find_uv_bin(), "lock", "--quiet", "--no-cache", "--project", str(copies / name)]
        subprocess.run(lock, check=True)


def test_flat_layout_with_requirements(run: Run, served: PackageIndex) -> None:
    done = run("flat", "-r", "requirements.txt", "build.py")
    assert done.returncode == 0, done.stderr
    assert "<p>This page travelled <em>with</em> its script.</p>" in done.stdout
    tests = run(
        "flat", "-r", "requirements.txt", "-w", "pytest", "-m", "pytest", "--", "-q", "tests"
    )
    assert (tests.returncode, "1 passed" in tests.stdout) == (0, True), tests


def test_src_layout_with_a_lockfile(run: Run, served: PackageIndex) -> None:
    for start in ([".", "--count", "1"], ["--exec", "wordstats", "--count", "1"]):
        done = run("library", *start, "the cat and the cat")
        assert (done.returncode, done.stdout) == (0, "wordstats 1.4.0\n2 cat\n"), done.stderr


def test_pytest_of_a_project_with_one_command(run: Run, served: PackageIndex, copies: Path) -> None:
    words = ("--exec", "pytest", "--", "-q", "tests")
    done = run("library", *words)
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done
    test = copies / "library/tests/test_counting.py"
    test.write_text(test.read_text().replace('("cat", 2)', '("cat", 3)'))
    requests = len(served.requests)
    failed = run("library", *words)
    assert failed.returncode == 1, failed.stderr
    assert "1 failed, 1 passed" in failed.stdout and "test_stop_words" in failed.stdout
    assert re.search(r"stoke: python .* hit ", failed.stderr), failed.stderr
    assert len(served.requests) == requests


def test_workspace_of_two_members(run: Run, served: PackageIndex) -> None:
    done = run("workspace", "main.py")
    expected = "tea 1.10 (catalog 2.5.0)\ncoffee 3.1 (catalog 2.5.0)\n"
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    member = run("workspace/packages/catalog", "--exec", "shop-catalog")
    assert (member.returncode, member.stdout) == (0, "tea 1.10\ncoffee 3.1\n"), member.stderr
    tests = run("workspace/packages/server", "--exec", "pytest", "--", "-q", "tests")
    assert (tests.returncode, "1 passed" in tests.stdout) == (0, True), tests


@pytest.mark.parametrize(("name", "package"), zip(LOCKED, ("click", "packaging"), strict=True))
def test_a_job_has_the_locked_version_and_not_the_newest(
    run: Run, served: PackageIndex, copies: Path, name: str, package: str
) -> None:
    served.add(package, "99.0")
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = run(name, "-c", code)
    assert (done.returncode, done.stdout) == (0, f"{version(package)}\n"), done.stderr
    (copies / name / "uv.lock").unlink()
    done = run(name, "-c", code)
    assert (done.returncode, done.stdout) == (0, "99.0\n"), done.stderr


@pytest.mark.network
def test_packages_of_the_public_index(run: Run, copies: Path) -> None:
    lock_all(copies)
    done = run("library", "--exec", "pytest", "--", "-q", "tests")
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done
    done = run("workspace", "main.py")
    assert done.returncode == 0, done.stderr
