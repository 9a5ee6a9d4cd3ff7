"""Something else in the place of a file of stoke's own is named, with the command that removes it."""

from __future__ import annotations

import subprocess

import pytest

from stoke.files.paths import make_private, state_dir
from tests.cli.conftest import Stoke
from tests.hints import filled


@pytest.mark.parametrize("what", ["folder", "link"])
def test_a_lock_that_is_no_file(what: str, stoke: Stoke) -> None:
    path = make_private(state_dir()) / "scheduler.lock"
    if what == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    run = ("run", "-b", "local", "--detach", "-c", "pass")
    done = stoke(*run)
    assert done.returncode == 125
    error, hint = done.stderr.decode().splitlines()
    assert error.startswith(f"error: {path} is not what stoke stored there: ")
    filled(hint, "hint: remove it: rm -r {}")
    subprocess.run(["sh", "-c", hint.removeprefix("hint: remove it: ")], check=True)
    assert stoke(*run).returncode == 0
