"""Presets: requests as files that a form and a command read alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stoke.errors import EngineError, RequestError
from stoke.request import presets
from stoke.request.spec import make_spec

STOKE = [sys.executable, "-c", "from stoke.cli.main import main; main()"]


def test_a_preset_holds_the_request_and_runs_by_command() -> None:
    spec = make_spec({"code": "import sys; print('hi', sys.argv[1:])", "args": ["\u00e4 b"]})
    path = presets.path_of("fit model")
    text, hidden = presets.as_json(spec)
    presets.save(path, text)
    assert json.loads(path.read_text()) == {"code": spec.code, "args": ["\u00e4 b"]}
    assert hidden == []
    assert presets.read(path) == spec
    assert path.stat().st_mode & 0o077 == 0
    done = subprocess.run([*STOKE, "submit", str(path), "-q"], capture_output=True, text=True)
    assert done.stdout == "hi ['\u00e4 b']\n", done.stderr


def test_no_secret_is_in_it() -> None:
    env = {"API_TOKEN": "hunter2", "MODE": "fast"}
    spec = make_spec({"code": "1", "env": env, "secrets": {"DB": "file:/x"}})
    text, hidden = presets.as_json(spec)
    assert "hunter2" not in text
    assert hidden == ["API_TOKEN"]
    fields = json.loads(text)
    assert fields["env"] == {"MODE": "fast"}
    assert fields["secrets"] == {"DB": "file:/x", "API_TOKEN": "env:API_TOKEN"}


def test_a_bad_one_is_named_among_the_good() -> None:
    presets.save(presets.path_of("good"), '{"code": "1"}')
    for name, text in (
        ("broken", "{"),
        ("list", "[]"),
        ("field", '{"code": "1", "cod": 2}'),
        ("hidden", '{"code": "1", "env": {"A_KEY": "***"}}'),
    ):
        presets.save(presets.path_of(name), text)
    (presets.folder() / "bytes.json").write_bytes(b"\xff\xfe")
    (presets.folder() / "folder.json").mkdir()
    os.mkfifo(presets.folder() / "pipe.json")
    (presets.folder() / "notes.txt").write_text("not one of them")
    found = {one.name: one for one in presets.found()}
    assert [name for name, one in found.items() if one.error is None] == ["good"]
    assert len(found) == 8
    assert "'cod'" in str(found["field"].error) or "cod:" in str(found["field"].error)


@pytest.mark.parametrize("name", ["", " ", "../x", "a/b", ".hidden", "a\nb", "\x1b[31m", "x" * 81])
def test_a_name_that_is_no_files(name: str) -> None:
    with pytest.raises(RequestError, match="is not a name"):
        presets.path_of(name)


def test_no_folder_means_no_presets() -> None:
    assert presets.found() == []


def test_where_nothing_can_be_kept_it_says_so(own_home: Path) -> None:
    (own_home / "presets").write_text("in the way")
    with pytest.raises(EngineError, match="cannot save the preset"):
        presets.save(presets.path_of("x"), "{}")
