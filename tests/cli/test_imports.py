"""Packages that code imports and does not declare: proposed before a run and after it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Stoke
from tests.package_index import PackageIndex


def test_a_guessed_package_is_proposed_and_added(
    stoke: Stoke, index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("code.py").write_text("import alpha, mine, os\nprint('found')\n")
    Path("mine.py").write_text("")
    first = stoke("run", "code.py")
    told = first.stderr.decode()
    guess = "alpha (PyPI name guessed from the import)"
    assert f"stoke: the code imports {guess} and declares no packages: -w alpha\n" in told
    hint = re.search(r"hint: add (.*) and run again: stoke (.*)", told)
    assert first.returncode == 1 and hint is not None and hint[1] == guess
    assert "alpha" not in stoke("run", "-q", "code.py").stderr.decode().partition("Traceback")[0]
    again = stoke(*shlex.split(hint[2]))
    # The other module is one beside the script, and travels with it.
    assert (again.returncode, again.stdout) == (0, b"found\n"), again.stderr
    assert "hint" not in again.stderr.decode()


def test_a_rerun_adds_packages_to_those_it_has(stoke: Stoke, index: PackageIndex) -> None:
    code = "import alpha\nprint('found')"
    stoke("run", "-q", "-w", "beta==1.0", "--name", "first", "-c", code)
    done = stoke("rerun", "first", "--json", "-w", "alpha==1.0")
    spec = json.loads(done.stdout)["spec"]
    assert spec["dependencies"] == ["beta==1.0", "alpha==1.0"]


def test_json_stays_clean(stoke: Stoke) -> None:
    done = stoke("run", "--json", "-c", "import yaml")
    assert json.loads(done.stdout)["exit_code"] == 1
    assert b"-w pyyaml" in done.stderr
