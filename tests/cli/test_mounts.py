"""`--mount` as users type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Stoke, job_count

CODE = """
import os
print(open(os.environ["STOKE_MOUNT_ROOT"] + "/stoke-test/x.txt").read(), end="")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "x.txt").write_text("from the folder\n")
    monkeypatch.chdir(folder)
    return folder


def test_a_folder_is_mounted_and_again_by_rerun(
    stoke: Stoke, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = stoke("run", "--name", "first", "--mount", "./data:/stoke-test", "-c", CODE)
    assert done.stdout == b"from the folder\n"
    assert b"/stoke-test is at $STOKE_MOUNT_ROOT/stoke-test" in done.stderr
    shown = json.loads(stoke("show", "first", "--json").stdout)
    assert shown["spec"]["mounts"] == [f"{here}/data:/stoke-test"]
    job = shown["id"]
    assert stoke("rerun", "-q", job).stdout == b"from the folder\n"
    # The folder is checked again, here from another one.
    monkeypatch.chdir("/")
    again = stoke("rerun", "-q", job)
    assert again.returncode == 2 and b"outside of the folders that may be mounted" in again.stderr
    assert (here / "data" / "x.txt").exists()


def test_what_cannot_be_mounted_creates_no_job(stoke: Stoke, here: Path, own_home: Path) -> None:
    for mount, why in (
        ("./nothing:/stoke-test", b"No such file or directory"),
        ("data:/stoke-test", b"write ./data"),
        ("./data:/cache", b"cannot be mounted over"),
        ("/var/run:/stoke-test", b"--mount: /"),
        ("./data:../x", b"no whole path in the job"),
        ("claim:x:/stoke-test", b"choose the cluster: -b argo"),
    ):
        done = stoke("run", "--mount", mount, "-c", CODE)
        assert done.returncode == 2 and why in done.stderr, done.stderr
    script = stoke("render", "script", "--mount", "./data:/stoke-test", "-c", CODE)
    assert script.returncode == 2 and b"mounts" in script.stderr
    assert job_count(own_home) == 0
