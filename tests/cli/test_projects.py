"""Requests that start in a project: its packages, and what is refused before anything is submitted."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from stoke.project.fresh_request import request_to_save
from stoke.request.presets import as_json
from stoke.request.sources import request_from_json
from tests import projects
from tests.cli.conftest import Stoke
from tests.package_index import PackageIndex


@pytest.fixture
def index(index: PackageIndex) -> PackageIndex:
    projects.add_packages(index)
    return index


def asked(stoke: Stoke, *arguments: str) -> dict[str, Any]:
    done = stoke("render", "json", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_script_of_a_locked_project_gets_its_packages_and_an_edit_keeps_them(
    stoke: Stoke, index: PackageIndex, tmp_path: Path
) -> None:
    root = projects.library(tmp_path / "p", index)
    script = projects.write(
        root, {"scripts/versions.py": "import alpha, gamma; print(alpha.version)"}
    )
    os.chdir(root)
    first = stoke("run", "scripts/versions.py")
    assert (first.returncode, first.stdout) == (0, b"2.0\n"), first.stderr
    requests = len(index.requests)
    (script / "scripts/versions.py").write_text("import beta; print('edited', beta.version)")
    second = stoke("run", "--json", "scripts/versions.py")
    (python,) = [one for one in json.loads(second.stdout)["phases"] if one["name"] == "python"]
    assert second.returncode == 0 and b"edited 1.0" in second.stderr
    assert python["hit"] is True and len(index.requests) == requests


def test_a_package_is_added_to_the_locked_ones_of_an_earlier_job(
    stoke: Stoke, index: PackageIndex, tmp_path: Path
) -> None:
    os.chdir(projects.library(tmp_path / "p", index))
    assert stoke("run", "-q", "--name", "first", "-c", "import delta").returncode == 1
    done = stoke("rerun", "first", "-q", "-w", "delta")
    assert done.returncode == 0, done.stderr


def test_the_project_is_that_of_the_script_or_of_this_folder(
    stoke: Stoke, index: PackageIndex, tmp_path: Path
) -> None:
    root = projects.workspace(tmp_path / "p", index)
    script = projects.write(root, {"packages/core/tools/x.py": "1"}) / "packages/core/tools/x.py"
    assert "gamma" not in asked(stoke, str(script))["requirements"]
    os.chdir(root)
    for start in (["-c", "1"], ["-m", "shop_server"], ["--exec", "shop-server"]):
        assert "gamma==1.0" in asked(stoke, *start)["requirements"]


def test_a_script_with_metadata_of_its_own_has_its_own_packages_only(
    stoke: Stoke, index: PackageIndex, tmp_path: Path
) -> None:
    root = projects.library(tmp_path / "p", index)
    projects.write(root, {"own.py": '# /// script\n# dependencies = ["delta"]\n# ///\n'})
    spec = asked(stoke, str(root / "own.py"))
    assert (spec["dependencies"], spec["requirements"], spec["python"]) == (["delta"], "", None)
    refused = stoke("run", "--group", "docs", str(root / "own.py"))
    assert refused.returncode == 2 and b"error: --group: the script has packages" in refused.stderr


def test_a_folder_starts_its_program(stoke: Stoke, index: PackageIndex, tmp_path: Path) -> None:
    os.chdir(projects.library(tmp_path / "p", index))
    spec = asked(stoke, ".", "--", "-q", "a")
    assert (spec["module"], spec["code"], spec["args"]) == ("word_count", "", ["-q", "a"])
    assert "beta==1.0" in spec["requirements"]
    flat = projects.flat(tmp_path / "flat")
    done = stoke("run", str(flat))
    assert done.returncode == 2
    assert b"it has app.py, manage.py, models.py" in done.stderr
    (flat / "__main__.py").write_text("print(3)")
    assert asked(stoke, str(flat))["code"] == "print(3)"


def test_requirements_txt_is_proposed_by_an_option_that_installs_it(
    stoke: Stoke, index: PackageIndex, tmp_path: Path
) -> None:
    root = projects.flat(tmp_path / "p")
    projects.write(root, {"pyproject.toml": "[tool.ruff]\n"})
    os.chdir(root)
    done = stoke("run", "-c", "print(1)")
    assert done.returncode == 0
    (note,) = [line for line in done.stderr.decode().splitlines() if "is not used" in line]
    option = note.partition("installed: ")[2].split()
    done = stoke("run", *option, "-c", "import alpha; print(alpha.version)")
    assert (done.returncode, done.stdout) == (0, b"1.0\n"), done.stderr
    assert stoke("run", "-q", "-c", "print(1)").stderr == b""


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--group", "docs"], "need a project"),
        (["--no-dev"], "need a project"),
    ],
)
def test_options_of_a_project_need_one(stoke: Stoke, arguments: list[str], what: str) -> None:
    done = stoke("run", *arguments, "-c", "1")
    assert done.returncode == 2 and what in done.stderr.decode()


def test_a_lockfile_that_does_not_match_submits_nothing(
    stoke: Stoke, index: PackageIndex, tmp_path: Path, own_home: Path
) -> None:
    root = projects.library(tmp_path / "p", index)
    file = root / "pyproject.toml"
    file.write_text(file.read_text().replace('"beta>=1"', '"beta>=1", "delta"'))
    os.chdir(root)
    done = stoke("run", "-m", "word_count")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == (
        b"error: uv.lock: does not match pyproject.toml\nhint: update it: uv lock\n"
    )
    assert not (own_home / "state/history.sqlite").exists()


def test_a_program_or_module_of_a_package_needs_no_project(
    stoke: Stoke, index: PackageIndex
) -> None:
    index.add("omega", "3.0", script="omegactl")
    missing = stoke("run", "--exec", "omegactl")
    assert (missing.returncode, missing.stdout) == (125, b"")
    assert b"there is no program omegactl" in missing.stderr
    hint = missing.stderr.decode().partition("hint: ")[2].strip()
    assert hint == "name the package that has it: -w PACKAGE"
    words = shlex.split(hint.partition(": ")[2].replace("PACKAGE", "omega"))
    done = stoke("run", "-q", *words, "--exec", "omegactl", "--", "-q", "a b")
    assert (done.returncode, done.stdout) == (0, b"omega 3.0 -q a b\n"), done.stderr
    done = stoke("run", "-q", "-w", "omega", "-m", "omega", "x")
    assert (done.returncode, done.stdout) == (0, b"omega 3.0 x\n"), done.stderr
    shown = stoke("show", "omega-").stdout.decode()
    assert "module        omega\n" in shown and "\ncode  " not in shown
    rerun = stoke("rerun", "omega-", "-q")
    assert (rerun.returncode, rerun.stdout) == (0, b"omega 3.0 x\n"), rerun.stderr


def test_fresh_takes_the_packages_that_the_project_has_now(
    stoke: Stoke, index: PackageIndex, tmp_path: Path
) -> None:
    root = projects.library(tmp_path / "p", index)
    os.chdir(root)
    code = "import alpha, importlib.util as u; print(alpha.version, bool(u.find_spec('delta')))"
    run = stoke("run", "-q", "--name", "first", "--no-dev", "-w", "alpha<2", "-c", code)
    assert run.returncode == 125, "uv.lock has alpha 2.0"
    projects.write(root, {"main.py": f"{code}; print(bool(u.find_spec('gamma')))"})
    run = stoke("run", "-q", "--name", "second", "--no-dev", "main.py")
    assert run.stdout == b"2.0 False\nFalse\n", run.stderr
    file = root / "pyproject.toml"
    file.write_text(file.read_text().replace('"beta>=1"', '"beta>=1", "delta", "alpha<2"'))
    assert b"hint: update it: uv lock" in stoke("rerun", "second", "--fresh").stderr
    projects.lock(root)
    run = stoke("rerun", "second", "-q", "--fresh")
    assert run.stdout == b"1.0 True\nFalse\n", run.stderr


def test_json_gets_the_packages_that_the_project_has_when_it_is_submitted(
    stoke: Stoke, index: PackageIndex, tmp_path: Path
) -> None:
    root = projects.library(tmp_path / "p", index)
    os.chdir(root)
    projects.write(
        root,
        {
            "main.py": "import alpha, importlib.util as u; print(alpha.version, u.find_spec('delta'))"
        },
    )
    rendered = stoke("render", "json", "--no-dev", "main.py").stdout
    saved = as_json(request_to_save(request_from_json(rendered, "it")))[0].encode()
    assert b'"code"' in rendered and b'"code"' not in saved
    edited = json.loads(saved)
    edited["requirements"] += "# edited\n"
    kept = request_to_save(request_from_json(json.dumps(edited).encode(), "it"))
    assert kept.project is not None and kept.project.asked is None
    file = root / "pyproject.toml"
    file.write_text(file.read_text().replace('"beta>=1"', '"beta>=1", "alpha<2"'))
    assert b"hint: update it: uv lock" in stoke("submit", "-", stdin=saved).stderr
    projects.lock(root)
    assert stoke("submit", "-q", "-", stdin=rendered).stdout == b"1.0 None\n"
    projects.write(root, {"main.py": "import alpha; print('edited', alpha.version)"})
    assert stoke("submit", "-q", "-", stdin=saved).stdout == b"edited 1.0\n"
    by_hand = {"project": {"root": str(root), "script": "main.py", "asked": {"dev": False}}}
    text = json.dumps(by_hand).encode()
    assert stoke("submit", "-q", "-", stdin=text).stdout == b"edited 1.0\n"
    (root / "main.py").unlink()
    done = stoke("submit", "-", stdin=text)
    assert done.returncode == 2 and str(root / "main.py").encode() in done.stderr


def test_a_project_starts_in_all_ways(stoke: Stoke, index: PackageIndex, tmp_path: Path) -> None:
    root = projects.library(tmp_path / "p", index)
    os.chdir(root / "tests")
    for start in (
        ["-m", "word_count"],
        ["--exec", "wordcount"],
        [str(root)],
        ["../scripts/report.py"],
    ):
        done = stoke("run", "-q", *start, "a")
        assert (done.returncode, done.stdout) == (0, b"wordcount 1.4.0 1.0 3 a\n"), done.stderr
    done = stoke("run", "-q", "-c", "import word_count; print(word_count.__version__)")
    assert done.stdout == b"1.4.0\n", done.stderr


def test_a_requirements_file_is_proposed_but_not_to_those_who_use_it(
    stoke: Stoke, index: PackageIndex, own_home: Path
) -> None:
    root = projects.write(
        own_home / "older",
        {"requirements.txt": "alpha<2\n", "app.py": "import alpha\nprint('ran')\n"},
    )
    os.chdir(root)
    for marker in (None, "stoke.toml"):
        if marker:
            (root / marker).touch()
        told = stoke("run", "app.py").stderr.decode()
        note = next(line for line in told.splitlines() if "requirements.txt is not used" in line)
        assert "declares no packages" not in told
        option = shlex.split(note.partition("installed: ")[2])
        done = stoke("run", *option, "app.py")
        assert (done.returncode, done.stdout) == (0, b"ran\n"), done.stderr
        assert b"is not used" not in done.stderr
        script = "# /// script\n# dependencies = []\n# ///\nprint('ran')\n"
        projects.write(root, {"own.py": script})
        assert b"is not used" not in stoke("run", "own.py").stderr
