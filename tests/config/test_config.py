"""The configuration: a file, variables over it, and errors that name the place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stoke.config.loader import load_config
from stoke.config.model import Config
from stoke.errors import RequestError


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    path = tmp_path / "config.toml"
    monkeypatch.setenv("STOKE_CONFIG", str(path))
    return path


def test_with_neither_file_nor_variables_the_defaults_stand() -> None:
    config = load_config()
    assert config == Config()
    assert (config.backend, config.scope, config.lock_ttl) == ("local", "default", 86400)


def test_the_file_is_read(file: Path) -> None:
    file.write_text(
        'backend = "docker"\nlock_ttl = 0\n[docker]\nimage = "python:3.13"\n'
        '[index]\nurl = "https://i.example/simple"\nextra = ["https://e.example/s"]\n'
        'credentials = "env:CREDS"\n[log]\nmax_size = "10m"\n'
    )
    config = load_config()
    assert (config.backend, config.lock_ttl, config.docker.image) == ("docker", 0, "python:3.13")
    assert config.index.url == "https://i.example/simple"
    assert config.index.extra == ("https://e.example/s",)
    assert config.index.credentials == "env:CREDS"
    assert config.log.max_size == 10 * 1024**2
    assert config.docker.pids_limit == 4096


def test_variables_win_and_leave_their_neighbours(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('scope = "team"\n[docker]\nimage = "one"\nnetwork = "none"\n')
    monkeypatch.setenv("STOKE_DOCKER__IMAGE", "two")
    monkeypatch.setenv("STOKE_BACKEND", "docker")
    config = load_config()
    assert (config.backend, config.scope) == ("docker", "team")
    assert (config.docker.image, config.docker.network) == ("two", "none")


def test_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKE_LOCK_TTL", "60")
    monkeypatch.setenv("STOKE_INDEX__EXTRA", '["https://e.example/s"]')
    monkeypatch.setenv("STOKE_LOG__MAX_SIZE", "8m")
    config = load_config()
    assert (config.lock_ttl, config.log.max_size) == (60, 8 * 1024**2)
    assert config.index.extra == ("https://e.example/s",)


def test_variables_that_move_folders_are_no_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STOKE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("STOKE_CACHE_DIR", str(tmp_path))
    assert load_config() == Config()


def refused() -> RequestError:
    with pytest.raises(RequestError) as caught:
        load_config()
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize(
    ("text", "field", "why"),
    [
        ('scope = "Team A"', "scope", "is not a scope name"),
        ("lock_ttl = -1", "lock_ttl", "must be at least 0 "),
        ('lock_ttl = "soon"', "lock_ttl", "must be a whole number"),
        ("stop_grace = nan", "stop_grace", "must be at least 0 "),
        ('[docker]\npids_limit = "many"', "docker.pids_limit", "must be a whole number"),
        ("docker = 3", "docker", ""),
        ('[log]\nmax_size = "lots"', "log.max_size", "is not a size"),
        ('[index]\nurl = "i.example"', "index.url", "is not a web address"),
        ('[index]\ncredentials = "hunter2"', "index.credentials", "env:NAME"),
        ('backnd = "docker"', "backnd", "not a"),
        ('[docker]\nimagee = "x"', "docker.imagee", "not a"),
        ('[dokcer]\nimage = "x"', "dokcer", "not a"),
        ('color = "always"', "color", "'auto'"),
    ],
)
def test_a_mistake_in_the_file_names_the_setting_and_the_file(
    file: Path, text: str, field: str, why: str
) -> None:
    file.write_text(text)
    error = refused()
    assert error.field == field
    assert why in error.why
    assert str(file) in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("STOKE_LOCK_TTL", "soon", "lock_ttl"),
        ("STOKE_SCOPE", "Team A", "scope"),
        ("STOKE_DOCKER__PIDS_LIMIT", "-3", "docker.pids_limit"),
        ("STOKE_DOCKER__HOSTT", "x", "docker.hostt"),
        ("STOKE_INDEX__URL", "i.example", "index.url"),
    ],
)
def test_a_mistake_in_a_variable_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str
) -> None:
    monkeypatch.setenv(name, value)
    error = refused()
    assert error.field == field
    assert "STOKE_" in str(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STOKE_DOCKER", "not json"),
        ("STOKE_INDEX__EXTRA", "https://e.example/s"),
        ("STOKE_LOG", "["),
    ],
)
def test_a_variable_that_has_to_be_json_says_so(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert "JSON" in str(refused())


@pytest.mark.parametrize(
    "data",
    [b"backend = docker", b"[docker", b'a = 1\na = 2\nbackend = "x"', b"\xff\xfe", b'x = "\x00"'],
)
def test_a_file_that_is_no_toml_is_named(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    error = refused()
    assert error.field == str(file)
    assert "TOML" in error.why


def test_a_file_that_cannot_be_read_is_named(file: Path) -> None:
    file.mkdir()
    assert refused().field == str(file)


def test_with_nothing_to_read_pydantic_settings_is_not_loaded(file: Path) -> None:
    """It costs as much as all else that `stoke run` loads for this."""
    code = (
        "import sys; from stoke.config.loader import load_config; load_config();"
        "print('pydantic_settings' in sys.modules)"
    )

    def loaded() -> str:
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()

    assert loaded() == "False"
    file.write_text('backend = "local"\n')
    assert loaded() == "True"
