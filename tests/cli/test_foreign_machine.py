"""Machines with another setup: no home folder, another user's, one that is read-only, no
temporary folder, an old locale. Every command either works or says what to change."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.terminals import PROGRAM, Terminal

OWN = ("STOKE_STATE_DIR", "STOKE_CACHE_DIR", "STOKE_CONFIG")
FOLDERS = ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR")
COMMANDS = (
    ["run", "-q", "-c", "print('ran')"],
    ["jobs"],
    ["show", "x"],
    ["cache", "ls"],
    ["doctor"],
)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*OWN, *FOLDERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")


def run(words: list[str], *before: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*before, PROGRAM, *words], env={**os.environ, **env}, capture_output=True, text=True
    )
    assert "stoke itself failed" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def without_rights() -> list[str]:
    """What to put before a program so that permissions of files hold for it, also for root."""
    if os.getuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root may read everything, and there is no setpriv to change that")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_home_of_another_user(
    words: list[str], without_rights: list[str], tmp_path: Path
) -> None:
    """As after `sudo -u other stoke`."""
    home = tmp_path / "theirs"
    home.mkdir(mode=0o000)
    done = run(words, *without_rights, HOME=str(home))
    assert done.returncode != 0
    told = done.stdout + done.stderr
    assert str(home) in told and "Permission denied" in told
    assert "export HOME=" in told or "export STOKE_STATE_DIR=" in told
    own = tmp_path / "ours"
    own.mkdir()
    assert run(words, *without_rights, HOME=str(own)).returncode == {"show": 1, "doctor": 1}.get(
        words[0], 0
    )


# Without the second, systemd's module would know root all the same.
NO_USERS = """
mount --bind /dev/null /etc/passwd && mount --bind /dev/null /etc/nsswitch.conf && exec "$@"
"""


@pytest.fixture
def without_users() -> list[str]:
    """For a program to be run by a user whom the system does not know, as in many containers."""
    if os.getuid() != 0 or not shutil.which("unshare"):
        pytest.skip("only root can take /etc/passwd away from a program")
    return ["unshare", "-m", "sh", "-c", NO_USERS, "sh"]


@pytest.mark.parametrize("home", [None, ""])
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_no_home_at_all(words: list[str], home: str | None, without_users: list[str]) -> None:
    done = run(words, *without_users, **({} if home is None else {"HOME": home}))
    assert done.returncode != 0
    told = done.stdout + done.stderr
    assert "no home folder" in told and "export HOME=" in told
    if words[0] == "doctor":
        assert "local (default)" in done.stdout  # The rest is looked at all the same.


def test_with_its_own_folders_a_user_without_a_home_can_do_everything(
    without_users: list[str], tmp_path: Path
) -> None:
    env = {"STOKE_STATE_DIR": f"{tmp_path}/s", "STOKE_CACHE_DIR": f"{tmp_path}/c"}
    done = run(["run", "-q", "-c", "print('ran')"], *without_users, **env)
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    assert run(["jobs"], *without_users, **env).returncode == 0


def test_an_empty_home_is_none(tmp_path: Path) -> None:
    """`HOME=` must not put anything into the root of the file system."""
    before = set(os.listdir("/"))
    run(["doctor"], HOME="", STOKE_STATE_DIR=f"{tmp_path}/s", STOKE_CACHE_DIR=f"{tmp_path}/c")
    assert set(os.listdir("/")) == before


PLACES: dict[str, dict[str, str]] = {
    "relative XDG folders": dict.fromkeys(FOLDERS[1:], "relative"),
    "no temporary folder": {"TMPDIR": "/not/there"},
    "C locale": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "no terminal type": {"TERM": ""},
    "unknown terminal type": {"TERM": "nonsense"},
}


@pytest.mark.parametrize("place", PLACES)
def test_other_places(place: str, tmp_path: Path) -> None:
    env = {**PLACES[place], "HOME": str(tmp_path)}
    done = run(["run", "-q", "-c", "print('gr\\u00fc\\u00dfe')"], **env)
    assert done.returncode == 0, done.stderr
    for words in COMMANDS[1:]:
        run(words, **env)
    assert not Path("relative").exists()


@pytest.mark.parametrize("place", ["C locale", "no temporary folder", "unknown terminal type"])
def test_the_screens_in_other_places(
    place: str, tmp_path: Path, terminal: Callable[..., Terminal]
) -> None:
    at = terminal(env={"HOME": str(tmp_path), **PLACES[place]})
    at.until(b"stoke runs Python somewhere else")
    shown = len(at.screen)
    at.type("q")
    at.until(b"run in a shell", shown)  # The empty list, below the greeting.
    at.type("q")
    assert at.wait() == 0
    assert b"Traceback" not in at.screen
