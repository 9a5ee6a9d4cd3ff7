"""Untrusted documents are refused beyond a size or a depth."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.config.loader import load_config
from stoke.errors import RequestError
from stoke.files.untrusted import TooMuchError, parse_json, parse_toml, read_bytes, read_toml
from stoke.race.recording import read_recording
from stoke.request.sources import request_from_json
from stoke.request.spec import MAX_CODE
from tui import keymap, themes, ui_state
from tui.new_job import draft

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
DEEP_JSON = ["[" * 100_000, '{"a":' * 100_000, "[" * 500 + "]" * 500, '{"code": ' + "[" * 5000]
DEEP_TOML = [
    "a = " + "[" * 100_000,
    "a = " + "[" * 500 + "]" * 500,
    "a = " + "{b = " * 50_000,
    ".".join("a" * 200_000) + " = 1",
    "[" + " . ".join("a" * 200) + "]",
    ".".join(["'a'", '"b"'] * 100) + " = 1",
]


@pytest.mark.parametrize("piece", ["x", "x ", " ", "'", '"', "x.", "'x' . ", '"."'])
def test_toml_of_any_length_takes_seconds(piece: str) -> None:
    began = time.process_time()
    for text in (piece * 300_000, f"a = '{piece * 300_000}'"):
        try:
            parse_toml(text)
        except ValueError:
            pass
    assert time.process_time() - began < 10


@given(values)
def test_sound_documents_are_read_unchanged(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("text", DEEP_JSON, ids=range(len(DEEP_JSON)))
def test_json_of_any_depth(text: str, tmp_path: Path, own_home: Path) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
    with pytest.raises(RequestError):
        request_from_json(text.encode(), "the file")
    recording = tmp_path / "race.json"
    recording.write_text(text)
    with pytest.raises(RequestError):
        read_recording(recording)
    ui_state.save("screens", {})
    (own_home / "state" / "screens.json").write_text(text)
    assert ui_state.load("screens") == {}


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOKE_STATE_DIR", str(tmp_path / "own/state"))
    monkeypatch.setenv("STOKE_CONFIG", str(tmp_path / "own/config/config.toml"))
    (tmp_path / "own/config/themes").mkdir(parents=True)
    return tmp_path / "own"


@pytest.mark.parametrize("text", DEEP_TOML, ids=range(len(DEEP_TOML)))
def test_toml_of_any_depth(text: str, own_home: Path) -> None:
    with pytest.raises(ValueError):
        parse_toml(text)
    (own_home / "config/config.toml").write_text(text)
    with pytest.raises(RequestError):
        load_config()
    (own_home / "config" / keymap.FILE).write_text(text)
    keys, wrong = keymap.load()
    assert keys == {} and wrong
    (own_home / "config/themes/mine.toml").write_text(text)
    _, wrong = themes.load()
    assert wrong
    code = f"# /// script\n# {text}\n# ///\n"
    with pytest.raises(RequestError):
        request_from_json(json.dumps({"code": code}).encode(), "the file")


def test_many_values_are_refused_and_much_text_is_not() -> None:
    with pytest.raises(TooMuchError):
        parse_json("[" + "[]," * 3_000_000 + "[]]")
    code = "[1, 2], {" * 1_000_000 + '"\\'
    assert parse_json(json.dumps({"code": code})) == {"code": code}


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a = 1")
    (tmp_path / "link").symlink_to("file")
    with open(tmp_path / "endless", "wb") as file:
        file.truncate(1 << 40)
    for name in ("pipe", "folder", "link", "endless", "nothing"):
        with pytest.raises(OSError):
            read_bytes(tmp_path / name, 1000)
    for name in ("pipe", "folder", "endless", "nothing"):
        with pytest.raises((OSError, ValueError)):
            read_toml(tmp_path / name)
    assert read_bytes(tmp_path / "file", 5) == b"a = 1"
    # People link their settings.
    assert read_toml(tmp_path / "link") == {"a": 1}


def test_a_draft_of_the_longest_code_is_read_again() -> None:
    left = draft.Draft("\x7f" * MAX_CODE)
    draft.save(left)
    assert draft.load() == left
