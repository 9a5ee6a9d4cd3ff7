"""State, cache and configuration folders: variables before XDG folders before the home folder."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from stoke.errors import EngineError
from stoke.files.paths import cache_dir, config_file, job_dir, make_private, state_dir

OWN = ("STOKE_STATE_DIR", "STOKE_CACHE_DIR", "STOKE_CONFIG")
XDG = ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in OWN + XDG:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_below_the_home_folder(home: Path) -> None:
    assert state_dir() == home / ".local/state/stoke"
    assert cache_dir() == home / ".cache/stoke"
    assert config_file() == home / ".config/stoke/config.toml"
    assert job_dir("a-b") == home / ".local/state/stoke/jobs/a-b"


def test_xdg_folders_come_first_unless_they_are_relative(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in XDG:
        monkeypatch.setenv(name, f"/xdg/{name}")
    assert state_dir() == Path("/xdg/XDG_STATE_HOME/stoke")
    assert cache_dir() == Path("/xdg/XDG_CACHE_HOME/stoke")
    assert config_file() == Path("/xdg/XDG_CONFIG_HOME/stoke/config.toml")
    for name in XDG:
        monkeypatch.setenv(name, "here")
    assert state_dir() == home / ".local/state/stoke"


def test_our_own_variables_come_before_all(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in OWN:
        monkeypatch.setenv(name, f"/own/{name}")
    assert state_dir() == Path("/own/STOKE_STATE_DIR")
    assert cache_dir() == Path("/own/STOKE_CACHE_DIR")
    assert config_file() == Path("/own/STOKE_CONFIG")
    monkeypatch.chdir(home)
    monkeypatch.setenv("STOKE_STATE_DIR", "relative")
    assert state_dir() == home / "relative"


def test_a_folder_that_cannot_be_made_names_the_variable_that_moves_it(home: Path) -> None:
    (home / ".local").write_text("a file")
    (home / ".cache").write_text("a file")
    for folder, variable in [(state_dir(), "STOKE_STATE_DIR"), (cache_dir(), "STOKE_CACHE_DIR")]:
        with pytest.raises(EngineError) as caught:
            make_private(folder)
        assert str(folder) in caught.value.what
        assert f"export {variable}=" in (caught.value.hint or "")


@pytest.mark.parametrize("where", [state_dir, cache_dir])
def test_a_missing_home_folder_is_reported(
    monkeypatch: pytest.MonkeyPatch, where: Callable[[], Path]
) -> None:
    """A user id without a name, as in containers."""

    def unknown(_number: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(EngineError) as caught:
        where()
    assert "home" in caught.value.what
    assert "export HOME=" in (caught.value.hint or "")
    # A configuration file need not exist.
    assert config_file() == Path("/etc/xdg/stoke/config.toml")
